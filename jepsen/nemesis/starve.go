package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"onceq/jepsen/proc"
)

// A starved node runs for a tenth of the time, as on a machine that others have taken
// over or under a quota.
const (
	starveStands = 90 * time.Millisecond
	starveRuns   = 10 * time.Millisecond
)

func starve(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	stops, began := 0, time.Now()
	for d := between(r, 2*time.Second, 8*time.Second); time.Since(began) < d; stops++ {
		if t.Cluster.Pause(node) != nil {
			break // another fault has ended it
		}
		wait(ctx, starveStands)
		if s, _ := t.Cluster.State(node); s == proc.Paused {
			t.try(t.Cluster.Resume(node))
		}
		if !wait(ctx, starveRuns) {
			break
		}
	}
	return node, stops > 1, fmt.Sprintf("it was stopped %d times in %.1f s", stops, time.Since(began).Seconds())
}
