package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

func memberFaults() []Fault {
	return []Fault{
		{Name: "transfer", What: "leadership is handed over", Field: fieldMembers, Weight: 3, run: transfer},
	}
}

// fieldMembers is who is in the cluster and who leads it.
const fieldMembers = "members"

func transfer(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	from := t.Leader()
	others := slices.DeleteFunc(t.Cluster.Names(), func(n string) bool { return n == from })
	to := others[r.IntN(len(others))]
	if r.IntN(2) == 0 {
		to = ""
	}
	trying, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := t.Transfer(trying, to)
	for trying.Err() == nil {
		if l := t.Leader(); l != "" && l != from && from != "" {
			return from, true, fmt.Sprintf("%s leads after %s", l, from)
		}
		wait(trying, 50*time.Millisecond)
	}
	return from, false, fmt.Sprintf("to %q: %v", to, err)
}
