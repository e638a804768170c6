package cluster

import (
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"onceq/transport/wire"
)

// transferLogEvery is how often a snapshot on its way is told of in the log.
const transferLogEvery = 5 * time.Second

// transferForgottenAfter: a snapshot that comes in and of which nothing was heard
// for so long was given up; the library does not say when.
const transferForgottenAfter = time.Minute

// transfers knows the snapshots that are on their way from this node and to it.
// Each is a goroutine of the library's, beside heartbeats and other followers.
type transfers struct {
	log  *slog.Logger
	idle time.Duration                            // how long one may stand still
	cut  func(peer raft.ServerID, receiving bool) // ends the streams of one that does

	mu      sync.Mutex // guards the fields below, and those of the transfers
	running map[*transfer]struct{}
}

// transfer is one snapshot on its way. It counts what is read of it.
type transfer struct {
	io.Reader
	all    *transfers
	state  wire.SnapshotTransfer
	began  time.Time
	last   time.Time // something was read
	logged time.Time
	// idle runs while the peer has to do something: to send more, or to take what was read.
	idle  *time.Timer
	ended bool
}

func newTransfers(log *slog.Logger, idle time.Duration, cut func(peer raft.ServerID, receiving bool)) *transfers {
	return &transfers{log: log, idle: idle, cut: cut, running: make(map[*transfer]struct{})}
}

// endTransfer ends the streams that a snapshot from or to a peer is on.
func (n *Node) endTransfer(peer raft.ServerID, receiving bool) {
	if receiving {
		n.streams.EndRaftFrom(peer)
	} else {
		n.streams.EndRaftTo(peer)
	}
}

// sending is given what goes to a follower.
func (t *transfers) sending(peer raft.ServerID, req *raft.InstallSnapshotRequest, r io.Reader) (io.Reader, func(error)) {
	x := t.begin(wire.SnapshotTransfer{Peer: string(peer), Index: req.LastLogIndex, Size: uint64(max(0, req.Size))}, r)
	return x, x.end
}

// receiving is given what comes from the leader.
func (t *transfers) receiving(req *raft.InstallSnapshotRequest, r io.Reader) io.Reader {
	return t.begin(wire.SnapshotTransfer{Peer: string(req.GetRPCHeader().ID), Receiving: true, Index: req.LastLogIndex, Size: uint64(max(0, req.Size))}, r)
}

func (t *transfers) begin(state wire.SnapshotTransfer, r io.Reader) *transfer {
	now := time.Now()
	x := &transfer{Reader: r, all: t, state: state, began: now, last: now, logged: now}
	x.idle = time.AfterFunc(t.idle, x.stands)
	x.idle.Stop()
	t.mu.Lock()
	for old := range t.running {
		if old.state.Receiving && state.Receiving {
			delete(t.running, old) // it was broken off
		}
	}
	t.running[x] = struct{}{}
	t.mu.Unlock()
	t.log.Info("snapshot transfer begins", "peer", state.Peer, "receiving", state.Receiving, "index", state.Index, "bytes", state.Size)
	return x
}

// stands is called when nothing has come, or nothing was taken, for too long.
func (x *transfer) stands() {
	t := x.all
	t.mu.Lock()
	ended, state := x.ended, x.state
	t.mu.Unlock()
	// Also of one that another has replaced: raft does not come to that before.
	if !ended {
		t.log.Warn("snapshot transfer stands still: its connections are closed", "peer", state.Peer, "receiving", state.Receiving,
			"index", state.Index, "bytes", state.Bytes, "of", state.Size, "for", t.idle)
		t.cut(raft.ServerID(state.Peer), state.Receiving)
	}
}

// Read implements io.Reader.
func (x *transfer) Read(b []byte) (int, error) {
	t := x.all
	if x.state.Receiving {
		x.idle.Reset(t.idle)
	} else {
		x.idle.Stop()
	}
	n, err := x.Reader.Read(b)
	t.mu.Lock()
	now := time.Now()
	x.last = now
	x.state.Bytes += uint64(n)
	state := x.state
	if state.Receiving {
		x.idle.Stop()
	} else if err == nil && state.Bytes < state.Size {
		x.idle.Reset(t.idle) // until what was read now has been sent
	}
	tell := now.Sub(x.logged) >= transferLogEvery
	if tell {
		x.logged = now
	}
	t.mu.Unlock()
	if tell {
		t.log.Info("snapshot transfer", "peer", state.Peer, "receiving", state.Receiving, "index", state.Index, "bytes", state.Bytes, "of", state.Size)
	}
	// Who sends hears of the end by the answer.
	switch {
	case !state.Receiving:
	case state.Bytes >= state.Size:
		x.end(nil)
	case err == io.EOF:
		x.end(io.ErrUnexpectedEOF)
	case err != nil:
		x.end(err)
	}
	return n, err
}

// end may be called more than once.
func (x *transfer) end(err error) {
	t := x.all
	t.mu.Lock()
	_, running := t.running[x]
	delete(t.running, x)
	x.ended = true
	x.idle.Stop()
	state, took := x.state, time.Since(x.began)
	t.mu.Unlock()
	switch {
	case !running:
	case err != nil:
		t.log.Warn("snapshot transfer has broken off, and begins anew", "peer", state.Peer, "receiving", state.Receiving, "index", state.Index,
			"bytes", state.Bytes, "of", state.Size, "error", err)
	default:
		t.log.Info("snapshot transfer is complete", "peer", state.Peer, "receiving", state.Receiving, "index", state.Index, "bytes", state.Bytes, "in", took)
	}
}

// list returns what is on its way.
func (t *transfers) list() (all []wire.SnapshotTransfer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for x := range t.running {
		if time.Since(x.last) > transferForgottenAfter && x.state.Receiving {
			delete(t.running, x)
			continue
		}
		if len(all) < wire.TransfersMax {
			all = append(all, x.state)
		}
	}
	return all
}
