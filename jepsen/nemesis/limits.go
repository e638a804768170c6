package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"onceq/jepsen/proc"
)

func limitFaults() []Fault {
	needs := []Need{NeedLimits}
	return []Fault{
		{Name: "few-files", What: "a node, mostly the leader, can open no more files and connections, while clients come back to it", Needs: needs, Away: One, Field: fieldLimits, Weight: 1, run: fewFiles},
		{Name: "no-memory", What: "a node, mostly the leader, is given no more memory by the system: it may get by, or end", Needs: needs, Away: One, Field: fieldLimits, Weight: 1, run: noMemory},
	}
}

// fieldLimits is what the system lets a node have.
const fieldLimits = "limits"

// fewFiles leaves a node about what it has open. A connection that it cannot accept
// must not end it; a file of its log that it cannot open may.
func fewFiles(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	pid := t.Cluster.Pid(node)
	open, err := proc.OpenFiles(pid)
	if err != nil {
		return node, false, err.Error()
	}
	most := uint64(open + r.IntN(3))
	return t.limited(ctx, r, node, proc.LimitFiles, most, func() bool {
		t.Net.Cut(node, "")
		now, err := proc.OpenFiles(pid)
		return err == nil && uint64(now) >= most
	})
}

// noMemory lets a node have what it has. The runtime of Go ends a process that asks
// for more, in the middle of whatever it does; a database that maps its file hears an
// error.
func noMemory(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	has, err := proc.Memory(t.Cluster.Pid(node))
	if err != nil {
		return node, false, err.Error()
	}
	return t.limited(ctx, r, node, proc.LimitMemory, has, func() bool { return false })
}

// limited keeps a limit on a node for a while. hit says whether the node is there by
// now; that it ended says so too.
func (t *Target) limited(ctx context.Context, r *rand.Rand, node string, l proc.Limit, most uint64, hit func() bool) (string, bool, string) {
	t.Cluster.Expect(node, true)
	defer t.Cluster.Expect(node, false)
	lift, err := t.Cluster.Limit(node, l, most)
	if err != nil {
		return node, false, err.Error()
	}
	seen, ended := false, func() bool { s, _ := t.Cluster.State(node); return s == proc.Down }
	for began, d := time.Now(), between(r, 3*time.Second, 9*time.Second); time.Since(began) < d && !ended(); {
		seen = hit() || seen
		if !wait(ctx, between(r, 0, limitedPause)) {
			break
		}
	}
	if ended() {
		t.start(node)
		return node, true, fmt.Sprintf("it ended with %d %s", most, l)
	}
	t.try(lift())
	return node, seen, fmt.Sprintf("it went on with %d %s", most, l)
}

// limitedPause is the longest between two looks at a node under a limit.
const limitedPause = 400 * time.Millisecond
