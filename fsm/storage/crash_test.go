package storage

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// afterPowerCut opens a checkpoint on what a power cut leaves of a file system, and
// reads all bodies that it should have.
func afterPowerCut(t *testing.T, fs *vfs.MemFS, dir string, from, to uint64) {
	t.Helper()
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	r := openTest(t, left, "after", 1)
	if err := r.Load(dir); err != nil {
		t.Fatalf("after the power cut: %v", err)
	}
	for o := from; o < to; o++ {
		if at, m, ok := r.Get(1, 0, o); !ok || at != int64(o) || !bytes.Equal(m, bodyOf(o)) {
			t.Fatalf("after the power cut body %d is %.40q, %v", o, m, ok)
		}
	}
}

// syncName makes the names in a directory durable.
func syncName(t *testing.T, fs vfs.FS, dir string) {
	t.Helper()
	f, err := fs.OpenDir(dir)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A checkpoint is durable when it is made: of bodies that were young, and of files
// that were themselves loaded from a checkpoint or received as a stream.
func TestCheckpoint_SurvivesAPowerCut(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	if err := fs.MkdirAll("snapshots", 0o700); err != nil {
		t.Fatal(err)
	}
	syncName(t, fs, "")
	s := openTest(t, fs, "live", 1)
	fill(s, 0, 500)
	first := "snapshots/first"
	checkpoint(t, s, first)
	syncName(t, fs, "snapshots")
	afterPowerCut(t, fs, first, 0, 500)

	loaded := openTest(t, fs, "loaded", 1)
	if err := loaded.Load(first); err != nil {
		t.Fatal(err)
	}
	fill(loaded, 500, 700)
	checkpoint(t, loaded, "snapshots/loaded")
	syncName(t, fs, "snapshots")
	afterPowerCut(t, fs, "snapshots/loaded", 0, 700)

	var stream bytes.Buffer
	if err := sendFiles(fs, first, &stream); err != nil {
		t.Fatal(err)
	}
	received := openTest(t, fs, "received", 1)
	if err := received.Receive(&stream); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, received, "snapshots/received")
	syncName(t, fs, "snapshots")
	afterPowerCut(t, fs, "snapshots/received", 0, 500)
}

// Pebble panics over names that cannot be made durable; before it does, Fatal has
// heard which.
func TestPebble_DirectoryThatCannotBeSynced_IsFatalAndNamed(t *testing.T) {
	t.Parallel()
	var broken errorfs.InjectorFunc = func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync && op.Path == "live" {
			return syscall.EIO
		}
		return nil
	}
	fatals := newFatals()
	func() {
		defer func() {
			if p := recover(); p != nil {
				t.Log("Pebble panics:", p)
			}
		}()
		s, err := OpenPebble(Options{Dir: "live", FS: errorfs.Wrap(vfs.NewMem(), broken), Fatal: fatals.record})
		if err == nil {
			s.Close()
			t.Error("opened")
		}
	}()
	errs := fatals.all()
	if len(errs) != 1 || !errors.Is(errs[0], syscall.EIO) || !strings.Contains(fmt.Sprint(errs), "live") {
		t.Errorf("Fatal was called with %v, want EIO and the directory", errs)
	}
}
