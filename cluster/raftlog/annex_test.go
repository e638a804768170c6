package raftlog

import (
	"bytes"
	"errors"
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
		info, err := os.Stat(filepath.Join(dir, "f"))
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	},
	Send: func(dir string, w io.Writer) error {
		b, err := os.ReadFile(filepath.Join(dir, "f"))
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

func writeAnnexed(t *testing.T, snaps raft.SnapshotStore, index uint64, content, file string) error {
	t.Helper()
	sink, err := snaps.Create(1, index, 1, oneServer, 1, snapshotTransport(t))
	if err != nil {
		t.Fatal(err)
	}
	path := sink.(AnnexSink).AnnexPath()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(path, "f"), []byte(file))
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
	if b := mustRead(t, filepath.Join(own, "f")); string(b) != file {
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
