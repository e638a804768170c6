package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"onceq/transport/wire"
)

// refusals are what a node says that could not take a frame at one moment and can
// at the next.
var refusals = []wire.Code{wire.CodeOverloaded, wire.CodeNoLeader}

func refuse(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	refused, node := 0, ""
	for range 10 + r.IntN(30) {
		if l := t.Leader(); l != "" {
			node = l
		}
		if node == "" {
			wait(ctx, 200*time.Millisecond)
			continue
		}
		x := t.Net.RefuseRequests(node, refusals[r.IntN(len(refusals))], wire.OpPublish)
		going := wait(ctx, between(r, 50*time.Millisecond, 500*time.Millisecond))
		refused += t.Net.StopRefusing(x)
		if !going {
			break
		}
	}
	return node, refused > 0, fmt.Sprintf("%d frames were refused", refused)
}
