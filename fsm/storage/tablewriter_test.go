package storage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestTableWriter_WritesWhatItIsGiven: whatever the length, in whatever pieces it
// comes, on a disk, and where a file has no descriptor.
func TestTableWriter_WritesWhatItIsGiven(t *testing.T) {
	t.Parallel()
	const piece = tableWriteBytes
	for name, fs := range map[string]vfs.FS{"disk": vfs.Default, "memory": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := fs.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			buf := tableBuffer()
			for _, size := range []int{0, 1, directAlign - 1, directAlign, directAlign + 1, piece - 1, piece, piece + 1, piece + directAlign, 3*piece + 777} {
				f, err := fs.Create(filepath.Join(dir, "table"), vfs.WriteCategoryUnspecified)
				if err != nil {
					t.Fatal(err)
				}
				paced := 0
				w := newTableWriter(f, buf, func(time.Duration) { paced++ })
				want := randomBytes(size)
				write(t, w, want)
				if err := w.Finish(); err != nil {
					t.Fatal(err)
				}
				if got := readAll(t, fs, filepath.Join(dir, "table")); !bytes.Equal(got, want) {
					t.Errorf("of %d bytes %d were written, the same: %v", size, len(got), bytes.Equal(got, want))
				}
				if paced != size/piece {
					t.Errorf("a table of %d bytes was paced %d times, want %d", size, paced, size/piece)
				}
			}
		})
	}
}

// ill is a file whose first write fails with one error and whose others succeed.
type ill struct {
	vfs.File
	writes int
}

func (f *ill) Write(b []byte) (int, error) {
	if f.writes++; f.writes == 1 {
		return 0, syscall.ENOSPC
	}
	return f.File.Write(b)
}

// TestTableWriter_TheFirstErrorStays: Pebble goes on to write after one.
func TestTableWriter_TheFirstErrorStays(t *testing.T) {
	t.Parallel()
	f, err := vfs.NewMem().Create("table", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	w := newTableWriter(&ill{File: f}, tableBuffer(), func(time.Duration) { t.Error("it is paced after an error") })
	for range 3 {
		if err := w.Write(randomBytes(tableWriteBytes)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("write: %v", err)
		}
	}
	if err := w.Finish(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("finish: %v", err)
	}
}

// TestTableWriter_Abort_TellsNothing: Pebble gives up a table after an error that
// it returns.
func TestTableWriter_Abort_TellsNothing(t *testing.T) {
	t.Parallel()
	f, err := vfs.Default.Create(filepath.Join(t.TempDir(), "table"), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	w := newTableWriter(f, tableBuffer(), nil)
	write(t, w, randomBytes(1000))
	w.Abort()
	if err := f.Close(); err == nil {
		t.Error("the file is still open")
	}
}

// TestCheckpoint_Pace_NotWhileSomebodyWaits: what leaves memory waits for the table, and
// who replaces everything does.
func TestCheckpoint_Pace_NotWhileSomebodyWaits(t *testing.T) {
	t.Parallel()
	const pieces = 8 << 20 / tableWriteBytes
	for name, c := range map[string]struct {
		then  func(s *Pebble) // at the first pause
		paced func(int) bool
	}{
		"nobody":          {func(*Pebble) {}, func(n int) bool { return n >= pieces-1 }},
		"memory fills":    {func(s *Pebble) { s.mu.Lock(); s.o.YoungBytes = 1 << 20; s.mu.Unlock() }, func(n int) bool { return n == 1 }},
		"it is replaced":  {func(s *Pebble) { s.mu.Lock(); s.life++; s.mu.Unlock() }, func(n int) bool { return n == 1 }},
		"the disk failed": {func(s *Pebble) { s.mu.Lock(); s.failed = ErrClosed; s.mu.Unlock() }, func(n int) bool { return n == 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openTest(t, vfs.NewMem(), "live", 1<<30)
			all := randomBytes(8 << 20) // pieces of one would compress if they were alike
			for o := range uint64(8 << 10) {
				s.Put(1, 0, o, 0, all[o<<10:][:1024])
			}
			v := s.Freeze().(*view)
			defer v.Release()
			paced := 0
			_ = v.tables(func(time.Duration) {
				if paced++; paced == 1 {
					c.then(s)
				}
			})
			if !c.paced(paced) {
				t.Errorf("it was paced %d times", paced)
			}
			s.mu.Lock()
			s.failed, s.life = nil, v.life // as it was, for the end
			s.mu.Unlock()
		})
	}
}

// TestTables_BodiesThatCompress_TakeLess: random ones are stored as they are, and
// what comes after them is compressed again.
func TestTables_BodiesThatCompress_TakeLess(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s := openTest(t, fs, "live", 1<<30)
	const bodies = 8 << 10
	text := bytes.Repeat([]byte("order 4711: two coffees, one tea. "), 30)
	table := func(queue uint64, body func() []byte) int64 {
		t.Helper()
		var all []written
		for o := range uint64(bodies) {
			b := body()
			all = append(all, written{place{laneID{queue: queue}, o}, slot{in: &chunk{buf: b}, size: uint32(len(b))}})
		}
		before := s.db.Metrics().Ingest.Count
		if err := s.writeTable(all, nil); err != nil {
			t.Fatal(err)
		}
		if n := s.db.Metrics().Ingest.Count - before; n != 1 {
			t.Fatalf("%d tables were made", n)
		}
		size, err := s.db.EstimateDiskUsage(key(laneID{queue: queue}, 0), key(laneID{queue: queue}, bodies))
		if err != nil {
			t.Fatal(err)
		}
		return int64(size)
	}
	plain := int64(bodies * len(text))
	random := rand.NewChaCha8([32]byte{1})
	if n := table(1, func() []byte { b := make([]byte, len(text)); _, _ = random.Read(b); return b }); n < plain {
		t.Errorf("%d bytes of random bodies take %d", plain, n)
	}
	if n := table(2, func() []byte { return text }); n > plain/4 {
		t.Errorf("%d bytes of text take %d", plain, n)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

// write writes b in pieces of many lengths.
func write(t *testing.T, w *tableWriter, b []byte) {
	t.Helper()
	for n := 1; len(b) > 0; n = n*3 + 1 {
		n := min(n, len(b))
		if err := w.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
}

func readAll(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, st.Size())
	if n, err := f.ReadAt(b, 0); n != len(b) {
		t.Fatal(err)
	}
	return b
}
