package raftlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// ErrClosed is returned by every write after Close.
var ErrClosed = errors.New("raft log is closed")

// ErrFailed is wrapped by every write after the first storage error.
var ErrFailed = errors.New("raft log has failed")

// Store is the raft log and the stable store of one group on one node.
type Store struct {
	log    raft.LogStore
	stable raft.StableStore
	kind   string
	dir    string
	logger *slog.Logger
	fatal  func(error)
	watch  *watchdog
	recent recent

	parallel *parallel // nil without Options.Parallel

	appends appendTimes

	high  *highWater  // nil for stores in memory
	owned []io.Closer // closed by Close, in this order

	closing atomic.Bool   // Close was called
	closed  atomic.Bool   // and what was on its way is written
	term    atomic.Uint64 // raft's, as it was last stored
	rising  sync.RWMutex  // held while the term is written, and for reading by a heartbeat of it on raft's fast path
	refused atomic.Uint64

	snapshotBytes atomic.Int64

	owner       string
	snapshotDir string     // set by OpenSnapshots
	snapshots   *snapshots // set by WrapSnapshots
	annex       Annex
	damaged     func(err error, again bool)

	// mu guards the fields below. It is never held during I/O.
	mu       sync.Mutex
	failed   error
	snapshot snapshotID
	voting   func() []raft.Server // set by SetVoters
	vote     *vote                // raft has given the term of a vote and not yet its candidate
}

type snapshotID struct{ index, term uint64 }

var (
	_ raft.LogStore          = (*Store)(nil)
	_ raft.StableStore       = (*Store)(nil)
	_ raft.MonotonicLogStore = (*Store)(nil)
)

// Open opens the log and the stable store in o.Dir, or makes them.
func Open(o Options) (*Store, error) {
	o = o.withDefaults(KindWAL)
	if err := o.validate(); err != nil {
		return nil, err
	}
	var s *Store // nil while the library opens; set before the first append, and so before anything else fails
	var opening error
	log, stable, owned, err := openFiles(o, func(err error) {
		if s == nil {
			opening = err
			return
		}
		_ = s.fail(fmt.Errorf("%s: %w", s.where(), err))
	})
	if err != nil {
		return nil, fmt.Errorf("open raft log in %s: %w", o.Dir, err)
	}
	s = newStore(log, stable, owned, o)
	if opening != nil {
		return nil, errors.Join(fmt.Errorf("open raft log in %s: %w", o.Dir, opening), s.Close())
	}
	mark, err := openMark(o.Dir, o.Owner, o.Known)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log: %w", err), s.Close())
	}
	s.high = startHighWater(mark, s.watch, s.fail)
	return s, nil
}

// Wrap makes a Store of any two stores. They remain the caller's, who closes them after the Store.
func Wrap(log raft.LogStore, stable raft.StableStore, o Options) *Store {
	return newStore(log, stable, nil, o.withDefaults(KindMemory))
}

func newStore(log raft.LogStore, stable raft.StableStore, owned []io.Closer, o Options) *Store {
	s := &Store{log: log, stable: stable, kind: o.Kind, dir: o.Dir, logger: o.Logger, fatal: o.Fatal, owned: owned, owner: o.Owner, annex: o.Annex, damaged: o.SnapshotDamaged}
	s.watch = startWatchdog(o.AppendTimeout, func(err error) { s.fail(err) })
	if o.Parallel {
		s.parallel = startParallel(s)
	}
	return s
}

// SetSnapshot tells the index and term of the newest local snapshot. OpenSnapshots and WrapSnapshots do it.
func (s *Store) SetSnapshot(index, term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot = snapshotID{index, term}
}

func (s *Store) newestSnapshot() snapshotID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

// SnapshotBytes is the size of the newest local snapshot.
func (s *Store) SnapshotBytes() int64 { return s.snapshotBytes.Load() }

// Refused counts the requests of peers that Guard has refused.
func (s *Store) Refused() uint64 { return s.refused.Load() }

// Failed returns the error that Fatal was called with, or nil.
func (s *Store) Failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Close ends the watchdog and closes what Open opened. raft must have been shut down before: it panics when it cannot write its term.
func (s *Store) Close() error {
	if s.closing.Swap(true) {
		return nil
	}
	errs := []error{s.parallel.close()} // a disk that hangs or fails meanwhile is as fatal as ever
	s.closed.Store(true)
	s.high.close()
	for _, c := range s.owned {
		errs = append(errs, c.Close())
	}
	if s.high != nil {
		if errors.Join(errs...) == nil && s.Failed() == nil {
			errs = append(errs, s.high.clean())
		}
		errs = append(errs, s.high.file.close())
	}
	s.watch.stop()
	return errors.Join(errs...)
}

// writable tells whether a write may be tried.
func (s *Store) writable() error {
	if s.closed.Load() {
		return ErrClosed
	}
	if err := s.Failed(); err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return nil
}

// fail makes err the end of this Store, unless another one was first or the Store is closed, and returns it.
func (s *Store) fail(err error) error {
	if s.closed.Load() {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	s.mu.Lock()
	first := s.failed == nil
	if first {
		s.failed = err
	}
	s.mu.Unlock()
	if first {
		s.logger.Error("raft log has failed", "store", s.kind, "dir", s.dir, "error", err)
		s.fatal(err)
		s.parallel.wake()
	}
	return err
}

// where names the store in errors: "append 17 to 20 to wal at /d: no space left on device".
func (s *Store) where() string {
	if s.dir == "" {
		return s.kind
	}
	return s.kind + " at " + s.dir
}
