package raftlog

import (
	"context"
	"errors"
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
