package nemesis

import "testing"

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
