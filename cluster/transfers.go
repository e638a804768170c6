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
	log *slog.Logger

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
}

func newTransfers(log *slog.Logger) *transfers {
	return &transfers{log: log, running: make(map[*transfer]struct{})}
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

// Read implements io.Reader.
func (x *transfer) Read(b []byte) (int, error) {
	n, err := x.Reader.Read(b)
	t := x.all
	t.mu.Lock()
	now := time.Now()
	x.last = now
	x.state.Bytes += uint64(n)
	state := x.state
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
