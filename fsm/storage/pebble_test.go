package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func fill(s *Pebble, from, to uint64) {
	for o := from; o < to; o++ {
		s.Put(1, 0, o, int64(o), bodyOf(o))
	}
}

func bodyOf(o uint64) []byte {
	return fmt.Appendf(nil, "body %d %s", o, bytes.Repeat([]byte{'x'}, 100))
}

func wantBodies(t *testing.T, s *Pebble, from, to uint64) {
	t.Helper()
	for o := from; o < to; o++ {
		want(t, s, 1, 0, o, int64(o), string(bodyOf(o)))
	}
}

// onDisk counts the keys that the database has.
func onDisk(t *testing.T, s *Pebble) (n int) {
	t.Helper()
	iter, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer iter.Close()
	for ok := iter.First(); ok; ok = iter.Next() {
		n++
	}
	return n
}

func checkpoint(t *testing.T, s *Pebble, dir string) {
	t.Helper()
	f := s.Freeze().(Checkpointer)
	defer f.Release()
	if err := f.Checkpoint(dir, nil); err != nil {
		t.Fatal(err)
	}
	if n := len(collect(t, f)); n != 0 {
		t.Fatalf("after the checkpoint Each visits %d bodies", n)
	}
}

// A queue that keeps up costs no write: what is acked while young never was on
// disk.
func TestPebble_AckedYoung_IsNeverWritten(t *testing.T) {
	s := openTest(t, vfs.NewMem(), "live", 1<<20)
	for o := range uint64(20_000) { // several times the budget
		s.Put(1, 0, o, int64(o), bodyOf(o))
		s.Delete(1, 0, o)
	}
	if st := s.Stats(); st.Bodies != 0 || st.Bytes != 0 {
		t.Errorf("%d bodies, %d bytes in memory", st.Bodies, st.Bytes)
	}
	if m := s.db.Metrics(); onDisk(t, s) != 0 || m.MemTable.Size > 1<<20 || m.Flush.Count != 0 {
		t.Errorf("something was written: %d keys, %d flushes", onDisk(t, s), m.Flush.Count)
	}
}

// A backlog above the budget leaves memory, oldest first, and is read from disk.
func TestPebble_Backlog_LeavesMemory(t *testing.T) {
	const budget = 256 << 10
	s := openTest(t, vfs.NewMem(), "live", budget)
	fill(s, 0, 20_000)
	eventually(t, func() string {
		if size := s.Stats().Bytes; size > budget {
			return fmt.Sprintf("%d bytes are in memory, the budget is %d", size, budget)
		}
		return ""
	})
	wantBodies(t, s, 0, 20_000)
	if s.young.run(laneID{1, 0}, 0) != nil || s.young.run(laneID{1, 0}, 19_999) == nil {
		t.Error("the oldest are in memory, or the newest are not")
	}
	s.DeleteRange(1, 0, 0, 20_000)
	eventually(t, func() string {
		if n := onDisk(t, s); n != 0 {
			return fmt.Sprintf("%d keys are on disk", n)
		}
		return ""
	})
}

// The power is cut when a checkpoint is complete and nothing else was made
// durable: every body of the view is in it, young and old, and also those that
// were deleted in the meantime.
func TestPebble_Checkpoint_SurvivesAPowerCut(t *testing.T) {
	for name, c := range map[string]struct {
		budget int64
		bodies uint64
	}{
		"all young": {1 << 30, 3000}, "some young": {100_000, 3000}, "none young": {1, 3000},
		"as tables": {1 << 30, 3 * tableBytesMin / 100},
	} {
		t.Run(name, func(t *testing.T) {
			budget, n := c.budget, c.bodies
			fs := vfs.NewCrashableMem()
			s := openTest(t, fs, "live", budget)
			fill(s, 0, n)
			s.Delete(1, 0, 100)
			if err := fs.MkdirAll("snap", 0o700); err != nil {
				t.Fatal(err)
			}
			f := s.Freeze().(Checkpointer)
			s.Delete(1, 0, 200)
			s.DeleteRange(1, 0, 500, 600)
			fill(s, n, n+500)
			if err := f.Checkpoint("snap/bodies", nil); err != nil {
				t.Fatal(err)
			}
			root, err := fs.OpenDir("")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(root.Sync(), root.Close()); err != nil { // the name "snap" is the caller's
				t.Fatal(err)
			}
			after := fs.CrashClone(vfs.CrashCloneCfg{})
			f.Release()
			gone(t, s, 1, 0, 200)
			gone(t, s, 1, 0, 599)
			for range 2 { // a checkpoint may be loaded again and again
				r := openTest(t, after, "live", budget)
				if err := r.Load("snap/bodies"); err != nil {
					t.Fatal(err)
				}
				wantBodies(t, r, 0, 100)
				wantBodies(t, r, 101, n)
				gone(t, r, 1, 0, 100)
				// What follows in the log: bodies newer than the tables once more, and acks.
				fill(r, n, n+500)
				r.DeleteRange(1, 0, 0, n+500)
				eventually(t, func() string {
					if n := onDisk(t, r); n != 0 {
						return fmt.Sprintf("%d keys are on disk after all was deleted", n)
					}
					return ""
				})
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// What came from another node is durable before a checkpoint links it: Pebble
// fsyncs only what it has written itself.
func TestPebble_CheckpointOfWhatWasReceived_SurvivesAPowerCut(t *testing.T) {
	fs := vfs.NewCrashableMem()
	from := openTest(t, fs, "from", 1)
	fill(from, 0, 3000)
	f := from.Freeze().(Checkpointer)
	if err := f.Checkpoint("sent", nil); err != nil {
		t.Fatal(err)
	}
	f.Release()
	var stream bytes.Buffer
	if err := sendFiles(fs, "sent", &stream); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, fs, "live", 1)
	if err := s.Receive(&stream); err != nil {
		t.Fatal(err)
	}
	f = s.Freeze().(Checkpointer)
	if err := f.Checkpoint("snap", nil); err != nil {
		t.Fatal(err)
	}
	root, err := fs.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(root.Sync(), root.Close()); err != nil {
		t.Fatal(err)
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	f.Release()
	r := openTest(t, after, "live", 1)
	if err := r.Load("snap"); err != nil {
		t.Fatal(err)
	}
	wantBodies(t, r, 0, 3000)
}

// A checkpoint whose files are damaged or gone is told from a disk that is full:
// the one is for the operator to wipe, the other is not.
func TestPebble_LoadOfADamagedCheckpoint_IsSaid(t *testing.T) {
	for name, spoil := range map[string]func(fs vfs.FS, sst string) error{
		"truncated": func(fs vfs.FS, sst string) error {
			f, err := fs.Create(sst, vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			return f.Close()
		},
		"removed": func(fs vfs.FS, sst string) error { return fs.Remove(sst) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			s := openTest(t, fs, "from", 1)
			fill(s, 0, 3000)
			checkpoint(t, s, "snap")
			files, err := checkpointFiles(fs, "snap")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if strings.HasSuffix(f.name, ".sst") {
					if err := spoil(fs, fs.PathJoin("snap", f.name)); err != nil {
						t.Fatal(err)
					}
				}
			}
			r := openTest(t, fs, "live", 1)
			if err := r.Load("snap"); !errors.Is(err, ErrBadCheckpoint) || !strings.Contains(err.Error(), "snap") {
				t.Errorf("load: %v", err)
			}
		})
	}
	if damaged(fmt.Errorf("write: %w", syscall.ENOSPC)) || damaged(syscall.EIO) || !damaged(syscall.ENOENT) {
		t.Error("a disk that is full or fails is taken for damage, or a missing file is not")
	}
}

// Pebble ends the process when it cannot write its list of files. While a
// database is being opened that is an error, with its cause and its directory, and
// nobody is told to wipe what is well.
func TestPebble_OpenOnADiskThatIsFull_IsAnError(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem()
	from := openTest(t, mem, "from", 1)
	fill(from, 0, 3000)
	checkpoint(t, from, "snap")
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpCreate, errorfs.OpRename} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			var full atomic.Bool
			var inject errorfs.InjectorFunc = func(op errorfs.Op) error {
				if full.Load() && op.Kind == kind && (strings.Contains(op.Path, "MANIFEST") || strings.Contains(op.Path, "marker") || kind == errorfs.OpRename) {
					return syscall.ENOSPC
				}
				return nil
			}
			f := newFatals()
			s := openWith(t, errorfs.Wrap(mem, inject), "live-"+fmt.Sprint(kind), 1, f)
			full.Store(true)
			err := s.Load("snap")
			full.Store(false)
			switch {
			case err == nil:
				t.Skip("nothing of this kind is needed")
			case !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrBadCheckpoint) || !strings.Contains(err.Error(), "live-"):
				t.Errorf("load: %v", err)
			}
			if kind != errorfs.OpFileSync && len(f.all()) > 0 {
				t.Errorf("the process was ended as well: %v", f.all())
			}
		})
	}
}

// A list of files that contradicts itself panics inside Pebble; whoever opens it
// gets an error.
func TestOpenPebble_Panic_IsAnError(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	broken := &pebble.Options{FS: fs, Logger: silent{}, EventListener: &pebble.EventListener{
		ManifestCreated: func(pebble.ManifestCreateInfo) { panic("it contradicts itself") },
	}}
	if _, err := openPebble("broken", broken); err == nil || !strings.Contains(err.Error(), "contradicts") {
		t.Errorf("open: %v", err)
	}
}

// Why Checkpoint flushes: Pebble's own lacks what is in no file yet, and says nothing.
func TestPebble_CheckpointOfTheLibrary_LacksWhatWasNotFlushed(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs, "live", 1)
	fill(s, 0, 10)
	eventually(t, func() string {
		if n := onDisk(t, s); n != 10 {
			return fmt.Sprintf("%d keys", n)
		}
		return ""
	})
	if err := s.db.Checkpoint("early", pebble.WithFlushedWAL()); err != nil {
		t.Fatal(err)
	}
	r := openTest(t, fs, "other", 1)
	if err := r.Load("early"); err != nil {
		t.Fatal(err)
	}
	if n := onDisk(t, r); n != 0 {
		t.Skipf("the library has changed: %d keys are in it, and a flush may not be needed", n)
	}
}

// Bodies that are newer than the tables are in a checkpoint, and replay puts and
// deletes them again. They must not come back, not even after a compaction.
func TestPebble_ReplayedAndDeleted_DoesNotComeBack(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs, "live", 1<<30)
	fill(s, 0, 100)
	checkpoint(t, s, "snap")
	r := openTest(t, fs, "other", 1<<30)
	if err := r.Load("snap"); err != nil {
		t.Fatal(err)
	}
	fill(r, 50, 150) // replay
	for o := range uint64(150) {
		r.Delete(1, 0, o)
	}
	eventually(t, func() string {
		if n := onDisk(t, r); n != 0 {
			return fmt.Sprintf("%d keys are left", n)
		}
		return ""
	})
	if err := r.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := r.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	if n := onDisk(t, r); n != 0 {
		t.Fatalf("%d bodies came back with a compaction", n)
	}
}

// A restore ends views that were frozen before it.
func TestPebble_Restore_EndsViews(t *testing.T) {
	s := openTest(t, vfs.NewMem(), "live", 1)
	fill(s, 0, 100)
	f := s.Freeze().(Checkpointer)
	s.Delete(1, 0, 5)
	s.Reset()
	if err := f.Each(func(uint64, uint8, uint64, int64, []byte) error { return nil }); !errors.Is(err, ErrReplaced) {
		t.Errorf("Each = %v", err)
	}
	if err := f.Checkpoint("snap", nil); !errors.Is(err, ErrReplaced) {
		t.Errorf("Checkpoint = %v", err)
	}
	fill(s, 0, 100)
	f.Release()
	wantBodies(t, s, 0, 100) // the delete that was held back is of another life
}

func TestPebble_Stream(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs, "live", 100_000)
	fill(s, 0, 3000)
	checkpoint(t, s, "snap")
	var stream bytes.Buffer
	if err := sendFiles(fs, "snap", &stream); err != nil {
		t.Fatal(err)
	}
	if n, err := streamBytes(fs, "snap"); err != nil || n != int64(stream.Len()) {
		t.Fatalf("the stream has %d bytes, announced were %d, %v", stream.Len(), n, err)
	}
	r := openTest(t, vfs.NewMem(), "live", 100_000)
	if err := r.Receive(bytes.NewReader(stream.Bytes())); err != nil {
		t.Fatal(err)
	}
	wantBodies(t, r, 0, 3000)

	whole := stream.Bytes()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		at := rng.IntN(len(whole))
		if err := receiveFiles(vfs.NewMem(), bytes.NewReader(whole[:at]), ""); !errors.Is(err, ErrBadCheckpoint) {
			t.Fatalf("cut at %d of %d: %v", at, len(whole), err)
		}
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << rng.IntN(8)
		if err := receiveFiles(vfs.NewMem(), bytes.NewReader(flipped), ""); !errors.Is(err, ErrBadCheckpoint) {
			t.Fatalf("flipped at %d of %d: %v", at, len(whole), err)
		}
	}
	// A name that leads elsewhere.
	evil := bytes.Replace(whole, []byte("MANIFEST-"), []byte("../../../"), 1)
	if err := receiveFiles(vfs.NewMem(), bytes.NewReader(evil), ""); !errors.Is(err, ErrBadCheckpoint) {
		t.Fatalf("a name with dots: %v", err)
	}
}

// A flipped bit in a table is found when it is read, and named with its file;
// no body is ever served with it.
func TestPebble_FlippedBit_IsNamed(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, vfs.Default, filepath.Join(dir, "live"), 1)
	fill(s, 0, 3000)
	snap := filepath.Join(dir, "snap")
	checkpoint(t, s, snap)
	tables, err := filepath.Glob(filepath.Join(snap, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	f, err := vfs.Default.OpenReadWrite(tables[0], vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 1000); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, 1000); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	fatals := newFatals()
	r := openWith(t, vfs.Default, filepath.Join(dir, "other"), 1, fatals)
	err = r.Load(snap)
	for o := uint64(0); err == nil && o < 3000 && len(fatals.all()) == 0; o++ {
		at, m, ok := r.Get(1, 0, o)
		if ok && (at != int64(o) || !bytes.Equal(m, bodyOf(o))) {
			t.Fatalf("a wrong body was served: %d %q", at, m)
		}
	}
	if errs := fatals.all(); err == nil && (len(errs) == 0 || !strings.Contains(errs[0].Error(), ".sst")) {
		t.Fatalf("Fatal was called with %v, want an error that names the table", errs)
	}
}

// A full disk ends the node, once, and nobody waits for ever.
func TestPebble_WriteError_IsFatal(t *testing.T) {
	var full errorfs.InjectorFunc = func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}
	fatals := newFatals()
	s := openWith(t, errorfs.Wrap(vfs.NewMem(), full), "live", 1, fatals)
	fill(s, 0, 1000)
	f := s.Freeze().(Checkpointer)
	defer f.Release()
	done := make(chan error, 1)
	go func() { done <- f.Checkpoint("snap", nil) }()
	<-fatals.came
	if errs := fatals.all(); !errors.Is(errs[0], syscall.ENOSPC) {
		t.Errorf("Fatal was called with %v", errs)
	}
	fill(s, 1000, 2000) // twice the budget: it would wait, and must not after a failure
	if err := s.Close(); err != nil {
		t.Logf("close: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("a checkpoint succeeded on a full disk")
	}
}

func TestPebble_LoadOfNothing_IsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs, "live", 1)
	if err := s.Load("missing"); err == nil {
		t.Error("loaded a directory that is not there")
	}
	if err := fs.MkdirAll("empty", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Load("empty"); err == nil {
		t.Error("loaded an empty directory")
	}
	if err := s.Receive(strings.NewReader("")); !errors.Is(err, ErrBadCheckpoint) || !errors.Is(err, io.EOF) {
		t.Errorf("received nothing: %v", err)
	}
}

// A value that was made by nobody is damage, and does not become a body.
func TestParse_Damaged(t *testing.T) {
	if _, _, err := parseKey([]byte("short")); err == nil {
		t.Error("a short key was taken")
	}
	if _, _, err := parseValue([]byte("short")); err == nil {
		t.Error("a short value was taken")
	}
	id, o, err := parseKey(key(laneID{7, 3}, 1<<40))
	if err != nil || id != (laneID{7, 3}) || o != 1<<40 {
		t.Errorf("key: %v %d %v", id, o, err)
	}
}
