package nemesis

import (
	"context"
	"math/rand/v2"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/proc"
	"onceq/jepsen/proxy"
)

// Target is what can be broken.
type Target struct {
	H       *history.Writer
	Cluster *proc.Cluster
	Net     *proxy.Net
	// Leader is the node that leads as far as is known, "" when none does.
	Leader func() string
	// Serving waits until a node leads and serves, false when ctx ends first.
	Serving func(ctx context.Context) bool
	// Answers says whether a node answers at all, within a moment.
	Answers func(ctx context.Context, node string) bool
	// Transfer hands leadership to a node.
	Transfer func(ctx context.Context, node string) error
	Report   func(format string, args ...any)

	heal func() // in place of Heal, for tests
}

// one draws a node: more often the leader, whose loss costs most.
func (t *Target) one(r *rand.Rand) string {
	if l := t.Leader(); l != "" && r.IntN(100) < leaderPercent {
		return l
	}
	names := t.Cluster.Names()
	return names[r.IntN(len(names))]
}

// linked draws a node that clients are connected to, if there is one.
func (t *Target) linked(r *rand.Rand) string {
	names := t.Cluster.Names()
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, n := range names {
		if t.Net.Links(n) > 0 {
			return n
		}
	}
	return names[0]
}

const leaderPercent = 60

// Heal puts everything back that faults may have left.
func (t *Target) Heal() {
	if t.heal != nil {
		t.heal()
		return
	}
	t.Net.Heal()
	for _, n := range t.Cluster.Names() {
		switch s, _ := t.Cluster.State(n); s {
		case proc.Paused:
			t.try(t.Cluster.Resume(n))
		case proc.Down:
			t.try(t.Cluster.Start(n))
		}
	}
}

func (t *Target) try(err error) {
	if err != nil {
		t.Report("nemesis: %v", err)
	}
}

// wait waits, false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}
