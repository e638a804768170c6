package nemesis

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onceq/jepsen/history"
)

func TestFind_AllNoneAndUnknown(t *testing.T) {
	t.Parallel()
	if all, _, err := Find([]string{"all"}); err != nil || len(all) != len(All()) {
		t.Errorf("all: %d faults, %v", len(all), err)
	}
	if none, _, err := Find([]string{"none"}); err != nil || len(none) != 0 {
		t.Errorf("none: %v, %v", none, err)
	}
	if two, _, err := Find([]string{"cut", "kill"}); err != nil || len(two) != 2 || two[0].Name != "cut" {
		t.Errorf("two: %v, %v", two, err)
	}
	if _, _, err := Find([]string{"kill", "nonsense"}); err == nil {
		t.Error("nonsense is a fault")
	}
}

func TestRole(t *testing.T) {
	t.Parallel()
	members := []string{"n1", "n2", "n3"}
	for _, c := range []struct{ node, leader, want string }{
		{"n1", "n1", history.Leading},
		{"n2", "n1", history.Following},
		{"n2", "", ""},
		{"n1,n2", "n1", ""},
		{"n4", "n1", ""}, // it was not a member yet
		{"", "n1", ""},
	} {
		if got := role(members, c.node, c.leader); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// schedule lets fake faults run and returns in which order they came.
func schedule(seed uint64, d time.Duration) (order []string, w *history.Writer) {
	w = history.NewWriter(io.Discard)
	t := &Target{H: w, Serving: func(context.Context) bool { return true }}
	t.heal = func() {}
	t.Leader = func() string { return "" }
	var mu sync.Mutex // two faults may come together
	fault := func(name string, seen bool) Fault {
		return Fault{Name: name, run: func(ctx context.Context, _ *Target, r *rand.Rand) (string, bool, string) {
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			wait(ctx, time.Second)
			return "", seen, ""
		}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	t.Run(ctx, []Fault{fault("a", true), fault("b", true), fault("c", true)}, seed)
	return order, w
}

func TestRun_TheSeedDecidesAndEachKindComesInEachRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, _ := schedule(7, 5*time.Minute)
		again, _ := schedule(7, 5*time.Minute)
		other, _ := schedule(8, 5*time.Minute)
		if len(first) < 30 {
			t.Fatalf("only %d faults in five minutes", len(first))
		}
		same := func(a, b []string) bool {
			n := min(len(a), len(b))
			for i := range n {
				if a[i] != b[i] {
					return false
				}
			}
			return true
		}
		if len(first) != len(again) {
			t.Errorf("%d and %d faults by the same seed", len(first), len(again))
		}
		if same(first, other) {
			t.Error("another seed gives the same plan")
		}
		count := map[string]int{}
		for _, f := range first {
			count[f]++
		}
		for _, f := range []string{"a", "b", "c"} {
			if d := count[f] - len(first)/3; d < -1 || d > 1 {
				t.Errorf("%s came %d times of %d", f, count[f], len(first))
			}
		}
	})
}
