package raftlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// faulty is a pair of stores whose operations can be made to fail or to hang.
type faulty struct {
	*raft.InmemStore
	fail string        // operation that fails
	hang chan struct{} // when not nil, StoreLogs waits for it
}

var errDisk = errors.New("input/output error")

func (f *faulty) err(op string) error {
	if f.fail == op {
		return errDisk
	}
	return nil
}

func (f *faulty) FirstIndex() (uint64, error) {
	if err := f.err("FirstIndex"); err != nil {
		return 0, err
	}
	return f.InmemStore.FirstIndex()
}

func (f *faulty) LastIndex() (uint64, error) {
	if err := f.err("LastIndex"); err != nil {
		return 0, err
	}
	return f.InmemStore.LastIndex()
}

func (f *faulty) GetLog(i uint64, l *raft.Log) error {
	if f.fail == "panic" {
		panic("slice bounds out of range")
	}
	if err := f.err("GetLog"); err != nil {
		return err
	}
	return f.InmemStore.GetLog(i, l)
}

func (f *faulty) StoreLogs(logs []*raft.Log) error {
	if f.hang != nil {
		<-f.hang
	}
	if err := f.err("StoreLogs"); err != nil {
		return err
	}
	return f.InmemStore.StoreLogs(logs)
}

func (f *faulty) DeleteRange(a, b uint64) error {
	if err := f.err("DeleteRange"); err != nil {
		return err
	}
	return f.InmemStore.DeleteRange(a, b)
}

func (f *faulty) Set(k, v []byte) error {
	if err := f.err("Set"); err != nil {
		return err
	}
	return f.InmemStore.Set(k, v)
}

func (f *faulty) Get(k []byte) ([]byte, error) {
	if err := f.err("Get"); err != nil {
		return nil, err
	}
	return f.InmemStore.Get(k)
}

func TestStore_FirstErrorIsTheLast(t *testing.T) {
	var l raft.Log
	ops := map[string]func(*Store) error{
		"FirstIndex":    func(s *Store) error { _, err := s.FirstIndex(); return err },
		"LastIndex":     func(s *Store) error { _, err := s.LastIndex(); return err },
		"GetLog":        func(s *Store) error { s.recent.dropAll(); return s.GetLog(3, &l) },
		"StoreLogs":     func(s *Store) error { return s.StoreLogs([]*raft.Log{own(11, 1, "x")}) },
		"DeleteRange":   func(s *Store) error { return s.DeleteRange(1, 3) },
		"Set":           func(s *Store) error { return s.SetUint64([]byte("CurrentTerm"), 3) },
		"Set/vote":      func(s *Store) error { return s.Set([]byte(raftVoteCandidate), []byte("a")) },
		"Get":           func(s *Store) error { _, err := s.Get([]byte("k")); return err },
		"Get/uint":      func(s *Store) error { _, err := s.GetUint64([]byte("CurrentTerm")); return err },
		"Get/vote":      func(s *Store) error { _, err := s.GetUint64([]byte(raftVoteTerm)); return err },
		"LastIndex/log": func(s *Store) error { return s.StoreLogs([]*raft.Log{own(11, 1, "x")}) },
		"LastIndex/del": func(s *Store) error { return s.DeleteRange(1, 3) },
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			f, inner := &fatals{}, &faulty{InmemStore: raft.NewInmemStore()}
			s := Wrap(inner, inner, Options{Logger: quiet, Fatal: f.record})
			defer s.Close()
			mustStore(t, s, owns(1, 10, 1)...)
			inner.fail, _, _ = strings.Cut(name, "/")
			if err := op(s); !errors.Is(err, errDisk) {
				t.Fatalf("%s = %v", name, err)
			}
			f.wantOne(t, errDisk)
			// The disk "recovers": boltdb would say yes to the retry, without the pages of the failed fsync.
			inner.fail = ""
			for _, err := range []error{
				s.StoreLogs([]*raft.Log{own(11, 1, "x")}),
				s.DeleteRange(1, 3),
				s.SetUint64([]byte("CurrentTerm"), 3),
				s.SetUint64([]byte(raftVoteTerm), 3),
			} {
				if !errors.Is(err, ErrFailed) || !errors.Is(err, errDisk) {
					t.Fatalf("a write after the first error = %v", err)
				}
			}
			f.wantOne(t, errDisk)
		})
	}
}

func TestGetLog_DecoderPanics_IsDamage(t *testing.T) {
	f, inner := &fatals{}, &faulty{InmemStore: raft.NewInmemStore()}
	s := Wrap(inner, inner, Options{Logger: quiet, Fatal: f.record})
	defer s.Close()
	mustStore(t, s, own(1, 1, "x"))
	s.recent.dropAll()
	inner.fail = "panic"
	var l raft.Log
	if err := s.GetLog(1, &l); !errors.Is(err, ErrChecksum) {
		t.Fatalf("GetLog = %v", err)
	}
	f.wantOne(t, ErrChecksum)
}

func TestStore_ErrorsAfterClose_AreNotFatal(t *testing.T) {
	f, inner := &fatals{}, &faulty{InmemStore: raft.NewInmemStore()}
	s := Wrap(inner, inner, Options{Logger: quiet, Fatal: f.record})
	s.Close()
	inner.fail = "GetLog"
	var l raft.Log
	if err := s.GetLog(1, &l); !errors.Is(err, ErrClosed) {
		t.Fatalf("GetLog = %v", err)
	}
	f.wantNone(t)
}

func TestWatchdog_HungAppend_IsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fatal := make(chan error, 1)
		inner := &faulty{InmemStore: raft.NewInmemStore(), hang: make(chan struct{})}
		s := Wrap(inner, inner, Options{Logger: quiet, Fatal: func(err error) { fatal <- err }})
		stored := make(chan error)
		go func() { stored <- s.StoreLogs([]*raft.Log{own(1, 1, "x")}) }()
		start := time.Now()
		select {
		case err := <-fatal:
			if !errors.Is(err, ErrHung) {
				t.Errorf("Fatal(%v)", err)
			}
		case <-time.After(time.Hour): // virtual
			t.Error("nobody has noticed")
		}
		if took := time.Since(start); took < AppendTimeoutDefault-samplePeriod || took > AppendTimeoutDefault+samplePeriod {
			t.Errorf("noticed after %v of virtual time, limit %v", took, AppendTimeoutDefault)
		}
		close(inner.hang)
		<-stored
		if err := s.StoreLogs([]*raft.Log{own(2, 1, "y")}); !errors.Is(err, ErrHung) {
			t.Errorf("append after that = %v", err)
		}
		s.Close()
	})
}

func TestWatchdog_SlowAppends_AreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, inner := &fatals{}, &faulty{InmemStore: raft.NewInmemStore(), hang: make(chan struct{})}
		s := Wrap(inner, inner, Options{Logger: quiet, Fatal: f.record})
		for i := uint64(1); i <= 5; i++ { // each within the limit, together far beyond it
			time.AfterFunc(AppendTimeoutDefault-2*samplePeriod, func() { inner.hang <- struct{}{} })
			mustStore(t, s, own(i, 1, "x"))
		}
		time.Sleep(time.Hour) // idle in virtual time
		f.wantNone(t)
		s.Close()
	})
}

// A disk that writes a MiB a second is slow, and works: ended over a large append, the process would meet the same one after each
// start. One that hangs in a small append is noticed as ever, which TestWatchdog_HungAppend_IsFatal says.
func TestWatchdog_LargeAppendToASlowDisk_IsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, inner := &fatals{}, &faulty{InmemStore: raft.NewInmemStore(), hang: make(chan struct{})}
		s := Wrap(inner, inner, Options{Logger: quiet, Fatal: f.record})
		var batch []*raft.Log
		for i := uint64(1); i <= 8; i++ {
			batch = append(batch, own(i, 1, string(make([]byte, 4<<20))))
		}
		time.AfterFunc(8*4*time.Second, func() { inner.hang <- struct{}{} })
		mustStore(t, s, batch...)
		f.wantNone(t)
		time.AfterFunc(AppendTimeoutDefault+2*samplePeriod, func() { inner.hang <- struct{}{} })
		_ = s.StoreLogs([]*raft.Log{own(9, 1, string(make([]byte, 100)))})
		f.wantOne(t, ErrHung)
		s.Close()
	})
}

// A process that was stopped for an hour takes one look for it.
func TestWatchdog_CountsItsLooks_NotTime(t *testing.T) {
	w := &watchdog{limit: 30}
	done := w.begin("append", 0)
	for i := 1; i <= 29; i++ {
		if err := w.sample(); err != nil {
			t.Fatalf("look %d: %v", i, err)
		}
	}
	if err := w.sample(); !errors.Is(err, ErrHung) {
		t.Fatalf("look 30: %v", err)
	}
	if err := w.sample(); err != nil {
		t.Fatalf("reported twice: %v", err)
	}
	done()
	if len(w.running) != 0 {
		t.Fatal("the operation is still noted")
	}
}

func TestOpen_Refuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no directory":    {},
		"unknown kind":    {Dir: t.TempDir(), Kind: "sqlite"},
		"memory on disk":  {Dir: t.TempDir(), Kind: KindMemory},
		"timeout":         {Dir: t.TempDir(), AppendTimeout: time.Millisecond},
		"small segments":  {Dir: t.TempDir(), SegmentBytes: 1},
		"large segments":  {Dir: t.TempDir(), SegmentBytes: 2 << 30},
		"a file, no dir":  {Dir: os.Args[0]},
		"below that file": {Dir: filepath.Join(os.Args[0], "x")},
	} {
		if s, err := Open(o); err == nil {
			s.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func TestOpen_OtherKind_IsRefused(t *testing.T) {
	for _, k := range [][2]string{{KindWAL, KindBolt}, {KindBolt, KindWAL}} {
		dir := t.TempDir()
		s, err := Open(Options{Dir: dir, Kind: k[0], Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if s, err := Open(Options{Dir: dir, Kind: k[1], Logger: quiet}); err == nil {
			s.Close()
			t.Fatalf("a %s log opened as %s: it would look empty", k[0], k[1])
		}
	}
}

func TestOpen_Twice_IsRefused(t *testing.T) {
	o := Options{Dir: t.TempDir(), Logger: quiet}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if other, err := Open(o); err == nil {
		other.Close()
		t.Fatal("two processes on one log")
	}
}
