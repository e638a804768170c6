package raftlog

import "github.com/hashicorp/raft"

// header answers for S, the index of the newest local snapshot, with a header: index, term, no-op, no data.
//
// Why: a follower that installed S and stored S+1 to S+k, whose reply got lost, is asked next for "previous entry S". Its raft
// looks for S in the log, where it is not, and says no; the leader walks back to what it has compacted and sends the snapshot again,
// which takes the follower's state machine back to S and deletes S+1 to S+k, which it may have acknowledged; and so on without end.
// The term of S is known from the snapshot, and a previous entry is asked for its term alone.
//
// When not: the header must never be taken for the entry itself. raft reads entry S to replicate it only after it found S-1, or
// when S is 1, which has no predecessor. So the answer is given only while the log is empty or lies wholly behind S; a log
// that ends before S, in which S-1 may be the last, is none. Should one get out all the same, in the instant between raft's reading of
// two entries, its extension is not a checksum, and Guard and StoreLogs refuse it.
func (s *Store) header(index uint64, l *raft.Log) bool {
	snap := s.newestSnapshot()
	if index != snap.index || snap.index <= 1 {
		return false
	}
	first, last, err := s.bounds()
	if err != nil || (last != 0 && first <= snap.index) {
		return false
	}
	*l = raft.Log{Index: snap.index, Term: snap.term, Type: raft.LogNoop, Extensions: []byte{checksumHeader}}
	return true
}
