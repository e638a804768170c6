package raftlog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// twoFiles is an annex whose files are opened one after the other, as those of the message bodies are.
var twoFiles = Annex{
	Bytes: func(dir string) (n int64, err error) {
		err = eachOfTwo(dir, func(f *os.File) error {
			info, err := f.Stat()
			if err == nil {
				n += info.Size()
			}
			return err
		})
		return n, err
	},
	Send: func(dir string, w io.Writer) error {
		return eachOfTwo(dir, func(f *os.File) error {
			_, err := io.Copy(w, f)
			return err
		})
	},
}

func eachOfTwo(dir string, do func(*os.File) error) error {
	for _, name := range []string{"a", "b"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		err = do(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// onDisk lists the indexes of the snapshots that are there.
func onDisk(t *testing.T, dir string) (indexes []uint64) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, fileSnapshotsDir, "*", snapshotMetaFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		indexes = append(indexes, snapshotNamed(filepath.Base(filepath.Dir(f))).index)
	}
	return indexes
}

// A snapshot on its way to another node takes longer than the next ones: it arrives, and is removed then.
func TestSnapshots_OneThatIsRead_StaysUntilItIsClosed(t *testing.T) {
	dir := t.TempDir()
	_, snaps := openAnnexed(t, dir, twoFiles) // keeps one
	a, b := strings.Repeat("a", 100_000), strings.Repeat("b", 100_000)
	if err := writeAnnexed(t, snaps, 10, "tables", a, b); err != nil {
		t.Fatal(err)
	}
	all, err := snaps.List()
	if err != nil || len(all) != 1 {
		t.Fatalf("List = %v, %v", all, err)
	}
	open := func() (*raft.SnapshotMeta, io.ReadCloser) {
		t.Helper()
		meta, r, err := snaps.Open(all[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		return meta, r
	}
	meta, r := open()
	_, other := open()
	var got bytes.Buffer
	if _, err := io.CopyN(&got, r, 50_000); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if err := writeAnnexed(t, snaps, 20+i, "tables", "newer a", "newer b"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.Copy(&got, r); err != nil {
		t.Fatalf("after %d of %d bytes: %v", got.Len(), meta.Size, err)
	}
	if int64(got.Len()) != meta.Size || !strings.HasSuffix(got.String(), a+b) {
		t.Errorf("%d bytes were read of %d, and not what was written", got.Len(), meta.Size)
	}
	if n := onDisk(t, dir); fmt.Sprint(n) != "[10 22]" {
		t.Errorf("snapshots %v, want the one that is read and the newest", n)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close() // counts once
	if n := onDisk(t, dir); len(n) != 2 {
		t.Errorf("snapshots %v while there is another reader", n)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if n := onDisk(t, dir); fmt.Sprint(n) != "[22]" {
		t.Errorf("snapshots %v when nobody reads", n)
	}
}

// A crash leaves what was being read.
func TestOpenSnapshots_ThoseThatWereRead_AreRemoved(t *testing.T) {
	dir := t.TempDir()
	open := opensTwo(t, dir)
	s := open()
	for i := range uint64(4) {
		if err := writeSnapshot(t, s, 10+i, 1, "tables"); err != nil {
			t.Fatal(err)
		}
		all, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		_, r, err := s.Open(all[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
	}
	if n := onDisk(t, dir); len(n) != 4 {
		t.Fatalf("snapshots %v: the test shows nothing", n)
	}
	wantSnapshot(t, open(), 13, "tables")
	if n := onDisk(t, dir); fmt.Sprint(n) != "[12 13]" {
		t.Errorf("snapshots %v after a crash", n)
	}
}

// Before an installed snapshot is restored, what it replaces makes room.
func TestDropOlderSnapshots_LeavesTheNewestAndWhatIsRead(t *testing.T) {
	dir, f, mem := t.TempDir(), &fatals{}, raft.NewInmemStore()
	log := Wrap(mem, mem, Options{Logger: quiet, Fatal: f.record})
	defer log.Close()
	snaps, err := log.OpenSnapshots(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	var read io.Closer
	for i := range uint64(3) {
		if err := writeSnapshot(t, snaps, 10+i, 1, "tables"); err != nil {
			t.Fatal(err)
		}
		if all, err := snaps.List(); err != nil {
			t.Fatal(err)
		} else if i == 1 {
			if _, read, err = log.ReadSnapshot(all[0].ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, want := range []string{"[11 12]", "[12]"} {
		if err := log.DropOlderSnapshots(); err != nil {
			t.Fatal(err)
		}
		if n := onDisk(t, dir); fmt.Sprint(n) != want {
			t.Errorf("snapshots %v, want %s", n, want)
		}
		read.Close()
	}
	wantSnapshot(t, snaps, 12, "tables")
	f.wantNone(t)
}
