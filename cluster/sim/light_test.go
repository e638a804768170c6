package sim

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/jepsen/check"
	"onceq/jepsen/history"
	"onceq/transport/wire"
)

var (
	lightSeed  = flag.Uint64("light.seed", 0, "first seed of the light simulation; 0 for one by the clock")
	lightRuns  = flag.Int("light.runs", 3, "trials of the light simulation with seeds that follow each other")
	lightSteps = flag.Int("light.steps", 60, "steps of a trial")
	lightKeep  = flag.String("light.keep", "", "numbers of the steps to keep, as a shrunk schedule tells them; empty for all")
)

// TestLight runs seeded schedules over the queue machines, a model of the log and
// models of clients. It is faster than TestSimulation by a hundred times, and a
// seed gives the same run each time; what it leaves out is everything between
// client and machine. Now and then days pass, after which idle sessions have ended.
func TestLight(t *testing.T) {
	seed := *lightSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	t.Logf("seeds %d to %d", seed, seed+uint64(*lightRuns)-1)
	began, failovers, expired, messages := time.Now(), 0, 0, 0
	for i := range *lightRuns {
		s := seed + uint64(i)
		steps := lightPlan(s, *lightSteps)
		numbers := keptNumbers(t, *lightKeep, len(steps))
		out := lightTrial(t, s, keep(steps, numbers), nil, false)
		failovers += out.failovers
		expired += out.expired
		messages += out.stats.Messages
		if len(out.broken) > 0 {
			t.Fatalf("seed %d: %s\n%s", s, strings.Join(out.broken[:min(3, len(out.broken))], "\n\t"), lightShrunk(t, s, steps, numbers, false))
		}
		if out.stats.Publishes["ok"] == 0 || out.stats.Deliveries == 0 {
			t.Errorf("seed %d: nothing happened: %+v", s, out.stats)
		}
	}
	took := time.Since(began)
	t.Logf("%d trials, %d messages, %d copies of sessions that had ended, %d failovers in %v: %.0f failovers a minute", *lightRuns, messages, expired, failovers, took.Round(time.Millisecond), float64(failovers)/took.Minutes())
}

// lightShrunk makes a failing schedule smaller and says how to run it again.
func lightShrunk(t *testing.T, seed uint64, steps []step, numbers []int, blind bool) string {
	small := pick(numbers, shrink(len(numbers), func(try []int) bool {
		return len(lightTrial(t, seed, keep(steps, pick(numbers, try)), nil, blind).broken) > 0
	}))
	var b strings.Builder
	fmt.Fprintf(&b, "shrunk to %d of %d steps:\n", len(small), len(numbers))
	for i, x := range keep(steps, small) {
		fmt.Fprintf(&b, "\t%3d  %v\n", small[i], x)
	}
	last := lightTrial(t, seed, keep(steps, small), nil, blind)
	for _, text := range last.broken[:min(3, len(last.broken))] {
		fmt.Fprintf(&b, "\t%s\n", text)
	}
	fmt.Fprintf(&b, "again: go test ./cluster/sim -run TestLight -light.seed=%d -light.runs=1 -light.steps=%d -light.keep=%s", seed, len(steps), numbersText(small))
	return b.String()
}

// TestLight_APlantedBugIsFoundAndPrintedAsAScheduleThatShowsIt: voters that do not ask
// what a candidate knows elect one that lacks what was confirmed. It takes a failover,
// so schedules find it and their steps matter.
func TestLight_APlantedBugIsFoundAndPrintedAsAScheduleThatShowsIt(t *testing.T) {
	const stepsMost, seeds = 12, 40
	for seed := uint64(1); seed <= seeds; seed++ {
		steps := lightPlan(seed, stepsMost)
		all := keptNumbers(t, "", len(steps))
		out := lightTrial(t, seed, steps, nil, true)
		if len(out.broken) == 0 || len(lightTrial(t, seed, nil, nil, true).broken) > 0 {
			continue // this schedule does not bring it out, or there is no need for one
		}
		text := lightShrunk(t, seed, steps, all, true)
		t.Logf("seed %d:\n%s", seed, text)
		// As a reader runs it again.
		head, command, ok := strings.Cut(text, "again: go test ./cluster/sim -run TestLight ")
		flags := flag.NewFlagSet("again", flag.ContinueOnError)
		again, n, kept := flags.Uint64("light.seed", 0, ""), flags.Int("light.steps", 0, ""), flags.String("light.keep", "", "")
		flags.Int("light.runs", 0, "")
		if err := flags.Parse(strings.Fields(command)); err != nil || !ok {
			t.Fatalf("the command is %q: %v", command, err)
		}
		numbers := keptNumbers(t, *kept, *n)
		small := keep(lightPlan(*again, *n), numbers)
		if len(small) == 0 || len(small) >= len(steps) || !strings.HasPrefix(head, fmt.Sprintf("shrunk to %d of %d steps:\n", len(small), len(steps))) {
			t.Errorf("%d of %d steps are left", len(small), len(steps))
		}
		for i, s := range small {
			if !strings.Contains(head, fmt.Sprintf("\t%3d  %v\n", numbers[i], s)) {
				t.Errorf("step %d is not printed: %v", numbers[i], s)
			}
		}
		last := lightTrial(t, *again, small, nil, true)
		if len(last.broken) == 0 || !strings.Contains(head, "\t"+last.broken[0]+"\n") {
			t.Errorf("run again it shows %q", last.broken)
		}
		for i := range small { // each step is needed
			if less := slices.Delete(slices.Clone(numbers), i, i+1); len(lightTrial(t, *again, keep(lightPlan(*again, *n), less), nil, true).broken) > 0 {
				t.Errorf("it shows without step %d too", numbers[i])
			}
		}
		if sound := lightTrial(t, *again, small, nil, false); len(sound.broken) > 0 {
			t.Errorf("without the bug: %q", sound.broken)
		}
		return
	}
	t.Fatalf("none of %d schedules shows the bug", seeds)
}

func TestLight_ASeedAlwaysGivesTheSameRun(t *testing.T) {
	var a, b bytes.Buffer
	steps := lightPlan(5, 25)
	lightTrial(t, 5, steps, &a, false)
	lightTrial(t, 5, steps, &b, false)
	if a.Len() == 0 || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("two runs of one seed differ: %d and %d bytes of history", a.Len(), b.Len())
	}
}

// lightTrial runs one schedule. log, when it is not nil, gets the history; blind plants
// a bug.
func lightTrial(t *testing.T, seed uint64, steps []step, log *bytes.Buffer, blind bool) (out outcome) {
	if log == nil {
		log = &bytes.Buffer{}
	}
	synctest.Test(t, func(*testing.T) {
		l := &light{r: rand.New(rand.NewPCG(seed, 13)), h: history.NewWriter(log), delay: 3 * time.Millisecond, digests: map[uint64]uint64{}, blind: blind}
		l.h.Add(history.Event{F: history.Run, Type: history.OK, Of: -1, Setup: &history.Setup{
			Workload: "light", Seed: seed, Nodes: trialNodes, Lease: int64(lightLease), Grace: int64(graceTime), Epsilon: int64(trialClocks + lightStall), Raw: true,
			Expiry: int64(fsm.SessionExpiry),
		}})
		began := time.Now()
		l.whole(steps)
		out = outcome{broken: l.broken, failovers: max(0, int(l.terms)-1), expired: l.expired, virtual: time.Since(began)}
		if err := l.h.Flush(); err != nil {
			out.broken = append(out.broken, err.Error())
		}
	})
	events, err := history.Read(bytes.NewReader(log.Bytes()))
	if err != nil {
		out.broken = append(out.broken, err.Error())
	}
	report := check.Run(events)
	out.stats = report.Stats
	for _, v := range report.Violations {
		out.broken = append(out.broken, fmt.Sprintf("%s %s at %.2f s: %s", v.Checker, v.ID, float64(v.At)/1e9, v.Text))
	}
	return out
}

// whole is a run: start, schedule, healing, drain.
func (l *light) whole(steps []step) {
	for i := range trialNodes {
		n := &lightNode{l: l, name: fmt.Sprintf("n%d", i+1)}
		l.nodes = append(l.nodes, n)
		n.start()
		n.tick()
	}
	l.create()
	for i := range 3 {
		c := &lightConsumer{l: l, name: fmt.Sprintf("c%d", i+1)}
		l.cs = append(l.cs, c)
		c.begin()
	}
	for i := range 2 {
		p := &lightProducer{l: l, name: fmt.Sprintf("p%d", i+1), nonce: wire.Nonce{byte(i + 1)}, ended: map[uint64]bool{}}
		l.ps = append(l.ps, p)
		p.start()
		p.produce()
	}
	for _, s := range steps {
		l.run(s.after)
		l.step(s)
	}
	l.run(6 * time.Second) // what steps have put off
	l.ending = true
	op := l.h.Invoke(history.Event{Proc: "monitor", F: history.Drain})
	for range 600 {
		l.run(100 * time.Millisecond)
		if l.drained() || len(l.broken) > 0 {
			break
		}
	}
	if len(l.broken) > 0 {
		return
	}
	if !l.drained() {
		op.Err = l.left()
		l.h.Complete(op, history.Fail)
		return
	}
	l.h.Complete(op, history.OK)
	l.run(graceTime + 2*time.Second) // whom the cluster takes for gone it gives up by now
}

// create makes the queue, as soon as somebody serves.
func (l *light) create() {
	made := false
	for !made && len(l.broken) == 0 {
		l.run(50 * time.Millisecond)
		if n := l.leader(); n.serves {
			n.ask(command{wire.QueueCreate{
				Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Name: lightQueue, Settings: wire.QueueSettings{LeaseTime: lightLease, BackoffMin: -1},
			}, func(r *fsm.Result) { made = made || r != nil && r.Status == fsm.StatusOK }})
		}
	}
}

func (l *light) drained() bool {
	for _, p := range l.ps {
		if len(p.open) > 0 {
			return false
		}
	}
	for _, n := range l.nodes {
		if !n.up {
			return false
		}
		for _, q := range n.m.Queues() {
			if c := q.Counts; c.Ready+c.Leased+c.Delayed+c.Parked > 0 {
				return false
			}
		}
	}
	return true
}

// left says what a drain waits for.
func (l *light) left() string {
	var b strings.Builder
	for _, n := range l.nodes {
		fmt.Fprintf(&b, "%s: up %v, leads %v, serves %v, term %d, log %d to %d, committed %d, applied %d", n.name, n.up, n.leads, n.serves, n.term, n.base, n.last(), n.commit, n.applied)
		if n.up {
			for _, q := range n.m.Queues() {
				fmt.Fprintf(&b, ", %+v", q.Counts)
			}
		}
		b.WriteString("\n\t\t")
	}
	for _, p := range l.ps {
		fmt.Fprintf(&b, "%s: %d publishes without an outcome; ", p.name, len(p.open))
	}
	for _, c := range l.cs {
		fmt.Fprintf(&b, "%s: attached %v, holds %d; ", c.proc(), c.at != nil, len(c.held))
	}
	return b.String()
}

// step does one step of a schedule.
func (l *light) step(s step) {
	n := l.nodes[max(0, s.node)]
	if s.node == leads {
		for _, o := range l.nodes {
			if o.leads && (!n.leads || o.term > n.term) {
				n = o
			}
		}
	}
	clients := []string{"c1", "c2", "c3", "p1", "p2"}
	host := clients[s.other%len(clients)]
	others := slices.DeleteFunc(slices.Clone(l.nodes), func(o *lightNode) bool { return o == n })
	start := func(ns ...*lightNode) {
		l.in(s.last, func() {
			for _, n := range ns {
				if !n.up {
					n.start()
				}
			}
		})
	}
	var lines []cutLine
	switch s.what {
	case "kill", "stop":
		n.kill()
		start(n)
	case "kill-all":
		for _, n := range l.nodes {
			n.kill()
		}
		start(l.nodes...)
	case "isolate":
		lines = append(lines, cutLine{n.name, ""})
	case "minority", "mute", "deaf":
		for _, o := range others {
			if s.what != "deaf" {
				lines = append(lines, cutLine{n.name, o.name})
			}
			if s.what != "mute" {
				lines = append(lines, cutLine{o.name, n.name})
			}
		}
	case "transfer":
		if n.leads {
			n.follow()
			others[s.other%len(others)].heard = time.Time{}
		}
	case "reset":
		for _, c := range l.cs {
			if c.name == host {
				c.disconnect()
			}
		}
	case "lose":
		for _, n := range l.nodes {
			lines = append(lines, cutLine{n.name, host})
		}
	case "hold":
		lines = append(lines, cutLine{host, n.name})
	case days:
		l.pass(s.last)
	case wall:
		n.ahead = wallOf(s)
	case "slow":
		l.delay = 60 * time.Millisecond
		l.in(s.last, func() { l.delay = 3 * time.Millisecond })
	}
	if len(lines) > 0 {
		l.cut(s.last, lines...)
	}
}
