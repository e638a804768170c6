package nemesis

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHitsOf_SumsWhatRulesWereAppliedTo(t *testing.T) {
	t.Parallel()
	for stats, want := range map[string]int{
		"read=0/120 write=0/4 fsync=0/0":   0,
		"read=0/120 write=1/4 fsync=0/0":   1,
		"read=0/120 write=3/4 fsync=12/20": 15,
		"":                                 0,
	} {
		if got := hitsOf(stats); got != want {
			t.Errorf("%q: %d, want %d", stats, got, want)
		}
	}
}

func TestHasPending_IsAnyFileOrName(t *testing.T) {
	t.Parallel()
	for told, want := range map[string]bool{
		"n1 0 files, 0 names": false, "n1 2 files, 0 names": true, "n2 0 files, 1 names": true, "connection refused": false,
	} {
		if got := hasPending(told); got != want {
			t.Errorf("%q: %v, want %v", told, got, want)
		}
	}
}

// TestNeeded_WithoutTheSparedAndTheNode_NothingIsConfirmed: with the node the leader has
// just a majority.
func TestNeeded_WithoutTheSparedAndTheNode_NothingIsConfirmed(t *testing.T) {
	t.Parallel()
	for nodes := 3; nodes <= 7; nodes++ {
		followers := []string{"n2", "n3", "n4", "n5", "n6", "n7"}[:nodes-1]
		drawn := map[string]bool{}
		for seed := range uint64(200) {
			node, spared := needed(slices.Clone(followers), rand.New(rand.NewPCG(seed, 1)))
			if drawn[node] = true; slices.Contains(spared, node) {
				t.Fatalf("%s is needed and stands still: %v", node, spared)
			}
			if running, majority := nodes-len(spared), nodes/2+1; running != majority {
				t.Fatalf("%d of %d nodes run, a majority is %d: %v stand still", running, nodes, majority, spared)
			}
		}
		if len(drawn) != nodes-1 {
			t.Errorf("of %d followers only %v were ever drawn", nodes-1, drawn)
		}
	}
}
