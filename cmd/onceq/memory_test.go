package main

import "testing"

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
