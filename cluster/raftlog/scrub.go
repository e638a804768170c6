package raftlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// scrubBatch entries, or scrubBytes of them, are read between two pauses of Scrub.
const (
	scrubBatch = 64
	scrubBytes = 1 << 20
)

// Scrub reads and verifies every entry of the log once, with a pause after each 64 or each MiB, so that damage is found before the entry is
// needed. A damaged entry is fatal, like in GetLog, and returned. It stops when ctx ends.
func (s *Store) Scrub(ctx context.Context, pause time.Duration) (read int, err error) {
	first, err := s.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := s.LastIndex()
	if err != nil || last == 0 {
		return 0, err
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	bytes := 0
	for i := first; i <= last; i++ {
		var l raft.Log
		switch err := s.getStored(i, &l); {
		case errors.Is(err, raft.ErrLogNotFound): // compacted, or a conflict was removed, in the meantime
		case err != nil:
			return read, err
		default:
			read++
			bytes += len(l.Data)
		}
		if (i-first+1)%scrubBatch != 0 && bytes < scrubBytes {
			continue
		}
		bytes = 0
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return read, ctx.Err()
		case <-timer.C:
		}
	}
	return read, ctx.Err()
}

// ScrubSnapshot reads the newest snapshot once, its annex with a pause after each MiB, so that damage is found before a node needs it, or this
// one at its start. Damage is told like that of a snapshot that is sent (Options.SnapshotDamaged), and ends nothing; it is returned.
//
// A snapshot is not kept for it: a file that a newer one does without need not be read, and one that it has too is read there.
func (s *Store) ScrubSnapshot(ctx context.Context, pause time.Duration) (read int64, err error) {
	k := s.snapshots
	whole := k.rot.reading()
	id, path, err := k.scrubStream()
	if err != nil || id == "" {
		return 0, err
	}
	if path == "" || k.annex.Parts == nil {
		whole()
		return 0, nil
	}
	parts, err := k.annex.Parts(path)
	if err != nil {
		return 0, k.scrubbed(id, err)
	}
	for len(parts) > 0 {
		if id, path, err = k.newestAnnex(); err != nil || path == "" {
			return read, err
		}
		bytes, err := k.annex.CheckPart(filepath.Join(path, parts[0]))
		if err != nil && !k.isNewest(id) {
			continue // what was read may have been removed
		}
		parts = parts[1:]
		if err := k.scrubbed(id, err); err != nil {
			return read, err
		}
		read += bytes
		select {
		case <-ctx.Done():
			return read, ctx.Err()
		case <-time.After(pause * time.Duration(1+bytes/scrubBytes)):
		}
	}
	whole()
	return read, nil
}

// scrubStream reads what is not in the annex: tables, as large as each snapshot writes and reads back. It says which snapshot that was, and
// where its annex is.
func (s *snapshots) scrubStream() (id, path string, err error) {
	for {
		if id, path, err = s.newestAnnex(); err != nil || id == "" {
			return id, path, err
		}
		_, r, err := s.inner.Open(id) // FileSnapshotStore computes the checksum of the whole file in Open
		switch {
		case err == nil:
			return id, path, r.Close()
		case s.isNewest(id): // else what was read may have been removed
			return id, path, s.unreadable(id, err)
		}
	}
}

// newestAnnex is where the newest snapshot's annex is, "" when there is none.
func (s *snapshots) newestAnnex() (id, path string, err error) {
	all, err := s.List()
	if err != nil || len(all) == 0 {
		return "", "", err
	}
	path, err = s.annexOf(all[0].ID)
	return all[0].ID, path, s.scrubbed(all[0].ID, err)
}

// scrubbed tells of damage, unless a newer snapshot has come. A part that the newest does not have is none.
func (s *snapshots) scrubbed(id string, err error) error {
	switch {
	case errors.Is(err, ErrSnapshotDamaged):
		err = fmt.Errorf("snapshot %s: %w", id, err)
		if s.annexDamaged(id, err) {
			return err
		}
		return nil
	case errors.Is(err, os.ErrNotExist):
		return nil
	}
	return err
}
