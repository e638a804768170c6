package main

import (
	"runtime"
	"testing"
)

func TestMemoryLimit_FollowsWhatIsInUse(t *testing.T) {
	t.Parallel()
	const budget = 256 << 20
	if got := memoryLimit(budget, 100<<20); got != budget+memorySpare {
		t.Errorf("with little in use the limit is %d MiB", got>>20)
	}
	if got := memoryLimit(budget, 2<<30); got < 2<<30+512<<20 {
		t.Errorf("with 2 GiB in use the limit is %d MiB: the collector would not rest", got>>20)
	}
}

func TestCollectPercent_EndsBelowTheLimit(t *testing.T) {
	t.Parallel()
	const limit, other = 456 << 20, 20 << 20
	for _, live := range []int64{0, 50 << 20, 190 << 20, 250 << 20, 290 << 20} {
		p := int64(collectPercent(limit, usage{live, other}))
		if end := live + live*p/100 + other; end > limit/100*belowLimit {
			t.Errorf("with %d MiB in use %d %% may come, %d MiB in all", live>>20, p, end>>20)
		}
	}
	if p := collectPercent(limit, usage{50 << 20, other}); p != percentMost {
		t.Errorf("with little in use %d %% may come", p)
	}
	if p := collectPercent(limit, usage{400 << 20, other}); p != percentLeast {
		t.Errorf("with much in use %d %% may come: the collector would not rest", p)
	}
}

func TestCollections_TellsOfEach(t *testing.T) {
	t.Parallel()
	c := collections(t.Context())
	for range 3 {
		runtime.GC()
		<-c
	}
}
