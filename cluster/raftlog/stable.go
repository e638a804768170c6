package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"
)

// ErrKeyNotFound is what Get returns for an unknown key. raft compares its text.
var ErrKeyNotFound = errors.New("not found")

// The keys under which raft writes its term, and a vote in two calls. A test makes a node vote and fails when the library changes them.
const (
	raftCurrentTerm   = "CurrentTerm"
	raftVoteTerm      = "LastVoteTerm"
	raftVoteCandidate = "LastVoteCand"
)

// voteKey holds both: term u64 BE | candidate. The term is held back until raft names the candidate, which is its next
// call and before any reply, so that no crash leaves the term of one vote beside the candidate of another.
const voteKey = "onceq/vote"

type vote struct {
	term      uint64
	candidate []byte
}

// Set durably stores the value.
func (s *Store) Set(key, value []byte) error {
	if string(key) == raftVoteCandidate {
		return s.setVoteCandidate(value)
	}
	return s.set(string(key), value)
}

// Get returns the value of the key, or ErrKeyNotFound.
func (s *Store) Get(key []byte) ([]byte, error) {
	if string(key) == raftVoteCandidate {
		v, err := s.readVote()
		if err != nil || len(v.candidate) == 0 {
			return nil, errOr(err, ErrKeyNotFound)
		}
		return v.candidate, nil
	}
	return s.get(string(key))
}

// SetUint64 durably stores the value, save the term of a vote, which is stored together with its candidate.
func (s *Store) SetUint64(key []byte, value uint64) error {
	if string(key) == raftVoteTerm {
		if err := s.writable(); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.vote = &vote{term: value}
		return nil
	}
	if string(key) == raftCurrentTerm {
		return s.setTerm(value)
	}
	return s.set(string(key), binary.BigEndian.AppendUint64(nil, value))
}

// setTerm waits for heartbeats of the term before on raft's fast path: of a candidate they make a follower in the term that it stands in, and
// raft writes that term once more there, which beside its main loop could come after the term of the next candidacy and take it back.
func (s *Store) setTerm(term uint64) error {
	if term == s.term.Load() { // as that heartbeat does, which holds rising
		return s.writable()
	}
	// In a new term this node may vote, and answer to another leader: what it led with must not be on its way any more.
	if err := s.parallel.wait(math.MaxUint64); err != nil {
		return err
	}
	s.rising.Lock()
	defer s.rising.Unlock()
	if now := s.term.Load(); term < now {
		return s.fail(fmt.Errorf("raft wants to go back from term %d to term %d, in %s: it may have voted in between", now, term, s.where()))
	}
	if err := s.set(raftCurrentTerm, binary.BigEndian.AppendUint64(nil, term)); err != nil {
		return err
	}
	s.term.Store(term)
	s.high.note(func(m *HighWater) { m.CurrentTerm = term })
	return nil
}

// GetUint64 returns the value of the key, 0 when it is unknown.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	if string(key) == raftVoteTerm {
		s.mu.Lock()
		pending := s.vote
		s.mu.Unlock()
		if pending != nil {
			return pending.term, nil
		}
		v, err := s.readVote()
		return v.term, err
	}
	b, err := s.get(string(key))
	if errors.Is(err, ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, s.fail(fmt.Errorf("read %q from stable store of %s: %d bytes where 8 belong", key, s.where(), len(b)))
	}
	value := binary.BigEndian.Uint64(b)
	if string(key) == raftCurrentTerm { // raft reads it once, as it starts
		s.term.CompareAndSwap(0, value)
	}
	return value, nil
}

func (s *Store) setVoteCandidate(candidate []byte) error {
	s.mu.Lock()
	pending := s.vote
	s.mu.Unlock()
	if pending == nil {
		v, err := s.readVote()
		if err != nil {
			return err
		}
		pending = &v
	}
	if err := s.set(voteKey, append(binary.BigEndian.AppendUint64(nil, pending.term), candidate...)); err != nil {
		return err
	}
	s.high.note(func(m *HighWater) { m.VoteTerm = pending.term })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vote = nil
	return nil
}

func (s *Store) readVote() (vote, error) {
	b, err := s.get(voteKey)
	if errors.Is(err, ErrKeyNotFound) {
		return vote{}, nil
	}
	if err != nil {
		return vote{}, err
	}
	if len(b) < 8 {
		return vote{}, s.fail(fmt.Errorf("read vote from stable store of %s: %d bytes", s.where(), len(b)))
	}
	return vote{term: binary.BigEndian.Uint64(b), candidate: b[8:]}, nil
}

// set writes value | CRC32C over key and value, big endian: boltdb does not notice a flipped bit in a term or a vote either.
func (s *Store) set(key string, value []byte) error {
	if err := s.writable(); err != nil {
		return err
	}
	b := make([]byte, 0, len(value)+4)
	b = binary.BigEndian.AppendUint32(append(b, value...), stableSum(key, value))
	done := s.watch.begin("write "+key, 0)
	err := s.stable.Set([]byte(key), b)
	done()
	if err != nil {
		return s.fail(fmt.Errorf("write %q to stable store of %s: %w", key, s.where(), err))
	}
	return nil
}

func (s *Store) get(key string) ([]byte, error) {
	b, err := s.stable.Get([]byte(key))
	if err != nil && err.Error() != ErrKeyNotFound.Error() {
		return nil, s.fail(fmt.Errorf("read %q from stable store of %s: %w", key, s.where(), err))
	}
	if err != nil || b == nil {
		return nil, ErrKeyNotFound
	}
	n := len(b) - 4
	if n < 0 || binary.BigEndian.Uint32(b[n:]) != stableSum(key, b[:n]) {
		return nil, s.fail(fmt.Errorf("read %q from the stable store in %s: %w", key, s.stableAt(), ErrStableChecksum))
	}
	return b[:n:n], nil
}

// ErrStableChecksum is wrapped by the error for a term or a vote that is not what was written.
var ErrStableChecksum = errors.New("checksum mismatch")

// stableAt names the file in messages.
func (s *Store) stableAt() string {
	if s.dir == "" {
		return s.kind
	}
	return filepath.Join(s.dir, stableFile)
}

func stableSum(key string, value []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, []byte(key)), castagnoli, value)
}

func errOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
