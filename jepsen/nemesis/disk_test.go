package nemesis

import "testing"

func TestApplied_ByTheCountsOfTheDisk(t *testing.T) {
	t.Parallel()
	for stats, want := range map[string]bool{
		"read=0/120 write=0/4 fsync=0/0":  false,
		"read=0/120 write=1/4 fsync=0/0":  true,
		"read=0/120 write=0/4 fsync=12/0": true,
		"":                                false,
	} {
		if got := applied(stats); got != want {
			t.Errorf("%q: %v", stats, got)
		}
	}
}
