package raftlog

import (
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// watchedPeersMax bounds what WatchInstalls remembers. A raft group has a few members; beyond this, what is remembered is forgotten.
const watchedPeersMax = 256

// RepeatedInstall tells that the same snapshot goes to the same peer once more.
type RepeatedInstall struct {
	Peer        raft.ServerID
	Index, Term uint64
	Installs    int // how many InstallSnapshot requests with this index, this one included
	Succeeded   int // how many of those before were answered with success
}

// installs is the second line against the snapshot livelock (header.go is the first): it sees the leader sending one snapshot to
// one peer again and again. What helps is a newer snapshot: Barrier, then Snapshot. A repetition after a request that was cut off
// is normal, so the count of those that succeeded is told apart.
type installs struct {
	forward
	onRepeat func(RepeatedInstall)

	mu    sync.Mutex // guards below
	peers map[raft.ServerID]RepeatedInstall
}

// WatchInstalls returns a transport that calls onRepeat at the second and each further InstallSnapshot with one index to one peer.
// onRepeat runs on raft's replication goroutine, before the request is sent, and must not block.
func WatchInstalls(t raft.Transport, onRepeat func(RepeatedInstall)) raft.Transport {
	return expose(&installs{forward: forward{t}, onRepeat: onRepeat, peers: make(map[raft.ServerID]RepeatedInstall)})
}

// InstallSnapshot counts and passes on.
func (w *installs) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if seen := w.count(id, args.LastLogIndex, args.LastLogTerm); seen.Installs > 1 {
		w.onRepeat(seen)
	}
	err := w.Transport.InstallSnapshot(id, target, args, resp, data)
	if err == nil && resp.Success {
		w.succeeded(id, args.LastLogIndex)
	}
	return err
}

func (w *installs) count(id raft.ServerID, index, term uint64) RepeatedInstall {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, ok := w.peers[id]
	if !ok && len(w.peers) >= watchedPeersMax {
		clear(w.peers)
	}
	if !ok || seen.Index != index {
		seen = RepeatedInstall{Peer: id, Index: index, Term: term}
	}
	seen.Installs++
	w.peers[id] = seen
	return seen
}

func (w *installs) succeeded(id raft.ServerID, index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if seen, ok := w.peers[id]; ok && seen.Index == index {
		seen.Succeeded++
		w.peers[id] = seen
	}
}
