package raftlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
)

// fileSnapshots is raft's FileSnapshotStore, but for when an old snapshot is removed: not while somebody reads it. The library removes
// all but the newest few whenever one is written. What it has opened by then it can read on, but the files of an annex are opened one
// after the other, and a snapshot that is on its way for longer than the next ones take would never arrive.
//
// What is read is so kept beyond the newest few, for as long as the reading takes; it costs what the newer ones do not share with it.
type fileSnapshots struct {
	*raft.FileSnapshotStore
	dir    string // of the snapshots
	retain int
	logger *slog.Logger

	mu   sync.Mutex     // guards read, and is held while old snapshots are removed, so that nobody opens one that is going
	read map[string]int // by id: how many read it
}

// openRetained keeps the newest retain of the snapshots below dir, and removes what a crash has left of those that were read.
func openRetained(dir string, retain int, logger *slog.Logger) (*fileSnapshots, error) {
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, math.MaxInt, HCLog(logger).Named("snapshot"))
	if err != nil {
		return nil, err
	}
	s := &fileSnapshots{FileSnapshotStore: inner, dir: filepath.Join(dir, fileSnapshotsDir), retain: retain, logger: logger, read: make(map[string]int)}
	return s, s.removeOld(s.retain)
}

// Create implements raft.SnapshotStore.
func (s *fileSnapshots) Create(v raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(v, index, term, conf, confIndex, t)
	if err != nil {
		return nil, err
	}
	return &retainingSink{sink, s}, nil
}

// retainingSink removes old snapshots when there is a new one.
type retainingSink struct {
	raft.SnapshotSink
	store *fileSnapshots
}

func (k *retainingSink) Close() error {
	if err := k.SnapshotSink.Close(); err != nil {
		return err
	}
	return k.store.removeOld(k.store.retain)
}

// Open implements raft.SnapshotStore. What it opens stays until it is closed.
func (s *fileSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	s.read[id]++
	s.mu.Unlock()
	meta, r, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		s.unread(id)
		return nil, nil, err
	}
	return meta, &retainedReader{ReadCloser: r, done: sync.OnceFunc(func() { s.unread(id) })}, nil
}

// retainedReader tells that it was closed.
type retainedReader struct {
	io.ReadCloser
	done func()
}

func (r *retainedReader) Close() error {
	err := r.ReadCloser.Close()
	r.done()
	return err
}

func (s *fileSnapshots) unread(id string) {
	s.mu.Lock()
	last := s.read[id] == 1
	if s.read[id]--; last {
		delete(s.read, id)
	}
	s.mu.Unlock()
	if !last {
		return
	}
	if err := s.removeOld(s.retain); err != nil {
		s.logger.Warn("an old snapshot stays until the next is written", "error", err)
	}
}

// DropOlderSnapshots removes all but the newest snapshot, and those that are read. Nobody opens an older one any more, but its annex keeps
// room that the newest may share nothing with, after an install at least.
func (s *Store) DropOlderSnapshots() error {
	if files, ok := s.snapshots.inner.(*fileSnapshots); ok {
		return files.removeOld(1)
	}
	return nil
}

// removeOld removes all but the newest few, and those that are read.
func (s *fileSnapshots) removeOld(keep int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.List()
	if err != nil {
		return err
	}
	for _, meta := range all[min(keep, len(all)):] {
		if s.read[meta.ID] > 0 {
			continue
		}
		path := filepath.Join(s.dir, meta.ID)
		s.logger.Debug("removing an old snapshot", "path", path)
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return fmt.Errorf("remove an old snapshot: %w", err)
	}
	return nil
}
