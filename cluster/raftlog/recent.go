package raftlog

import (
	"sync"

	"github.com/hashicorp/raft"
)

// recentBytesMax bounds the entries that are kept in memory beside the log, by what their data takes. It covers what is in
// flight to followers that keep up; one that is further behind is served from the disk.
const recentBytesMax = 16 << 20

// recentLogBytes is about what an entry costs beside its data.
const recentLogBytes = 160

// recent holds the newest entries of the log as they were stored. raft asks for each entry once for every follower, once more for its
// term, and on a follower to apply it: without this each of them is a read of the file, a copy and a checksum.
//
// Invariant: the entries are stored, or on their way (parallel.go), follow each other without a gap, and end with the last of the log, or there are none. It is
// bounded by bytes and not by a count, so that entries of megabytes do not fill the memory; only the newest may be larger than
// the bound.
type recent struct {
	mu    sync.RWMutex // guards what follows
	first uint64       // index of logs[0]
	logs  []raft.Log
	bytes int
}

// put takes entries that are stored, or on their way. Their data must not change any more.
func (r *recent) put(logs []*raft.Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.logs) > 0 && logs[0].Index != r.first+uint64(len(r.logs)) {
		r.dropAll()
	}
	if len(r.logs) == 0 {
		r.first = logs[0].Index
	}
	for _, l := range logs {
		r.logs = append(r.logs, *l)
		r.bytes += entryBytes(l)
	}
	over := 0
	for r.bytes > recentBytesMax && over < len(r.logs)-1 {
		r.bytes -= entryBytes(&r.logs[over])
		over++
	}
	r.forget(over)
}

func entryBytes(l *raft.Log) int { return cap(l.Data) + recentLogBytes }

// forget drops the first n entries. The caller has taken their bytes off.
func (r *recent) forget(n int) {
	if n == 0 {
		return
	}
	clear(r.logs[:n]) // the array lives on: it must not keep the data
	r.logs = r.logs[n:]
	r.first += uint64(n)
}

func (r *recent) dropAll() { r.logs, r.bytes = nil, 0 }

// get copies the entry out, whose data is shared, and says whether it is here.
func (r *recent) get(index uint64, l *raft.Log) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if index < r.first || index-r.first >= uint64(len(r.logs)) {
		return false
	}
	*l = r.logs[index-r.first]
	return true
}

// deleteRange forgets entries before they are deleted from the log: a prefix of it, a suffix, or all.
func (r *recent) deleteRange(from, to uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := r.first + uint64(len(r.logs))
	if to < r.first || from >= end {
		return
	}
	if to+1 < end { // a prefix
		n := int(to + 1 - r.first)
		for i := range n {
			r.bytes -= entryBytes(&r.logs[i])
		}
		r.forget(n)
		return
	}
	if from <= r.first {
		r.dropAll()
		return
	}
	n := int(from - r.first)
	for i := n; i < len(r.logs); i++ {
		r.bytes -= entryBytes(&r.logs[i])
	}
	clear(r.logs[n:])
	r.logs = r.logs[:n]
}
