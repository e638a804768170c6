package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

func halfOpen(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	names := t.Cluster.Names()
	for _, n := range names {
		t.Net.Linger(n, between(r, 500*time.Millisecond, 4*time.Second))
	}
	cut := 0
	for range 2 + r.IntN(3) {
		for _, n := range names {
			cut += t.Net.CutClients(n)
		}
		if !wait(ctx, between(r, time.Second, 4*time.Second)) {
			break
		}
	}
	for _, n := range names {
		t.Net.Linger(n, 0)
	}
	return "", cut > 0, fmt.Sprintf("%d connections were reset on one side", cut)
}
