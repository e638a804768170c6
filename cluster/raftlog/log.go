package raftlog

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// ErrRestart is wrapped by the error that ends the process after a snapshot replaced a log that reached beyond it. raft keeps the
// deleted tail as its last entry in memory: it would claim that tail in elections, and refuse every append to it. After a
// restart it reads what is there.
var ErrRestart = errors.New("raft must be started again")

// deleteChunk bounds one boltdb transaction of DeleteRange, so that an append never waits long behind a truncation.
const deleteChunk = 1024

// IsMonotonic makes raft empty the log when it installs a snapshot, over every kind of store. With a gap instead, raft-wal refuses
// every later append, and boltdb keeps S-1 beside the missing S, which is what header.go must never see.
func (s *Store) IsMonotonic() bool { return true }

// FirstIndex returns the first index in the log, 0 when it is empty.
func (s *Store) FirstIndex() (uint64, error) {
	first, _, err := s.bounds()
	if err != nil {
		return 0, s.fail(fmt.Errorf("read bounds of %s: %w", s.where(), err))
	}
	return first, nil
}

// LastIndex returns the last index in the log, 0 when it is empty.
func (s *Store) LastIndex() (uint64, error) {
	_, last, err := s.bounds()
	if err != nil {
		return 0, s.fail(fmt.Errorf("read bounds of %s: %w", s.where(), err))
	}
	return last, nil
}

// GetLog returns one entry: one of the newest from memory, where it is as it was verified when it was stored; any other is read and
// verified. A damaged one is fatal.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	if s.recent.get(index, l) {
		return nil
	}
	return s.getStored(index, l)
}

// getStored is GetLog from the disk.
func (s *Store) getStored(index uint64, l *raft.Log) error {
	if err := s.parallel.wait(index); err != nil {
		return err
	}
	err := s.read(index, l)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrLogNotFound):
		if s.header(index, l) {
			return nil
		}
		return raft.ErrLogNotFound // raft compares, it does not unwrap
	default:
		return s.fail(s.corrupt(index, err))
	}
}

// read reads and verifies without judging. raft-wal's decoder panics on some damaged bytes; here that is an error like others.
func (s *Store) read(index uint64, l *raft.Log) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: decoder: %v", ErrChecksum, p)
		}
	}()
	if err := s.log.GetLog(index, l); err != nil {
		return err
	}
	if s.kind == KindWAL {
		// raft-wal goes on to serve a deleted prefix out of the segment that it shares with what is left.
		if first, err := s.log.FirstIndex(); err != nil || index < first {
			return errOr(err, raft.ErrLogNotFound)
		}
	}
	if l.Index != index {
		return fmt.Errorf("%w: the entry says that its index is %d", ErrChecksum, l.Index)
	}
	return VerifyEntry(l)
}

// corrupt says where an entry was found damaged.
func (s *Store) corrupt(index uint64, err error) *CorruptError {
	return &CorruptError{Index: index, Store: s.kind, Dir: s.dir, Place: s.place(index), Err: err}
}

// StoreLog stores one entry.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends the entries. An entry without a checksum is this node's own, made by the proposer or inside raft, and gets
// one; an entry of a peer has come through Guard and has one, which is verified before it is stored. They are durable when it returns,
// save with Options.Parallel this node's own commands (parallel.go). raft calls it from one goroutine.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if err := s.writable(); err != nil {
		return err
	}
	for _, l := range logs {
		if err := checkEntryBytes(len(l.Data) + checksumBytes); err != nil {
			// Not fatal: nothing is damaged, and a restart would not help. raft makes a leader step down over it.
			s.logger.Error("raft log refuses an entry", "index", l.Index, "error", err)
			return fmt.Errorf("append %d to %s: %w", l.Index, s.where(), err)
		}
	}
	ahead := s.parallel.takes(logs)
	for _, l := range logs {
		if len(l.Extensions) == 0 {
			sealEntry(l)
		} else if err := VerifyEntry(l); err != nil {
			return s.fail(&CorruptError{Index: l.Index, Store: "memory before append to " + s.kind, Dir: s.dir, Err: err})
		}
	}
	first, last := logs[0].Index, logs[len(logs)-1].Index
	if err := s.join(logs); err != nil {
		return s.fail(fmt.Errorf("append %d to %d to %s: %w", first, last, s.where(), err))
	}
	if ahead {
		return s.parallel.add(logs)
	}
	if err := s.parallel.wait(last); err != nil {
		return err
	}
	if err := s.append(logs); err != nil {
		return err
	}
	s.recent.put(logs)
	return nil
}

// join makes sure that the entries follow the log without a gap, or the newest snapshot when the log ends before it. The latter
// is what a crash between a snapshot's install and the emptying of the log leaves behind; the snapshot holds what goes.
func (s *Store) join(logs []*raft.Log) error {
	for i, l := range logs {
		if l.Index != logs[0].Index+uint64(i) {
			return fmt.Errorf("entry %d stands where %d belongs", l.Index, logs[0].Index+uint64(i))
		}
	}
	first, last, err := s.bounds()
	if err != nil {
		return err
	}
	next, snap := logs[0].Index, s.newestSnapshot().index
	switch {
	case last != 0 && next == last+1:
		return nil
	case last == 0 && (snap == 0 || next == snap+1):
		return nil
	case last < snap && next == snap+1:
		s.logger.Warn("raft log ends before the newest snapshot: emptying it", "first", first, "last", last, "snapshot", snap)
		return s.deleteChunks(first, last, true)
	default:
		return fmt.Errorf("entry %d does not follow a log of %d to %d and a snapshot at %d", next, first, last, snap)
	}
}

// bounds are the first and the last index of the log, what is on its way to the disk included.
func (s *Store) bounds() (first, last uint64, err error) {
	began, end := s.parallel.bounds() // first: what is on its way now is on the disk or still here below
	if first, err = s.log.FirstIndex(); err != nil {
		return 0, 0, err
	}
	if last, err = s.log.LastIndex(); err != nil {
		return 0, 0, err
	}
	if first == 0 {
		first = began
	}
	return first, max(last, end), nil
}

// DeleteRange deletes a prefix (compaction), a suffix (conflict) or all (a snapshot was installed) of the log. What is not there is
// not missed: raft may name a tail that is gone already.
func (s *Store) DeleteRange(from, to uint64) error {
	if err := s.writable(); err != nil {
		return err
	}
	if err := s.parallel.wait(to); err != nil {
		return err
	}
	first, last, err := s.bounds()
	if err != nil {
		return s.fail(fmt.Errorf("read bounds of %s: %w", s.where(), err))
	}
	if last == 0 || from > last || to < first || from > to {
		return nil
	}
	from, to = max(from, first), min(to, last)
	if from > first && to < last {
		return s.fail(fmt.Errorf("delete %d to %d from %s: neither a prefix nor a suffix of %d to %d", from, to, s.where(), first, last))
	}
	if to == last {
		if err := s.lower(first, from); err != nil {
			return s.fail(fmt.Errorf("before deleting %d to %d from %s: %w", from, to, s.where(), err))
		}
	}
	restart := false
	if from == first && to == last {
		if restart, err = s.outdated(first, last); err != nil {
			return s.fail(fmt.Errorf("read %d of %s: %w", last, s.where(), err))
		}
	}
	if err := s.deleteChunks(from, to, to == last); err != nil {
		return s.fail(fmt.Errorf("delete %d to %d from %s: %w", from, to, s.where(), err))
	}
	if restart {
		return s.fail(fmt.Errorf("the snapshot at %d replaced a log of %d to %d: %w", s.newestSnapshot().index, first, last, ErrRestart))
	}
	return nil
}

// outdated says whether the library goes on to take the last entry of a log that is deleted whole for its own. A conflict is
// always behind what a snapshot holds, so this is the install of a snapshot; the library looks at the snapshot only when it ends
// behind the log, and what was there at its very end may be of an older term, which no leader agrees with.
func (s *Store) outdated(first, last uint64) (bool, error) {
	snap := s.newestSnapshot()
	if snap.index != last {
		return first <= snap.index && snap.index < last, nil
	}
	var l raft.Log
	err := s.log.GetLog(last, &l)
	return err == nil && l.Term != snap.term, err
}

// deleteChunks deletes from the end that keeps the rest of use if the process dies half way: a suffix from its high end. That
// holds for the whole log too: a rest that begins behind the snapshot would be a hole.
func (s *Store) deleteChunks(from, to uint64, downwards bool) error {
	chunk := uint64(deleteChunk)
	if s.kind != KindBolt {
		chunk = to - from + 1 // one step in raft-wal and in memory
	}
	for from <= to {
		a, b := from, min(to, from+chunk-1)
		if downwards && to-from >= chunk {
			a, b = to-chunk+1, to
		}
		s.recent.deleteRange(a, b)
		done := s.watch.begin("truncate", 0)
		err := s.log.DeleteRange(a, b)
		done()
		if err != nil {
			return err
		}
		if downwards {
			to = a - 1 // a >= from >= 1: raft has no index 0
		} else {
			from = b + 1
		}
	}
	return nil
}
