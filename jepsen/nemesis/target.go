package nemesis

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/faultdisk"
	"onceq/jepsen/history"
	"onceq/jepsen/hosts"
	"onceq/jepsen/proc"
	"onceq/jepsen/proxy"
)

// Target is what can be broken.
type Target struct {
	H       *history.Writer
	Cluster *proc.Cluster
	Net     *proxy.Net
	Hosts   *hosts.Net                 // nil: the nodes are on loopback
	Disks   map[string]*faultdisk.Disk // by node; nil: they are not faulty
	// Leader is the node that leads as far as is known, "" when none does.
	Leader func() string
	// Serving waits until a node leads and serves, false when ctx ends first.
	Serving func(ctx context.Context) bool
	// Answers says whether a node answers at all, within a moment.
	Answers func(ctx context.Context, node string) bool
	// Newer is the build that nodes are upgraded to, "" when they have it from the start.
	Newer string
	// Applied and Snapshot are the newest index that a node has applied, and that of
	// its newest snapshot, as far as is known.
	Applied, Snapshot func(node string) uint64
	// CaughtUp waits until all nodes have what the leader has now.
	CaughtUp func(ctx context.Context) error
	// Admin calls f with a client that no fault of the proxy touches.
	Admin func(ctx context.Context, f func(a *client.Admin) error) error
	// Under is told when a fault of a kind begins and when it is over. It may be nil.
	Under func(kind string, on bool)
	// Seen is told of each fault whose effect was observed, when it is in the history.
	// It may be nil.
	Seen   func(kind string)
	Report func(format string, args ...any)

	heal  func() // in place of Heal, for tests
	taken *claims
	fault int // the number of the fault that has this copy of the target
}

// claims says which fault under way is about which node, so that two do not
// choose the same one.
type claims struct {
	mu sync.Mutex
	of map[string]int // node to number of the fault
}

// one draws a node that no other fault is about: more often the leader, whose
// loss costs most.
func (t *Target) one(r *rand.Rand) string {
	leader, wanted := t.Leader(), r.IntN(100) < leaderPercent
	names := t.Cluster.Names()
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	if wanted && leader != "" {
		names = append([]string{leader}, names...)
	}
	for _, n := range names {
		if t.maybeTake(n) {
			return n
		}
	}
	return names[0]
}

// maybeTake says that this fault is about a node, unless another one is.
func (t *Target) maybeTake(node string) bool {
	t.taken.mu.Lock()
	defer t.taken.mu.Unlock()
	by, ok := t.taken.of[node]
	if !ok {
		t.taken.of[node] = t.fault
	}
	return !ok || by == t.fault
}

// give gives the nodes back.
func (t *Target) give() {
	t.taken.mu.Lock()
	defer t.taken.mu.Unlock()
	maps.DeleteFunc(t.taken.of, func(_ string, by int) bool { return by == t.fault })
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
	if t.Hosts != nil {
		t.Hosts.Heal()
	}
	for _, d := range t.Disks {
		t.try(d.Heal())
	}
	for _, n := range t.Cluster.Names() {
		switch s, _ := t.Cluster.State(n); s {
		case proc.Paused:
			t.try(t.Cluster.Resume(n))
		case proc.Down:
			t.try(t.Cluster.Start(n))
		}
	}
}

// Transfer hands leadership to a node, "" for any.
func (t *Target) Transfer(ctx context.Context, node string) error {
	return t.Admin(ctx, func(a *client.Admin) error { return a.TransferLeadership(ctx, node) })
}

func (t *Target) try(err error) {
	if err != nil {
		t.Report("nemesis: %v", err)
	}
}

// heedEvery is how often heed looks.
const heedEvery = 25 * time.Millisecond

// heed waits until it sees something, false when d is over or ctx ends first.
func (t *Target) heed(ctx context.Context, d time.Duration, sees func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for !sees() {
		if !wait(ctx, heedEvery) {
			return sees()
		}
	}
	return true
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
