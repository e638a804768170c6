package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"onceq/jepsen/skew"
)

// fieldClock is what nodes take for the time.
const fieldClock = "clock"

func clockFaults() []Fault {
	needs := []Need{NeedClock}
	return []Fault{
		{Name: "clock-jump", What: "a node's wall clock, mostly the leader's, is wrong by seconds to years, and right again", Needs: needs, Field: fieldClock, Weight: 2, run: clockJump},
		{Name: "clock-strobe", What: "a node's wall clock goes back and forth by half a minute all the time", Needs: needs, Field: fieldClock, Weight: 1, run: clockStrobe},
	}
}

// jumps are by how much a clock is wrong.
var jumps = []time.Duration{2 * time.Second, time.Minute, time.Hour, 24 * time.Hour, 400 * 24 * time.Hour}

// clockOf takes a node's wall clock into our hands.
func (t *Target) clockOf(node string) (*skew.Clock, error) {
	pid := t.Cluster.Pid(node)
	if pid == 0 {
		return nil, fmt.Errorf("%s is down", node)
	}
	if err := t.Cluster.Pause(node); err != nil {
		return nil, err
	}
	time.Sleep(settle) // its threads stand still one after the other
	c, err := skew.Attach(pid)
	if rerr := t.Cluster.Resume(node); rerr != nil {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
		return nil, errors.Join(err, rerr)
	}
	return c, err
}

func clockJump(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	c, err := t.clockOf(node)
	if err != nil {
		return node, false, err.Error()
	}
	defer c.Close()
	d := jumps[r.IntN(len(jumps))]
	if r.IntN(2) == 0 {
		d = -d
	}
	if err := c.Set(d); err != nil {
		return node, false, err.Error()
	}
	wait(ctx, between(r, 2*time.Second, 8*time.Second))
	told := t.toldTime(node)
	if err := c.Set(0); err != nil {
		return node, false, fmt.Sprintf("by %v: %v", d, err) // its process is gone, and the clock with it
	}
	seen := (told - d).Abs() < d.Abs()/2
	return node, seen, fmt.Sprintf("wrong by %v; by its log it was off by %v", d, told.Round(time.Second))
}

// toldTime is by how much the newest line of a node's log is ahead of our clock.
func (t *Target) toldTime(node string) time.Duration {
	b, err := os.ReadFile(t.Cluster.Log(node))
	if err != nil {
		return 0
	}
	text := string(b)
	i := strings.LastIndex(text, "\ntime=")
	if i < 0 {
		return 0
	}
	stamp, _, _ := strings.Cut(text[i+len("\ntime="):], " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		return 0
	}
	return time.Until(at)
}

func clockStrobe(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	const swing = 30 * time.Second
	node := t.one(r)
	c, err := t.clockOf(node)
	if err != nil {
		return node, false, err.Error()
	}
	defer c.Close()
	n, d := 0, swing
	ctx, cancel := context.WithTimeout(ctx, between(r, 2*time.Second, 8*time.Second))
	defer cancel()
	seen := false
	for {
		if err = c.Set(d); err != nil {
			break
		}
		n++
		going := wait(ctx, between(r, 20*time.Millisecond, 300*time.Millisecond))
		if off := t.toldTime(node).Abs(); off > swing/2 && off < 2*swing {
			seen = true
		}
		if !going {
			err = c.Set(0)
			break
		}
		d = -d
	}
	text := fmt.Sprintf("%d jumps of %v", n, 2*swing)
	if err != nil {
		return node, false, fmt.Sprintf("%s: %v", text, err)
	}
	return node, seen, text
}
