package raftlog

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fatals records what Fatal is called with.
type fatals struct {
	mu   sync.Mutex
	errs []error
}

func (f *fatals) record(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
}

func (f *fatals) all() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]error(nil), f.errs...)
}

func (f *fatals) wantNone(t *testing.T) {
	t.Helper()
	if errs := f.all(); len(errs) != 0 {
		t.Fatalf("Fatal was called: %v", errs)
	}
}

func (f *fatals) wantOne(t *testing.T, target error) {
	t.Helper()
	if errs := f.all(); len(errs) != 1 || !errors.Is(errs[0], target) {
		t.Fatalf("Fatal was called with %v, want one %v", errs, target)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// kind is one implementation under the suite. open may be called again after Close, and finds what was stored.
type kind struct {
	name string
	open func(t *testing.T, f *fatals) func() *Store
}

func kinds() []kind {
	files := func(k string) func(*testing.T, *fatals) func() *Store {
		return func(t *testing.T, f *fatals) func() *Store {
			dir := filepath.Join(t.TempDir(), "raft")
			return func() *Store {
				s, err := Open(Options{Dir: dir, Kind: k, Logger: quiet, Fatal: f.record, SegmentBytes: 256 << 10, AppendTimeout: time.Minute})
				if err != nil {
					t.Fatalf("open: %v", err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			}
		}
	}
	return []kind{
		{KindWAL, files(KindWAL)},
		{KindBolt, files(KindBolt)},
		{KindMemory, func(t *testing.T, f *fatals) func() *Store {
			mem := raft.NewInmemStore()
			return func() *Store {
				s := Wrap(mem, mem, Options{Logger: quiet, Fatal: f.record})
				t.Cleanup(func() { s.Close() })
				return s
			}
		}},
	}
}

// eachKind runs the test on every kind of store.
func eachKind(t *testing.T, test func(t *testing.T, open func() *Store, f *fatals)) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			f := &fatals{}
			test(t, k.open(t, f), f)
		})
	}
}

// own makes an entry as raft makes it on a leader: without a checksum.
func own(index, term uint64, data string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(data)}
}

// sealed makes an entry as a follower receives it.
func sealed(index, term uint64, data string) *raft.Log {
	l := own(index, term, data)
	sealEntry(l)
	return l
}

func owns(from, to, term uint64) []*raft.Log {
	var out []*raft.Log
	for i := from; i <= to; i++ {
		out = append(out, own(i, term, string(bytes.Repeat([]byte{byte(i)}, 1+int(i%97)))))
	}
	return out
}

func mustStore(t *testing.T, s *Store, logs ...*raft.Log) {
	t.Helper()
	if err := s.StoreLogs(logs); err != nil {
		t.Fatalf("StoreLogs %d to %d: %v", logs[0].Index, logs[len(logs)-1].Index, err)
	}
}

func wantBounds(t *testing.T, s *Store, first, last uint64) {
	t.Helper()
	gotFirst, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	gotLast, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if gotFirst != first || gotLast != last {
		t.Fatalf("log holds %d to %d, want %d to %d", gotFirst, gotLast, first, last)
	}
}

// wantEntry looks in memory first, as raft does, and then on the disk.
func wantEntry(t *testing.T, s *Store, want *raft.Log) {
	t.Helper()
	for how, get := range map[string]func(uint64, *raft.Log) error{"GetLog": s.GetLog, "stored": s.getStored} {
		var got raft.Log
		if err := get(want.Index, &got); err != nil {
			t.Fatalf("%s(%d): %v", how, want.Index, err)
		}
		if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) || !bytes.Equal(got.Extensions, want.Extensions) {
			t.Fatalf("%s(%d) = %+v, want %+v", how, want.Index, got, want)
		}
		if err := VerifyEntry(&got); err != nil {
			t.Fatalf("entry %d: %v", want.Index, err)
		}
	}
}

func wantMissing(t *testing.T, s *Store, index uint64) {
	t.Helper()
	var l raft.Log
	if err := s.GetLog(index, &l); err != raft.ErrLogNotFound { // raft compares with ==
		t.Fatalf("GetLog(%d) = %v, want exactly ErrLogNotFound", index, err)
	}
}
