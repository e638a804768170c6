package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
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

// Who finds its files damaged when it sends them tells, so that others are sent, and ends
// nothing. If it wrote others over that and these are damaged too, it says so: another node
// is to lead. A connection that breaks is no reason.
func TestAnnex_DamagedWhenItIsSent_IsTold(t *testing.T) {
	t.Parallel()
	dir, f, a := t.TempDir(), &fatals{}, oneFile
	damage := fmt.Errorf("%w: a at offset 7", ErrSnapshotDamaged)
	var is error // of the files
	a.Send = func(string, io.Writer) error { return is }
	a.Parts = func(string) ([]string, error) { return []string{"a"}, nil }
	a.CheckPart = func(string) (int64, error) { return 0, nil }
	var told []bool
	s, err := Open(Options{Dir: filepath.Join(dir, "log"), Logger: quiet, Fatal: f.record, Owner: "n1-a", Annex: a,
		SnapshotDamaged: func(err error, again bool) {
			if !errors.Is(err, damage) {
				t.Errorf("told of %v", err)
			}
			told = append(told, again)
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	snaps, err := s.OpenSnapshots(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	next := func() (id string) {
		t.Helper()
		index += 10
		if err := writeAnnexed(t, snaps, index, "tables", "file"); err != nil {
			t.Fatal(err)
		}
		all, err := snaps.List()
		if err != nil {
			t.Fatal(err)
		}
		return all[0].ID
	}
	sends := func(what, id string, err error, want ...bool) {
		t.Helper()
		is, told = err, nil
		_, r, oerr := snaps.Open(id)
		if oerr != nil {
			t.Fatal(oerr)
		}
		if _, rerr := io.ReadAll(r); !errors.Is(rerr, err) || r.Close() != nil {
			t.Errorf("%s: read: %v, want %v", what, rerr, err)
		}
		if !slices.Equal(told, want) {
			t.Errorf("%s: told %v, want %v", what, told, want)
		}
	}
	first := next()
	sends("nobody reads", first, io.ErrClosedPipe)
	sends("damaged", first, damage, false)
	sends("damaged, and there is no other yet", first, damage, false)
	second := next()
	sends("damaged, and replaced", first, damage)
	sends("the other is damaged too", second, damage, true)
	sends("and tried again", second, damage, true)
	sends("whole", next(), nil)
	sends("damaged, long after", next(), damage, false)
	next() // and nobody reads that
	sends("the one after the next is damaged too", next(), damage, true)
	next()
	if _, err := s.ScrubSnapshot(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	sends("damaged, and one before was read through", next(), damage, false)
	f.wantNone(t)
}

// Damage that nobody reads is found in the background, told, and ends nothing; it is known
// until a newest snapshot was read and is whole. A file that goes with its snapshot while
// that is read is none.
func TestScrubSnapshot_FindsWhatNobodyReads(t *testing.T) {
	t.Parallel()
	dir, f, a := t.TempDir(), &fatals{}, oneFile
	checking := func() {} // at each part, before it is read
	a.Parts = func(dir string) (names []string, err error) {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names, err
	}
	a.CheckPart = func(path string) (int64, error) {
		checking()
		b, err := os.ReadFile(path)
		if string(b) == "rotten" {
			err = fmt.Errorf("%w: %s", ErrSnapshotDamaged, path)
		}
		return int64(len(b)), err
	}
	var told []error
	s, err := Open(Options{Dir: filepath.Join(dir, "log"), Logger: quiet, Fatal: f.record, Owner: "n1-a", Annex: a,
		SnapshotDamaged: func(err error, _ bool) { told = append(told, err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	snaps, err := s.OpenSnapshots(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	write := func(index uint64, files ...string) {
		t.Helper()
		if err := writeAnnexed(t, snaps, index, "tables", files...); err != nil {
			t.Fatal(err)
		}
	}
	scrubs := func(what string, bytes int64) {
		t.Helper()
		told = nil
		if n, err := s.ScrubSnapshot(t.Context(), 0); err != nil || n != bytes || told != nil {
			t.Errorf("%s: %d bytes, %v, told %v; want %d bytes", what, n, err, told, bytes)
		}
	}
	damaged := func(what string) {
		t.Helper()
		told = nil
		_, err := s.ScrubSnapshot(t.Context(), 0)
		if !errors.Is(err, ErrSnapshotDamaged) || len(told) != 1 || !errors.Is(s.SnapshotDamage(), ErrSnapshotDamaged) || !strings.HasSuffix(err.Error(), "/b") {
			t.Errorf("%s: %v, told %v, known %v", what, err, told, s.SnapshotDamage())
		}
	}
	scrubs("no snapshot", 0)
	write(10, "abc", "rotten")
	damaged("rotten")
	write(20, "abc", "de")
	if s.SnapshotDamage() == nil {
		t.Error("nobody has read the next one, and it counts as whole")
	}
	scrubs("whole", 5)
	if err := s.SnapshotDamage(); err != nil {
		t.Errorf("still known: %v", err)
	}
	write(30, "abc", "de", "rotten")
	comes := func(index uint64, files ...string) {
		checking = func() { checking = func() {}; write(index, files...) }
	}
	comes(40, "ab")
	scrubs("a newer one has come, and has only one of the files", 2)
	write(50, "abc", "de")
	comes(60, "ab", "rotten")
	damaged("a newer one has come, and has the same name damaged")
	write(70, "abc")
	all, err := snaps.List()
	if err != nil {
		t.Fatal(err)
	}
	stream := filepath.Join(dir, fileSnapshotsDir, all[0].ID, snapshotStateFile)
	if err := os.WriteFile(stream, []byte("tabbes"), 0o600); err != nil {
		t.Fatal(err)
	}
	told = nil
	if _, err := s.ScrubSnapshot(t.Context(), 0); !errors.Is(err, ErrSnapshotDamaged) || !strings.Contains(err.Error(), stream) || len(told) != 1 {
		t.Errorf("the stream: %v, told %v", err, told)
	}
	if s.SnapshotDamage() == nil {
		t.Error("nobody has read the next one, and it counts as whole")
	}
	write(80, "abc")
	scrubs("whole again", 3)
	if err := s.SnapshotDamage(); err != nil {
		t.Errorf("still known: %v", err)
	}
	f.wantNone(t)
}

// TestScrubSnapshot_NoAnnex_KnowsWhenTheNextIsWhole: bodies may be in memory, and then all
// of a snapshot is its stream.
func TestScrubSnapshot_NoAnnex_KnowsWhenTheNextIsWhole(t *testing.T) {
	t.Parallel()
	dir, f := t.TempDir(), &fatals{}
	s, err := Open(Options{Dir: filepath.Join(dir, "log"), Logger: quiet, Fatal: f.record})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	snaps, err := s.OpenSnapshots(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSnapshot(t, snaps, 10, 1, "tables"); err != nil {
		t.Fatal(err)
	}
	all, err := snaps.List()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileSnapshotsDir, all[0].ID, snapshotStateFile), []byte("tabbes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ScrubSnapshot(t.Context(), 0); !errors.Is(err, ErrSnapshotDamaged) || s.SnapshotDamage() == nil {
		t.Errorf("damaged: %v, known %v", err, s.SnapshotDamage())
	}
	if err := writeSnapshot(t, snaps, 20, 1, "tables"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ScrubSnapshot(t.Context(), 0); err != nil || s.SnapshotDamage() != nil {
		t.Errorf("the next is whole: %v, still known %v", err, s.SnapshotDamage())
	}
	f.wantNone(t)
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
