package raftlog

import (
	"testing"

	"github.com/hashicorp/raft"
)

// raft asks for each entry once a follower, and once more for its term.
func TestAllocs_GetLogOfARecentEntry_None(t *testing.T) {
	s, _ := openCounting(t)
	mustStore(t, s, owns(1, 50, 1)...)
	var l raft.Log
	if n := testing.AllocsPerRun(100, func() {
		if err := s.GetLog(25, &l); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
