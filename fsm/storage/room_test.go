package storage

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Who waits for room goes on when bodies leave memory that a checkpoint has written
// before: then there is nothing to write, and room all the same.
func TestPebble_RoomThatTakesNoWrite_IsTold(t *testing.T) {
	t.Parallel()
	for _, budget := range []int64{32 << 10, 1 << 20} {
		s := openTest(t, vfs.NewMem(), "live", budget)
		<-s.turn // the writer waits
		filled := make(chan struct{})
		go func() {
			defer close(filled)
			fill(s, 0, uint64(3*budget/100))
		}()
		eventually(t, func() string {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.memory() <= 2*budget {
				return "there is room still"
			}
			return ""
		})
		eventually(t, func() string {
			if s.Stats().Stalled == 0 {
				return "nobody is told of the wait while it lasts"
			}
			return ""
		})
		s.mu.Lock()
		for r := s.young.first; r != nil; r = r.next {
			r.written = r.live
		}
		s.mu.Unlock()
		s.turn <- struct{}{}
		select {
		case <-filled:
		case <-time.After(time.Minute):
			t.Fatal("a body waits for room that there is")
		}
		if st := s.Stats(); st.Stalled == 0 || st.Stalled != s.Stats().Stalled {
			t.Errorf("%+v, after the wait", st)
		}
	}
}
