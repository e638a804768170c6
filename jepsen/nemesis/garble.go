package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// garbleOneIn is how many frames are carried as they are for one that is not.
const garbleOneIn = 60

func garble(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	before := t.Net.Garbled()
	names := t.Cluster.Names()
	for _, n := range names {
		t.Net.Garble(n, garbleOneIn)
	}
	wait(ctx, between(r, 2*time.Second, 6*time.Second))
	for _, n := range names {
		t.Net.Garble(n, 0)
	}
	k := t.Net.Garbled() - before
	return "", k > 0, fmt.Sprintf("a bit was flipped in %d frames", k)
}
