package raftlog

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ErrLogLost is wrapped by the error for a log, a snapshot or a stable store that holds less than this node once acknowledged. The
// node must not vote under its id again: with its vote an entry that a majority had acknowledged could be lost.
var ErrLogLost = errors.New("the raft log has lost what this node acknowledged")

// wipeHint ends the message of an error that nothing but a new start as a new member repairs.
const wipeHint = "this node must not vote again under its id: run 'onceq node wipe DIR' and start it again, it joins as a new member"

// highWaterPeriod is how long the file may lag behind what was acknowledged.
const highWaterPeriod = 100 * time.Millisecond

// HighWater is what a node durably knows to have acknowledged. The log stores are silent about a tail that is gone: a truncated or
// zeroed end reads like a log that never was longer. Everything here lags behind the truth or is equal to it, and never runs ahead.
type HighWater struct {
	Index, Term uint64 // where log and snapshot end
	Snapshot    uint64 // index of the newest snapshot
	CurrentTerm uint64 // of the stable store
	VoteTerm    uint64 // of the newest vote
	Clean       bool   // written at the end of a stop in order: all of the above is exact
}

// highWater keeps the file. An acknowledgement is noted in memory and written within a period of activity, since an fsync for each
// would double those of the hot path. What lowers the mark is written before it happens.
type highWater struct {
	file  *markFile
	fail  func(error) error
	watch *watchdog
	turn  chan struct{} // one token: whoever has it may write the file
	dirty chan struct{}
	quit  chan struct{}
	ended chan struct{}

	mu       sync.Mutex // guards below
	mark     HighWater
	verified bool // log and file were compared in this life: the mark is exact from then on
}

func startHighWater(file *markFile, watch *watchdog, fail func(error) error) *highWater {
	h := &highWater{
		file: file, fail: fail, watch: watch, mark: file.found,
		turn: make(chan struct{}, 1), dirty: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	h.turn <- struct{}{}
	go h.run()
	return h
}

func (h *highWater) run() {
	defer close(h.ended)
	timer := time.NewTimer(highWaterPeriod)
	defer timer.Stop()
	for {
		select {
		case <-h.quit:
			return
		case <-h.dirty:
		}
		timer.Reset(highWaterPeriod)
		select {
		case <-h.quit:
			return
		case <-timer.C:
		}
		if h.write() != nil {
			return
		}
	}
}

// note changes what is to be written, soon. A nil receiver keeps nothing: stores in memory.
func (h *highWater) note(edit func(m *HighWater)) {
	if h == nil {
		return
	}
	h.mu.Lock()
	before := h.mark
	edit(&h.mark)
	changed := h.verified && h.mark != before
	h.mu.Unlock()
	if changed {
		select {
		case h.dirty <- struct{}{}:
		default:
		}
	}
}

// write makes the mark durable. Before the comparison at start there is nothing to write: the file may know more than the log.
func (h *highWater) write() error {
	if h == nil {
		return nil
	}
	<-h.turn
	defer func() { h.turn <- struct{}{} }()
	h.mu.Lock()
	m, verified := h.mark, h.verified
	h.mu.Unlock()
	if !verified {
		return nil
	}
	done := h.watch.begin("write high-water file", 0)
	err := h.file.write(m)
	done()
	if err != nil {
		return h.fail(fmt.Errorf("write %s: %w", h.file.path, err))
	}
	return nil
}

// close ends the writer. After it, and after the log was closed without an error, clean may be called.
func (h *highWater) close() {
	if h != nil {
		close(h.quit)
		<-h.ended
	}
}

func (h *highWater) clean() error {
	h.note(func(m *HighWater) { m.Clean = true })
	return h.write()
}

// acknowledged notes the last entry that was stored.
func (s *Store) acknowledged(l *raft.Log) {
	s.high.note(func(m *HighWater) {
		if l.Index >= m.Index { // or a snapshot was installed over it; what lowers the mark is lower
			m.Index, m.Term = l.Index, l.Term
		}
	})
}

// lower makes the mark durable as it has to be once [from, last] is gone, before it goes: a leader may take back what no majority
// had, and a crash right after that must not look like a loss.
func (s *Store) lower(first, from uint64) error {
	if s.high == nil {
		return nil
	}
	end, err := s.endBefore(first, from)
	if err != nil {
		return err
	}
	lowered := false
	s.high.note(func(m *HighWater) {
		if end.index < m.Index {
			m.Index, m.Term, lowered = end.index, end.term, true
		}
	})
	if !lowered {
		return nil
	}
	return s.high.write()
}

// endBefore is where log and snapshot end without the entries from `from` on, of a log that begins at first.
func (s *Store) endBefore(first, from uint64) (snapshotID, error) {
	snap := s.newestSnapshot()
	if first == 0 || from <= first || from-1 <= snap.index {
		return snap, nil
	}
	var l raft.Log
	if err := s.read(from-1, &l); err != nil {
		return snapshotID{}, s.corrupt(from-1, err)
	}
	return snapshotID{l.Index, l.Term}, nil
}

// snapshotDone notes a snapshot that is durable, durably: raft acknowledges an installed one next, and truncates behind an own one.
func (s *Store) snapshotDone(meta *raft.SnapshotMeta) error {
	index, term := meta.Index, meta.Term
	s.SetSnapshot(index, term)
	s.snapshotBytes.Store(meta.Size)
	s.high.note(func(m *HighWater) {
		m.Snapshot = index
		if m.Index <= index { // also at the same index: the leader's entry may be of another term
			m.Index, m.Term = index, term
		}
	})
	return s.high.write()
}

// verifyHighWater compares what is here with what was acknowledged, once a life, when log and snapshots are open. known says that
// this node has had a log: then a missing file is a loss too.
func (s *Store) verifyHighWater() error {
	h := s.high
	if h == nil || h.verified {
		return nil
	}
	now, err := s.present()
	if err != nil {
		return err
	}
	if err := h.file.compare(now, s); err != nil {
		return fmt.Errorf("%w in %s: %w; %s", ErrLogLost, s.dir, err, wipeHint)
	}
	h.mu.Lock()
	h.mark, h.verified = now, true
	h.mu.Unlock()
	return h.write()
}

// present is what log, snapshot and stable store hold.
func (s *Store) present() (HighWater, error) {
	first, last, err := s.bounds()
	if err != nil {
		return HighWater{}, err
	}
	end, err := s.endBefore(first, last+1)
	if err != nil {
		return HighWater{}, err
	}
	now := HighWater{Index: end.index, Term: end.term, Snapshot: s.newestSnapshot().index}
	if now.CurrentTerm, err = s.GetUint64([]byte(raftCurrentTerm)); err != nil {
		return HighWater{}, err
	}
	v, err := s.readVote()
	now.VoteTerm = v.term
	return now, err
}

// termAt returns the term of an entry, or 0 when neither the log nor the newest snapshot can tell.
func (s *Store) termAt(index uint64) (uint64, error) {
	if snap := s.newestSnapshot(); index == snap.index {
		return snap.term, nil
	}
	var l raft.Log
	switch err := s.read(index, &l); {
	case err == nil:
		return l.Term, nil
	case errors.Is(err, raft.ErrLogNotFound):
		return 0, nil
	default:
		return 0, s.corrupt(index, err)
	}
}
