package storage

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestCheckpoint_OfMuchInMemory_WritesTables: what is written as tables of its own is in the checkpoint,
// each body as it was last, whatever lies in Pebble's own memory at the same places.
func TestCheckpoint_OfMuchInMemory_WritesTables(t *testing.T) {
	t.Parallel()
	for _, lanes := range []uint64{1, 3} {
		t.Run(fmt.Sprintf("%d queues", lanes), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openTest(t, vfs.Default, filepath.Join(dir, "live"), 1<<30)
			body := func(queue, offset uint64, round int) []byte {
				return bytes.Repeat(fmt.Appendf(nil, "%d/%d/%d.", queue, offset, round), 64)
			}
			const bodies = 6000
			put := func(from, to uint64, round int) {
				for o := from; o < to; o++ {
					for q := range lanes {
						s.Put(q, 0, o, int64(o), body(q, o, round))
					}
				}
			}
			check := func(s *Pebble, from, to uint64, round int) {
				t.Helper()
				for q := range lanes {
					for o := from; o < to; o++ {
						if at, b, ok := s.Get(q, 0, o); !ok || at != int64(o) || !bytes.Equal(b, body(q, o, round)) {
							t.Fatalf("body %d of queue %d: at %d, %.20q, %v; want %.20q", o, q, at, b, ok, body(q, o, round))
						}
					}
				}
			}
			checkpoint := func(name string) string {
				v := s.Freeze()
				defer v.Release()
				path := filepath.Join(dir, name)
				if err := v.(Checkpointer).Checkpoint(path, nil); err != nil {
					t.Fatal(err)
				}
				return path
			}
			put(0, bodies, 1)
			first := checkpoint("first")
			// Deleted, and put again: the deletes are in Pebble's memory when the new
			// bodies come as a table.
			for q := range lanes {
				s.DeleteRange(q, 0, 0, bodies/2)
			}
			put(0, bodies/2, 2)
			second := checkpoint("second")
			for name, rounds := range map[string][2]int{first: {1, 1}, second: {2, 1}} {
				r := openTest(t, vfs.Default, name+".live", 1)
				if err := r.Load(name); err != nil {
					t.Fatal(err)
				}
				check(r, 0, bodies/2, rounds[0])
				check(r, bodies/2, bodies, rounds[1])
			}
			if n := s.tablesWritten(); n < 2 {
				t.Errorf("%d tables were written outside Pebble, this test wants some from each checkpoint", n)
			}
		})
	}
}

func (s *Pebble) tablesWritten() uint64 { return s.db.Metrics().Ingest.Count }

// A table that cannot be written, or made durable, ends the store, and no checkpoint comes of it.
func TestCheckpoint_TableError_IsFatal(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]func(errorfs.Op) bool{
		"create": func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, tableFile) },
		"write": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, tableFile)
		},
		"sync": func(op errorfs.Op) bool {
			return (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, tableFile)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var hits atomic.Int64
			var full errorfs.InjectorFunc = func(op errorfs.Op) error {
				if when(op) {
					hits.Add(1)
					return syscall.EIO
				}
				return nil
			}
			fatals := newFatals()
			s := openWith(t, errorfs.Wrap(vfs.NewMem(), full), "live", 1<<30, fatals)
			fill(s, 0, 12_000)
			f := s.Freeze().(Checkpointer)
			defer f.Release()
			if err := f.Checkpoint("snap", nil); !errors.Is(err, syscall.EIO) {
				t.Errorf("the checkpoint returns %v", err)
			}
			if errs := fatals.all(); len(errs) == 0 || !errors.Is(errs[0], syscall.EIO) {
				t.Errorf("Fatal was called with %v", errs)
			}
			if hits.Load() == 0 {
				t.Error("the error was never met")
			}
		})
	}
}
