package cluster

import (
	"testing"

	"onceq/transport/wire"
)

// A server that votes counts for the quorum, so it has to have what was committed when
// it came, and to be the one that came: a wiped node at its address is another.
func TestMayVote_OnlyWhoHasCaughtUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		answers string
		applied uint64
		want    bool
	}{
		{"empty", "n4-a", 0, false},
		{"an entry is missing", "n4-a", 99, false},
		{"has all that was committed when it came", "n4-a", 100, true},
		{"another answers at its address", "n4-b", 100, false},
	} {
		err := mayVote("n4-a", wire.NodeStatus{ServerID: c.answers, AppliedIndex: c.applied}, 100)
		if (err == nil) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
