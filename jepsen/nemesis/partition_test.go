package nemesis

import (
	"fmt"
	"slices"
	"testing"
)

func TestRing_EachNodeReachesAMajorityAndNoTwoTheSame(t *testing.T) {
	t.Parallel()
	for n := 4; n <= 9; n++ {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprint("n", i+1))
		}
		l := ring(names)
		var reached []string
		for _, a := range names {
			var to []string
			for _, b := range names {
				_, cut := l[[2]string{a, b}]
				_, back := l[[2]string{b, a}]
				if cut != back {
					t.Errorf("%d nodes: %s and %s are cut one way", n, a, b)
				}
				if !cut {
					to = append(to, b)
				}
			}
			if len(to) <= n/2 || len(to) == n {
				t.Errorf("%d nodes: %s reaches %v", n, a, to)
			}
			reached = append(reached, fmt.Sprint(to))
		}
		slices.Sort(reached)
		if len(slices.Compact(reached)) != n {
			t.Errorf("%d nodes: two reach the same: %v", n, reached)
		}
	}
}

func TestApart_CutsBothWaysAndNothingElse(t *testing.T) {
	t.Parallel()
	l := linkSet{}
	l.apart([]string{"a", "b"}, []string{"c"})
	for _, link := range [][2]string{{"a", "c"}, {"c", "a"}, {"b", "c"}, {"c", "b"}} {
		if !l[link].Cut {
			t.Errorf("%v is not cut", link)
		}
	}
	if len(l) != 4 {
		t.Errorf("%d links are cut, want 4", len(l))
	}
}
