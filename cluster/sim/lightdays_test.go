package sim

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"onceq/fsm"
	"onceq/jepsen/history"
)

// days is a step of the light simulation alone: nobody does anything for so long that
// sessions may end, and then producers go on where they were.
const days = "days"

const (
	daysOne   = 20 // one in so many steps
	daysLeast = 20 * time.Hour
	daysMost  = 2 * fsm.SessionExpiry
	quietMost = 15 * time.Second
)

// lightPlan draws the steps of a seed for the light simulation.
func lightPlan(seed uint64, steps int) []step {
	r := rand.New(rand.NewPCG(seed, 17))
	all := plan(seed, steps, trialNodes)
	for i := range all {
		if r.IntN(daysOne) == 0 {
			all[i].what, all[i].last = days, daysLeast+time.Duration(r.Int64N(int64(daysMost-daysLeast)))
		}
	}
	return all
}

// pass lets cluster time go on by d in a moment in which nothing depends on it but
// sessions, since the clock by which the history is judged does not move. Producers are
// asleep meanwhile, with publishes under way, and copies of what they had finished come
// once more afterwards.
func (l *light) pass(d time.Duration) {
	l.asleep = true
	defer func() { l.asleep = false }()
	n := l.quiet()
	for waited := time.Duration(0); n == nil && waited < quietMost && len(l.broken) == 0; waited += lightTick {
		l.run(lightTick)
		n = l.quiet()
	}
	if n == nil {
		return
	}
	n.clock += fsm.Time(d)
	n.append(n.clock)
	now := l.h.Now()
	l.h.Add(history.Event{Proc: "monitor", F: history.Passed, Type: history.OK, Of: -1, T0: now, T1: now, Delay: int64(d)})
	for _, p := range l.ps {
		for _, m := range p.closed {
			p.late(m)
		}
	}
}

func TestLight_DaysPass_LateCopiesOfASessionThatWasIdleForTooLongAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		pass    time.Duration // twice, with traffic before, between and after
		expired bool
	}{
		{"longer than a session lives", fsm.SessionExpiry + time.Hour, true},
		{"longer only together", fsm.SessionExpiry * 2 / 3, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			idle := step{after: 3 * time.Second, what: days, last: c.pass}
			out := lightTrial(t, 1, []step{idle, idle}, &log, false)
			if len(out.broken) > 0 || out.expired > 0 != c.expired {
				t.Errorf("%d copies were refused, broken %q", out.expired, out.broken)
			}
			if n := strings.Count(log.String(), `"f":"`+history.Passed+`"`); n != 2 {
				t.Errorf("days have passed %d times", n)
			}
		})
	}
}

// quiet returns the leader when its queue is empty, nobody is to be cut off or given up,
// and nothing is under way that would change that before its next entry.
func (l *light) quiet() *lightNode {
	var n *lightNode
	for _, o := range l.nodes {
		if o.up && o.serves && (n == nil || o.term > n.term) {
			n = o
		}
	}
	if n == nil || len(n.waiting) > 0 || n.applied != n.last() {
		return nil
	}
	for _, c := range l.cs {
		if c.at != n || n.attached[c.id] != c {
			return nil
		}
	}
	for _, q := range n.m.Queues() {
		if c := q.Counts; c.Ready+c.Leased+c.Delayed+c.Parked > 0 {
			return nil
		}
	}
	return n
}
