package storage

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tableSizes sums the tables in a directory.
func tableSizes(t *testing.T, fs vfs.FS, dir string) (n int64) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !isTable(name) {
			continue
		}
		if info, err := fs.Stat(fs.PathJoin(dir, name)); err == nil { // else it is gone by now
			n += info.Size()
		}
	}
	return n
}

// A backlog that goes while checkpoints are taken leaves nothing behind on disk when the
// last of it is gone, neither in the live directory nor in the checkpoint, although nothing more comes
// that would have Pebble free it.
func TestPebble_Drained_GivesItsDiskBack(t *testing.T) {
	t.Parallel()
	const bodies, size, parts = 2048, 4 << 10, 8
	fs := vfs.NewMem()
	s := openTest(t, fs, "live", 256<<10)
	taken := 0
	take := func() (dir string) {
		dir = fmt.Sprint("taken", taken)
		taken++
		checkpoint(t, s, dir)
		return dir
	}
	random := rand.NewChaCha8([32]byte{})
	for o := range uint64(bodies) {
		body := make([]byte, size) // that does not compress
		_, _ = random.Read(body)   // never fails
		s.Put(1, 0, o, int64(o), body)
		if o%(bodies/parts) == 0 {
			take()
		}
	}
	take()
	filled := tableSizes(t, fs, "live")
	if filled < bodies*size/2 {
		t.Fatalf("%d bytes of %d are on disk: the test shows nothing", filled, bodies*size)
	}
	for o := range uint64(bodies) {
		s.Delete(1, 0, o)
		if o == bodies-2 {
			take() // a body is left, and stays
			if _, _, ok := s.Get(1, 0, bodies-1); !ok {
				t.Error("the last body is gone")
			}
		} else if o%(bodies/parts) == 0 {
			take()
		}
	}
	last := take()
	if n := tableSizes(t, fs, last); n > filled/100 {
		t.Errorf("a checkpoint of nothing has %d bytes of %d", n, filled)
	}
	eventually(t, func() string {
		if n := tableSizes(t, fs, "live"); n > filled/100 {
			return fmt.Sprintf("%d bytes of %d are on disk, and no body is", n, filled)
		}
		return ""
	})
}
