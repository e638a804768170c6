package storage

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// One small message that stays does not keep what came beside it unseen: what
// memory holds is what is counted, and above the budget it goes to disk.
func TestPebble_SmallBodyThatStays_CountsWhatItHolds(t *testing.T) {
	const budget = 1 << 20
	s := openTest(t, vfs.NewMem(), "live", budget)
	entry := make([]byte, 64<<10)
	for o := range uint64(2000) { // each of its own queue, beside large ones that are acked
		s.Put(1000+o, 0, 0, 1, entry[:10])
		for k := range uint64(8) {
			s.Put(1, 0, o*8+k, 1, entry[:8<<10])
		}
		s.DeleteRange(1, 0, o*8, o*8+8)
	}
	eventually(t, func() string {
		if st := s.Stats(); st.Bytes > budget {
			return fmt.Sprintf("%d bytes are counted, the budget is %d", st.Bytes, budget)
		}
		return ""
	})
	for o := range uint64(1000) {
		s.Put(2, 0, o, 1, entry[:200])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	chunks := map[*chunk]bool{}
	held := int64(0)
	for r := s.young.first; r != nil; r = r.next {
		held += runBytes
		for _, sl := range r.slots {
			if sl.in != nil && sl.in != s.young.chunk && !chunks[sl.in] {
				chunks[sl.in] = true
				held += int64(len(sl.in.buf))
			}
		}
	}
	if held != s.young.bytes {
		t.Errorf("%d bytes are counted, %d are held", s.young.bytes, held)
	}
	if s.young.bodies == 0 {
		t.Error("nothing is in memory: the test shows nothing")
	}
}

// A backlog is read in order by many questions and few reads.
func TestPebble_BacklogInOrder_IsReadAhead(t *testing.T) {
	s := openTest(t, vfs.NewMem(), "live", 1)
	fill(s, 0, 10_000)
	eventually(t, func() string {
		if st := s.Stats(); st.Bodies > 0 {
			return fmt.Sprintf("%d bodies are in memory", st.Bodies)
		}
		return ""
	})
	scans := 0
	var last *[]byte
	for o := range uint64(10_000) {
		want(t, s, 1, 0, o, int64(o), string(bodyOf(o)))
		s.mu.Lock()
		if w := s.ahead.windows[laneID{1, 0}]; len(w.values) > 0 && last != &w.values[0] {
			last = &w.values[0]
			scans++
		}
		s.mu.Unlock()
	}
	if scans == 0 || scans > 10_000/aheadBodies+2 {
		t.Errorf("%d reads for 10,000 bodies in order", scans)
	}
	// What leaves is not had from there, and what is asked for here and there is
	// not read ahead.
	s.DeleteRange(1, 0, 9_990, 10_000)
	gone(t, s, 1, 0, 9_995)
	for q := range uint64(100) {
		s.Put(100+q, 0, 0, 1, bytes.Repeat([]byte{1}, 100))
	}
	for q := range uint64(100) {
		want(t, s, 100+q, 0, 0, 1, string(bytes.Repeat([]byte{1}, 100)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.ahead.windows); n > aheadLanes {
		t.Errorf("%d lanes are read ahead, at most %d", n, aheadLanes)
	}
}
