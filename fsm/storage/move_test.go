package storage

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// A body goes from queue to queue, and on, and what is deleted or purged on the
// way takes nothing else with it.
func TestStore_Move(t *testing.T) {
	eachStore(t, func(t *testing.T, s store) {
		for o := range uint64(200) {
			s.Put(1, 0, o, int64(o), fmt.Appendf(nil, "body %d", o))
		}
		for o := range uint64(100) {
			s.Move(1, 0, o, 2, 0, o)
			if o%2 == 0 {
				s.Move(2, 0, o, 3, 1, o)
			}
			if o%10 == 0 {
				s.Delete(3, 1, o)
			}
		}
		s.DeleteRange(1, 0, 0, 200) // purged: what was moved away is not in it
		s.DeleteRange(2, 0, 50, 100)
		for o := range uint64(100) {
			switch {
			case o%10 == 0:
				gone(t, s, 3, 1, o)
			case o%2 == 0:
				want(t, s, 3, 1, o, int64(o), fmt.Sprintf("body %d", o))
				gone(t, s, 2, 0, o)
			case o < 50:
				want(t, s, 2, 0, o, int64(o), fmt.Sprintf("body %d", o))
			default:
				gone(t, s, 2, 0, o)
			}
			gone(t, s, 1, 0, o)
		}
		f := s.Freeze()
		defer f.Release()
		if got := collect(t, f); len(got) != 40+25 {
			t.Errorf("%d bodies are stored, want %d", len(got), 40+25)
		}
	})
}

// The machine moves bodies that are on disk while nothing can be read from it:
// it does not wait, and whoever asks for one gets it when the disk answers.
func TestPebble_Move_ReadsNothing(t *testing.T) {
	var hang atomic.Pointer[chan struct{}]
	var reads errorfs.InjectorFunc = func(op errorfs.Op) error {
		if ch := hang.Load(); ch != nil && op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") {
			<-*ch
		}
		return nil
	}
	s := openTest(t, errorfs.Wrap(vfs.NewMem(), reads), "live", 1)
	fill(s, 0, 5000)
	checkpoint(t, s, "snap")
	again := openTest(t, s.o.FS, "other", 1<<20) // nothing of it is in a cache
	if err := again.Load("snap"); err != nil {
		t.Fatal(err)
	}
	disk := make(chan struct{})
	hang.Store(&disk)
	for o := range uint64(5000) {
		again.Move(1, 0, o, 2, 0, o)
		again.Put(1, 0, 5000+o, 1, []byte("published meanwhile"))
		again.Delete(1, 0, 5000+o)
	}
	again.mu.Lock()
	moved := len(again.moved)
	again.mu.Unlock()
	if moved < 4000 { // a block or two were read before
		t.Errorf("%d bodies are on their way, want all but a few", moved)
	}
	hang.Store(nil)
	close(disk)
	for o := range uint64(5000) {
		want(t, again, 2, 0, o, int64(o), string(bodyOf(o)))
	}
	eventually(t, func() string {
		again.mu.Lock()
		defer again.mu.Unlock()
		if len(again.moved) > 0 {
			return fmt.Sprintf("%d bodies are still elsewhere", len(again.moved))
		}
		return ""
	})
	want(t, again, 2, 0, 4999, 4999, string(bodyOf(4999)))
}

// A move is on disk a little before it is noted as done, and so are two in a row:
// the body can be had in between.
func TestPebble_Move_DoneAndNotNoted_IsFound(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	from := openTest(t, fs, "live", 1)
	fill(from, 0, 300)
	checkpoint(t, from, "snap")
	s := openTest(t, fs, "other", 1<<20)
	if err := s.Load("snap"); err != nil {
		t.Fatal(err)
	}
	<-s.turn // the writer stands still
	goOn := sync.OnceFunc(func() { s.turn <- struct{}{} })
	defer goOn()
	s.Move(1, 0, 7, 2, 0, 0)
	s.Move(1, 0, 8, 2, 0, 1)
	s.mu.Lock()
	changes := s.takeChanges()
	s.mu.Unlock()
	s.Move(2, 0, 1, 3, 0, 0) // the first of its moves is taken already
	want(t, s, 2, 0, 0, 7, string(bodyOf(7)))
	want(t, s, 3, 0, 0, 8, string(bodyOf(8)))
	if err := s.commit(changes, nil, nil); err != nil {
		t.Fatal(err)
	}
	want(t, s, 2, 0, 0, 7, string(bodyOf(7)))
	want(t, s, 3, 0, 0, 8, string(bodyOf(8)))
	s.mu.Lock()
	more := s.takeChanges()
	s.mu.Unlock()
	if err := s.commit(more, nil, nil); err != nil {
		t.Fatal(err)
	}
	want(t, s, 3, 0, 0, 8, string(bodyOf(8)))
	s.mu.Lock()
	s.done(changes, nil, true)
	s.done(more, nil, true)
	s.mu.Unlock()
	goOn()
	want(t, s, 2, 0, 0, 7, string(bodyOf(7)))
	want(t, s, 3, 0, 0, 8, string(bodyOf(8)))
}

// A snapshot has a body where the tables say, whenever the move comes: before
// the freeze it is in its new place, after it in the old one too, for the replay
// to move it again.
func TestPebble_Move_AroundACheckpoint(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs, "live", 1)
	fill(s, 0, 200)
	for o := range uint64(100) {
		s.Move(1, 0, o, 2, 0, o)
	}
	f := s.Freeze().(Checkpointer)
	for o := uint64(100); o < 200; o++ {
		s.Move(1, 0, o, 2, 0, o)
	}
	if err := f.Checkpoint("snap", nil); err != nil {
		t.Fatal(err)
	}
	f.Release()
	for o := range uint64(200) {
		want(t, s, 2, 0, o, int64(o), string(bodyOf(o)))
	}
	r := openTest(t, fs, "other", 1)
	if err := r.Load("snap"); err != nil {
		t.Fatal(err)
	}
	wantBodies(t, r, 100, 200)
	for o := uint64(100); o < 200; o++ {
		r.Move(1, 0, o, 2, 0, o)
	}
	for o := range uint64(200) {
		want(t, r, 2, 0, o, int64(o), string(bodyOf(o)))
	}
	r.DeleteRange(2, 0, 0, 200)
	eventually(t, func() string {
		if n := onDisk(t, r); n != 0 {
			return fmt.Sprintf("%d bodies are left", n)
		}
		return ""
	})
}
