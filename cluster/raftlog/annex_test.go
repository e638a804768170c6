package raftlog

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// oneFile is an annex of one file.
var oneFile = Annex{
	Bytes: func(dir string) (int64, error) {
		info, err := os.Stat(filepath.Join(dir, "a"))
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	},
	Send: func(dir string, w io.Writer) error {
		b, err := os.ReadFile(filepath.Join(dir, "a"))
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	},
}

func openAnnexed(t *testing.T, dir string, a Annex) (*Store, raft.SnapshotStore) {
	t.Helper()
	f := &fatals{}
	s, err := Open(Options{Dir: filepath.Join(dir, "log"), Logger: quiet, Fatal: f.record, Owner: "n1-a", Annex: a})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); f.wantNone(t) })
	snaps, err := s.OpenSnapshots(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s, snaps
}

// writeAnnexed writes a snapshot with files, called a, b and so on, beside it.
func writeAnnexed(t *testing.T, snaps raft.SnapshotStore, index uint64, content string, files ...string) error {
	t.Helper()
	sink, err := snaps.Create(1, index, 1, oneServer, 1, snapshotTransport(t))
	if err != nil {
		t.Fatal(err)
	}
	path := sink.(AnnexSink).AnnexPath()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		mustWrite(t, filepath.Join(path, string(rune('a'+i))), []byte(file))
	}
	if _, err := io.WriteString(sink, content); err != nil {
		t.Fatal(err)
	}
	return sink.Close()
}

// The files of a snapshot come and go with it, are found by who made them, and
// follow its stream to who did not.
func TestAnnex_GoesWithItsSnapshot(t *testing.T) {
	dir := t.TempDir()
	s, snaps := openAnnexed(t, dir, oneFile)
	file := strings.Repeat("files of the snapshot ", 10_000)
	if err := writeAnnexed(t, snaps, 10, "tables", file); err != nil {
		t.Fatal(err)
	}
	all, err := snaps.List()
	if err != nil || len(all) != 1 {
		t.Fatalf("List = %v, %v", all, err)
	}
	meta, r, err := snaps.Open(all[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(r)
	if err != nil || r.Close() != nil || int64(len(whole)) != meta.Size {
		t.Fatalf("read %d bytes, %v; announced were %d: raft refuses to send that", len(whole), err, meta.Size)
	}
	rest := bytes.NewReader(whole)
	tables := make([]byte, len("tables"))
	if _, err := io.ReadFull(rest, tables); err != nil || string(tables) != "tables" {
		t.Fatalf("%q, %v", tables, err)
	}
	head, ok, err := ReadAnnexHead(rest)
	if err != nil || !ok || head != (AnnexHead{"n1-a", meta.ID}) {
		t.Fatalf("head %+v, %v, %v", head, ok, err)
	}
	if b, err := io.ReadAll(rest); err != nil || string(b) != file {
		t.Fatalf("the files are not what was written: %d bytes, %v", len(b), err)
	}
	own := s.AnnexPath(head)
	if b := mustRead(t, filepath.Join(own, "a")); string(b) != file {
		t.Fatal("the own directory has something else")
	}
	for _, h := range []AnnexHead{{"n2-b", meta.ID}, {"n1-a", "1-2-3"}, {"n1-a", "../snapshots/" + meta.ID}, {"n1-a", ""}} {
		if p := s.AnnexPath(h); p != "" {
			t.Errorf("%+v is found at %s", h, p)
		}
	}
	// A reader who does not want the files does not read them.
	_, r, err = snaps.Open(meta.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len("tables")+3)); err != nil || r.Close() != nil {
		t.Fatal("closed in the middle")
	}
	// The next snapshot takes its place, files and all.
	if err := writeSnapshot(t, snaps, 20, 1, "more"); err != nil {
		t.Fatal(err)
	}
	if p := s.AnnexPath(head); p != "" {
		t.Errorf("the files are still there: %s", p)
	}
	wantSnapshot(t, snaps, 20, "more")
}

// An annex that is gone, or has changed places with that of another snapshot, is not
// taken for that of its own, whatever it is worth.
func TestAnnex_OfAnotherSnapshot_IsRefused(t *testing.T) {
	summed := oneFile
	summed.Sum = func(dir string) (uint32, error) {
		b, err := os.ReadFile(filepath.Join(dir, "a"))
		return crc32.ChecksumIEEE(b), err
	}
	dir := t.TempDir()
	options := Options{Dir: filepath.Join(dir, "log"), Logger: quiet, Fatal: func(error) {}, Owner: "n1-a", Annex: summed}
	open := func() (*Store, raft.SnapshotStore, error) {
		s, err := Open(options)
		if err != nil {
			t.Fatal(err)
		}
		snaps, err := s.OpenSnapshots(dir, 2)
		return s, snaps, err
	}
	start := func() error {
		s, _, err := open()
		return errors.Join(err, s.Close())
	}
	s, snaps, err := open()
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range []string{"first", "other"} {
		if err := writeAnnexed(t, snaps, uint64(10*(i+1)), "tables", file); err != nil {
			t.Fatal(err)
		}
	}
	all, err := snaps.List()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(dir, fileSnapshotsDir, "*", AnnexDir))
	if err != nil || len(kept) != 2 {
		t.Fatal(kept, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(dir, "aside")
	swap := func() {
		t.Helper()
		if err := errors.Join(os.Rename(kept[0], aside), os.Rename(kept[1], kept[0]), os.Rename(aside, kept[1])); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string) {
		t.Helper()
		if _, _, err := snaps.Open(all[0].ID); !errors.Is(err, ErrSnapshotDamaged) || !strings.Contains(err.Error(), kept[1]) {
			t.Errorf("%s: open: %v", what, err)
		}
		if err := start(); !errors.Is(err, ErrSnapshotDamaged) || !strings.Contains(err.Error(), kept[1]) {
			t.Errorf("%s: start: %v", what, err)
		}
		if r, err := Verify(options, dir); err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error(), kept[1]) {
			t.Errorf("%s: verify: %+v, %v", what, r, err)
		}
	}
	swap()
	refused("swapped")
	swap()
	if err := start(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(kept[1]); err != nil {
		t.Fatal(err)
	}
	refused("gone")
}

// Files that nobody can read are no snapshot.
func TestAnnex_WithoutAReader_IsRefused(t *testing.T) {
	dir := t.TempDir()
	_, snaps := openAnnexed(t, dir, Annex{})
	if err := writeAnnexed(t, snaps, 10, "tables", "files"); err != nil {
		t.Fatal(err)
	}
	all, _ := snaps.List()
	if _, _, err := snaps.Open(all[0].ID); err == nil {
		t.Fatal("opened without the files")
	}
}

func TestReadAnnexHead_Damaged(t *testing.T) {
	whole := AnnexHead{"n1-a", "1-10-1700"}.append(nil)
	if h, ok, err := ReadAnnexHead(bytes.NewReader(whole)); err != nil || !ok || h.ID != "1-10-1700" {
		t.Fatalf("%+v, %v, %v", h, ok, err)
	}
	if _, ok, err := ReadAnnexHead(bytes.NewReader(nil)); ok || err != nil {
		t.Fatalf("nothing: %v, %v", ok, err)
	}
	for n := 1; n < len(whole); n++ {
		if _, ok, err := ReadAnnexHead(bytes.NewReader(whole[:n])); ok || !errors.Is(err, ErrSnapshotDamaged) {
			t.Fatalf("cut at %d: %v, %v", n, ok, err)
		}
	}
	if _, _, err := ReadAnnexHead(strings.NewReader("something else")); !errors.Is(err, ErrSnapshotDamaged) {
		t.Fatal(err)
	}
}
