package raftlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/raft"
)

// ErrStaleSnapshot is wrapped by the error for a snapshot that is older than what this node has. The library would take it: the
// state machine would go back, and the log behind it, which this node has acknowledged, would be deleted. A request that was
// under way for a long time can bring one; with the header entry no leader ever needs it.
var ErrStaleSnapshot = errors.New("snapshot is older than what this node has")

// ErrSnapshotDamaged is wrapped by the error for a snapshot that cannot be read.
var ErrSnapshotDamaged = errors.New("snapshot is damaged")

// The layout of raft's FileSnapshotStore.
const (
	fileSnapshotsDir = "snapshots"
	fileSnapshotTemp = ".tmp"
)

// snapshots wraps a snapshot store:
//   - the newest one is reported to the log, at start and after each that closed well;
//   - the newest one is read back, at start and before Close returns, since raft truncates the log next, and its annex is its own;
//   - List names the newest only. raft goes on to an older one when it cannot restore the newest, and then lacks the entries between
//     the two; stopping is right, and the operator readmits the node;
//   - a newest one that cannot be read when raft wants to send it is told, so that another is taken: the state is in memory, and what
//     is live of an annex's files need not be what rotted;
//   - an older one is refused.
type snapshots struct {
	inner  raft.SnapshotStore
	newest func(meta *raft.SnapshotMeta) error
	stale  func(index uint64) error
	fail   func(error) error
	// damaged is told of a newest snapshot that cannot be read; may be nil. again: so was an earlier one, and this is no better
	damaged func(err error, again bool)
	rot     rot

	dir   string // of the snapshots; empty in memory
	owner string
	annex Annex
}

// OpenSnapshots opens the snapshots in files below dir, or makes the directory, and keeps the newest retain of them, and those that
// are being read. onNewest is called with the newest one, now and after each new one.
func OpenSnapshots(dir string, retain int, onNewest func(index, term uint64), logger *slog.Logger) (raft.SnapshotStore, error) {
	inner, err := openFileSnapshots(dir, retain, logger)
	if err != nil {
		return nil, err
	}
	return wrapSnapshots(&snapshots{
		inner:  inner,
		newest: func(m *raft.SnapshotMeta) error { onNewest(m.Index, m.Term); return nil },
		stale:  func(uint64) error { return nil },
		fail:   func(err error) error { return err },
	})
}

// OpenSnapshots opens the snapshots in files below dir for this log. An error of one that is being written ends the process, like
// every storage error.
func (s *Store) OpenSnapshots(dir string, retain int) (raft.SnapshotStore, error) {
	inner, err := openFileSnapshots(dir, retain, s.logger)
	if err != nil {
		return nil, err
	}
	s.snapshotDir = filepath.Join(dir, fileSnapshotsDir)
	return s.WrapSnapshots(inner)
}

// WrapSnapshots does for any snapshot store what OpenSnapshots does for files. It must come before raft is opened: now that both log and
// snapshots are here, they are compared with what this node has acknowledged (ErrLogLost).
func (s *Store) WrapSnapshots(inner raft.SnapshotStore) (raft.SnapshotStore, error) {
	s.snapshots = &snapshots{inner: inner, newest: s.snapshotDone, stale: s.staleSnapshot, fail: s.fail, damaged: s.damaged,
		dir: s.snapshotDir, owner: s.owner, annex: s.annex}
	w, err := wrapSnapshots(s.snapshots)
	if err != nil {
		return nil, err
	}
	return w, s.verifyHighWater()
}

// staleSnapshot refuses a second copy of the newest snapshot once the log has gone on behind it.
func (s *Store) staleSnapshot(index uint64) error {
	if index != s.newestSnapshot().index {
		return nil
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if last > index {
		return fmt.Errorf("%w: %d is the newest here, and the log reaches %d", ErrStaleSnapshot, index, last)
	}
	return nil
}

func openFileSnapshots(dir string, retain int, logger *slog.Logger) (raft.SnapshotStore, error) {
	if logger == nil {
		logger = slog.Default()
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	if err := RemoveUnfinishedSnapshots(dir, logger); err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	if err := tidyFileSnapshots(filepath.Join(dir, fileSnapshotsDir), logger); err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	inner, err := openRetained(dir, retain, logger)
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	if err := syncDir(dir); err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	return inner, nil
}

// tidyFileSnapshots removes what a crash left half removed: an old snapshot is removed file by file, once a newer one is
// there. It refuses one without a description when there is no newer one: the library passes over it as if there were none.
func tidyFileSnapshots(dir string, logger *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var newest snapshotID // of those that can be read
	type unreadable struct {
		path string
		at   snapshotID
		err  error
	}
	var bad []unreadable
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case !e.IsDir(), strings.HasSuffix(e.Name(), fileSnapshotTemp):
		default:
			at := snapshotNamed(e.Name())
			if err := readSnapshotMeta(path); err != nil {
				bad = append(bad, unreadable{path, at, err})
			} else if newest.before(at) {
				newest = at
			}
		}
	}
	for _, u := range bad {
		if !u.at.before(newest) {
			return fmt.Errorf("%s: %w: %w", u.path, ErrSnapshotDamaged, u.err)
		}
		logger.Warn("removing an old snapshot that is not whole: there is a newer one", "path", u.path, "error", u.err)
		if err := os.RemoveAll(u.path); err != nil {
			return err
		}
	}
	return nil
}

// RemoveUnfinishedSnapshots removes what a crash left half written below dir, which the
// library never does. OpenSnapshots does it as well; a disk that is full of it may keep a
// node from coming so far.
func RemoveUnfinishedSnapshots(dir string, logger *slog.Logger) error {
	dir = filepath.Join(dir, fileSnapshotsDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasSuffix(e.Name(), fileSnapshotTemp) {
			path := filepath.Join(dir, e.Name())
			logger.Info("removing an unfinished snapshot", "path", path)
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

func wrapSnapshots(s *snapshots) (raft.SnapshotStore, error) {
	meta, err := s.readNewest()
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	if meta != nil {
		if err := s.newest(meta); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readNewest reads the newest snapshot through, and returns nil when there is none.
func (s *snapshots) readNewest() (*raft.SnapshotMeta, error) {
	all, err := s.inner.List()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	meta, r, err := s.inner.Open(all[0].ID) // FileSnapshotStore computes the checksum of the whole file in Open
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSnapshotDamaged, s.statePath(all[0].ID), err)
	}
	_, err = s.annexOf(all[0].ID)
	return meta, errors.Join(err, r.Close())
}

// statePath names a snapshot's stream in messages.
func (s *snapshots) statePath(id string) string {
	if s.dir == "" {
		return id
	}
	return filepath.Join(s.dir, id, snapshotStateFile)
}

// List returns the newest snapshot.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.inner.List()
	return all[:min(1, len(all))], err
}

// Open returns the content of a snapshot, to raft. A newest one that cannot be read is told, since raft tries to send it without a pause
// and without end. It ends nothing: this may be the only node that has the state, whole and in memory.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.open(id)
	if err != nil {
		return nil, nil, s.unreadable(id, err)
	}
	return meta, r, nil
}

// ReadSnapshot returns the content of a snapshot to who takes another one if this one cannot be read: that ends nothing.
func (s *Store) ReadSnapshot(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return s.snapshots.open(id)
}

func (s *snapshots) open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	whole := s.rot.reading()
	meta, state, err := s.inner.Open(id)
	if err != nil {
		return nil, nil, err
	}
	path, err := s.annexOf(id)
	switch {
	case err != nil:
		return nil, nil, errors.Join(err, state.Close())
	case path == "":
		whole()
		return meta, state, nil
	}
	return s.withAnnex(meta, state, path)
}

// unreadable tells of a snapshot that will never get better: it is still the newest, and neither its reader nor the number of open files
// is to blame.
func (s *snapshots) unreadable(id string, err error) error {
	for _, passing := range []error{syscall.EMFILE, syscall.ENFILE, errNoAnnexReader} {
		if errors.Is(err, passing) {
			return err
		}
	}
	if !s.isNewest(id) {
		return err // removed since it was seen
	}
	if !errors.Is(err, ErrSnapshotDamaged) {
		err = fmt.Errorf("%w: %s: %w", ErrSnapshotDamaged, s.statePath(id), err)
	}
	err = fmt.Errorf("open snapshot %s: %w", id, err)
	s.rot.tell(err)
	if s.damaged != nil {
		s.damaged(err, false)
	}
	return err
}

func (s *snapshots) isNewest(id string) bool {
	all, err := s.List()
	return err == nil && len(all) > 0 && all[0].ID == id
}

// Create begins a snapshot, unless it is older than the newest.
func (s *snapshots) Create(v raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	all, err := s.inner.List()
	if err != nil {
		return nil, err
	}
	if len(all) > 0 && index < all[0].Index {
		return nil, fmt.Errorf("%w: %d, newest %d", ErrStaleSnapshot, index, all[0].Index)
	}
	if err := s.stale(index); err != nil {
		return nil, err
	}
	sink, err := s.inner.Create(v, index, term, conf, confIndex, t)
	if err != nil {
		return nil, s.fail(fmt.Errorf("create snapshot at %d: %w", index, err))
	}
	return &snapshotSink{SnapshotSink: sink, store: s, index: index}, nil
}

// snapshotSink writes one snapshot. raft uses it from one goroutine.
type snapshotSink struct {
	raft.SnapshotSink
	store *snapshots
	index uint64
	done  bool
	err   error // of Close; Persist and raft both close, and raft must not truncate when only the first of them heard of it
}

func (k *snapshotSink) Write(b []byte) (int, error) {
	n, err := k.SnapshotSink.Write(b)
	if err != nil {
		err = k.store.fail(fmt.Errorf("write snapshot at %d: %w", k.index, err))
	}
	return n, err
}

// Close makes the snapshot durable, reads it back and reports the newest. raft truncates the log when it returns nil.
func (k *snapshotSink) Close() error {
	if !k.done {
		k.done = true
		k.err = k.close()
	}
	return k.err
}

// AnnexPath implements AnnexSink.
func (k *snapshotSink) AnnexPath() string {
	if k.store.dir == "" {
		return ""
	}
	return filepath.Join(k.store.dir, k.ID()+fileSnapshotTemp, AnnexDir)
}

func (k *snapshotSink) close() error {
	if k.store.dir != "" {
		// The library makes the files durable and the directory's name, not the names within.
		if err := syncDir(filepath.Dir(k.AnnexPath())); err != nil {
			return k.store.fail(fmt.Errorf("close snapshot at %d: %w", k.index, err))
		}
	}
	if err := k.SnapshotSink.Close(); err != nil {
		return k.store.fail(fmt.Errorf("close snapshot at %d: %w", k.index, err))
	}
	if k.store.dir != "" {
		if err := sumSnapshotMeta(filepath.Join(k.store.dir, k.ID()), k.store.annex); err != nil {
			return k.store.fail(fmt.Errorf("close snapshot at %d: %w", k.index, err))
		}
	}
	meta, err := k.store.readNewest()
	if err == nil && (meta == nil || meta.Index < k.index) {
		err = fmt.Errorf("%w: it is not among the snapshots", ErrSnapshotDamaged)
	}
	if err != nil {
		return k.store.fail(fmt.Errorf("read back snapshot at %d: %w", k.index, err))
	}
	if err := k.store.newest(meta); err != nil {
		return err
	}
	if meta.Index > k.index {
		// A snapshot of the leader was installed while this node wrote its own. Told of success, the library would take this
		// one for its last, and the log behind it is empty by now: it would vote with less than it has.
		return fmt.Errorf("%w: %d, and %d came meanwhile", ErrStaleSnapshot, k.index, meta.Index)
	}
	return nil
}

// Cancel drops the snapshot. A Close after it reports that there is none.
func (k *snapshotSink) Cancel() error {
	if k.done {
		return nil
	}
	k.done, k.err = true, errSinkClosed
	return k.SnapshotSink.Cancel()
}
