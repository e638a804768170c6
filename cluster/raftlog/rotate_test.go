package raftlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// rotating is a log in a directory, as it was right after the append that filled its first segment.
type rotating struct {
	t    *testing.T
	dir  string
	o    Options
	last uint64
}

func (r *rotating) open(failed func(error)) *wal.WAL {
	r.t.Helper()
	w, err := openWAL(r.o, failed)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

func (r *rotating) never(err error) { r.t.Errorf("a segment was not begun: %v", err) }

func rotatingEntry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: 1, Data: []byte(fmt.Sprintf("entry %d %s", i, strings.Repeat("x", 5000)))}
}

// crash leaves what a crash leaves between the two steps of a rotation: the first segment has its index, and nobody has said so.
func crash(t *testing.T) *rotating {
	t.Helper()
	r := &rotating{t: t, dir: t.TempDir()}
	r.o = Options{Dir: r.dir, Kind: KindWAL, Logger: quiet, SegmentBytes: segmentBytesMin}
	w := r.open(r.never)
	meta := filepath.Join(r.dir, walDir, metadb.FileName)
	before, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	segments := func() []string {
		names, err := filepath.Glob(filepath.Join(r.dir, walDir, "*.wal"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	for len(segments()) < 2 {
		r.last++
		if err := w.StoreLogs([]*raft.Log{rotatingEntry(r.last)}); err != nil {
			t.Fatal(err)
		}
		if r.last > 100 {
			t.Fatal("no segment was ever full")
		}
	}
	// The rotation is a goroutine's: what it did is complete when the log can be truncated, and undone here.
	if err := w.DeleteRange(1, 1); err != nil {
		t.Fatal(err)
	}
	names := segments()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(meta, before, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range names[1:] {
		if err := os.Remove(n); err != nil {
			t.Fatal(err)
		}
	}
	// Which append was the last of the first segment is for the segment to say.
	s := r.seal()
	r.last = uint64(s.entries)
	return r
}

func (r *rotating) path() string {
	return filepath.Join(r.dir, walDir, walsegment.FileName(types.SegmentInfo{BaseIndex: 1}))
}

func (r *rotating) seal() seal {
	r.t.Helper()
	f, err := os.Open(r.path())
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	s, err := readSeal(f)
	if err != nil || s.index == 0 {
		r.t.Fatalf("the segment has no index: %+v, %v", s, err)
	}
	return s
}

// goesOn opens the log twice, appends, and reads everything back.
func (r *rotating) goesOn(last uint64) {
	r.t.Helper()
	for range 2 {
		w := r.open(r.never)
		if got, err := w.LastIndex(); err != nil || got != last {
			r.t.Fatalf("the log ends at %d, %v; want %d", got, err, last)
		}
		for range 30 {
			last++
			if err := w.StoreLogs([]*raft.Log{rotatingEntry(last)}); err != nil {
				r.t.Fatalf("append %d: %v", last, err)
			}
		}
		for i := uint64(1); i <= last; i++ {
			var l raft.Log
			if err := w.GetLog(i, &l); err != nil || string(l.Data) != string(rotatingEntry(i).Data) {
				r.t.Fatalf("entry %d: %.20q, %v", i, l.Data, err)
			}
		}
		if err := w.Close(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// The library would refuse every append after every restart: "segment is sealed".
func TestRotation_InterruptedByACrash_IsFinished(t *testing.T) {
	t.Parallel()
	r := crash(t)
	if !r.seal().committed {
		t.Fatal("the index is not whole")
	}
	r.goesOn(r.last)
}

// What filled the segment was not written whole, and so never confirmed: it is taken back, index and all.
func TestRotation_TornLastAppend_IsTakenBack(t *testing.T) {
	t.Parallel()
	for name, tear := range map[string]func(f *os.File, index int64) error{
		"an entry": func(f *os.File, index int64) error { _, err := f.WriteAt(make([]byte, 512), index-1024); return err },
		"the index": func(f *os.File, index int64) error {
			_, err := f.WriteAt(make([]byte, 16), index+frameHeaderBytes)
			return err
		},
		"the commit": func(f *os.File, index int64) error { return f.Truncate(index + frameHeaderBytes + 8) },
	} {
		t.Run(name, func(t *testing.T) {
			r := crash(t)
			s := r.seal()
			f, err := os.OpenFile(r.path(), os.O_RDWR, 0)
			if err == nil {
				err = tear(f, s.index)
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if r.seal().committed {
				t.Fatal("the index is taken for whole")
			}
			r.goesOn(r.last - 1)
		})
	}
}

// A rotation that fails is told at once, and not only at the next append.
func TestRotation_ThatFails_IsTold(t *testing.T) {
	t.Parallel()
	r := &rotating{t: t, dir: t.TempDir()}
	r.o = Options{Dir: r.dir, Kind: KindWAL, Logger: quiet, SegmentBytes: segmentBytesMin}
	told := make(chan error, 1)
	w := r.open(func(err error) { told <- err })
	defer w.Close()
	// Something is in the way of each file that may be next.
	for i := range uint64(30) {
		name := walsegment.FileName(types.SegmentInfo{BaseIndex: i + 2, ID: 1})
		if err := os.Mkdir(filepath.Join(r.dir, walDir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := uint64(1); i < 30; i++ {
		if err := w.StoreLogs([]*raft.Log{rotatingEntry(i)}); err != nil {
			break
		}
	}
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "rotate error: ") {
			t.Errorf("told %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
}
