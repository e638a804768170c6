package raftlog

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// ErrBadAppend is wrapped by the answer to a request whose entries do not hang together.
var ErrBadAppend = errors.New("malformed AppendEntries")

// guard verifies the entries of peers before raft sees them.
//
// It stands here and not in StoreLogs alone for two reasons. raft deletes a conflicting suffix before it stores the entries that
// conflict, so a flipped bit in the term of an entry would make a follower delete what it has acknowledged, and only then be
// noticed. And StoreLogs cannot tell an own entry, which has no checksum yet, from a peer's that lost it; but only peers' come through a
// transport. A refused request is answered with an error and sent again; nothing has happened.
type guard struct {
	forward
	store *Store
	out   chan raft.RPC

	once  sync.Once
	quit  chan struct{}
	ended chan struct{}

	// fast is held for reading by who is in raft on the heartbeat's fast path. raft itself waits for nobody there: a heartbeat of a
	// higher term that was let in before the end would find the stable store closed, and raft panics when it cannot keep a term.
	fast   sync.RWMutex
	closed bool // guarded by fast
}

// Guard returns a transport for this node's raft that verifies every entry that arrives through t. Close ends it and t.
func (s *Store) Guard(t raft.Transport) raft.Transport {
	g := &guard{
		forward: forward{t},
		store:   s,
		out:     make(chan raft.RPC),
		quit:    make(chan struct{}),
		ended:   make(chan struct{}),
	}
	go g.run()
	return expose(g)
}

// Consumer returns the requests that have passed.
func (g *guard) Consumer() <-chan raft.RPC { return g.out }

// SetHeartbeatHandler passes on the fast path, which is for requests without entries; one that has some is refused.
//
// A heartbeat of another term than this node's takes the way of all other requests. On the fast path raft changes its term and its
// office from there, beside its main loop (https://github.com/hashicorp/raft/issues/695): a leader would go on to append entries, in a term that
// another leads, and a term that waits for the disk could come after a higher one, and take it back.
func (g *guard) SetHeartbeatHandler(cb func(raft.RPC)) {
	if cb == nil {
		g.Transport.SetHeartbeatHandler(nil)
		return
	}
	g.Transport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if !g.pass(rpc) {
			return
		}
		g.store.rising.RLock()
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); !ok || req.Term != g.store.term.Load() {
			g.store.rising.RUnlock() // raft's main loop, which is to take it, may be waiting to write a term
			if !g.hand(rpc) {
				rpc.Respond(nil, raft.ErrTransportShutdown)
			}
			return
		}
		defer g.store.rising.RUnlock()
		g.fast.RLock()
		defer g.fast.RUnlock()
		if g.closed {
			rpc.Respond(nil, raft.ErrTransportShutdown)
			return
		}
		cb(rpc)
	})
}

// AppendEntries tells the follower to apply what is committed, and the Store what the follower has.
func (g *guard) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	args.LeaderCommitIndex = g.store.HeldBack(args.LeaderCommitIndex)
	if err := g.Transport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	g.store.answered(id, args, resp)
	return nil
}

// answered notes an answer before raft sees it.
func (s *Store) answered(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if n := len(args.Entries); n > 0 && resp.Success && resp.Term <= args.Term {
		s.parallel.follows(id, args.Term, args.Entries[n-1].Index)
	}
}

// AppendEntriesPipeline is AppendEntries for several requests under way.
func (g *guard) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := g.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err // raft compares
	}
	p := &guardedPipeline{AppendPipeline: inner, store: g.store, peer: id, out: make(chan raft.AppendFuture), quit: make(chan struct{}), ended: make(chan struct{})}
	go p.run()
	return p, nil
}

// guardedPipeline has one goroutine, which Close ends.
type guardedPipeline struct {
	raft.AppendPipeline
	store *Store
	peer  raft.ServerID
	out   chan raft.AppendFuture
	once  sync.Once
	quit  chan struct{}
	ended chan struct{}
}

// AppendEntries is like the transport's.
func (p *guardedPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	args.LeaderCommitIndex = p.store.HeldBack(args.LeaderCommitIndex)
	return p.AppendPipeline.AppendEntries(args, resp)
}

// Consumer returns the answers in their order.
func (p *guardedPipeline) Consumer() <-chan raft.AppendFuture { return p.out }

func (p *guardedPipeline) run() {
	defer close(p.ended)
	in := p.AppendPipeline.Consumer()
	for {
		select {
		case f := <-in:
			p.store.answered(p.peer, f.Request(), f.Response())
			select {
			case p.out <- f:
			case <-p.quit:
				return
			}
		case <-p.quit:
			return
		}
	}
}

// Close may be called more than once.
func (p *guardedPipeline) Close() error {
	p.once.Do(func() { close(p.quit) })
	<-p.ended
	return p.AppendPipeline.Close()
}

// Close may be called more than once.
func (g *guard) Close() (err error) {
	g.once.Do(func() {
		g.fast.Lock()
		g.closed = true
		g.fast.Unlock()
		close(g.quit)
		<-g.ended
		err = g.forward.Close()
	})
	return err
}

func (g *guard) run() {
	defer close(g.ended)
	in := g.Transport.Consumer()
	for {
		select {
		case <-g.quit:
			return
		case rpc := <-in:
			if g.pass(rpc) && !g.hand(rpc) {
				return
			}
		}
	}
}

// hand waits until raft takes the request, and tells whether it has before the end.
func (g *guard) hand(rpc raft.RPC) bool {
	select {
	case g.out <- rpc:
		return true
	case <-g.quit:
		return false
	}
}

// pass tells whether raft may see the request, and answers it otherwise.
func (g *guard) pass(rpc raft.RPC) bool {
	req, ok := rpc.Command.(*raft.AppendEntriesRequest)
	if !ok {
		return true
	}
	err := checkAppend(req)
	if err == nil {
		return true
	}
	g.store.refused.Add(1)
	g.store.logger.Error("refused the entries of a peer", "peer", string(req.ID), "previous", req.PrevLogEntry, "entries", len(req.Entries), "error", err)
	// Not nil: raft's in-memory pipeline reads it beside an error. NoRetryBackoff stays false, so that the sender waits.
	rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: req.ProtocolVersion}}, err)
	return false
}

// checkAppend verifies that the entries follow each other behind the previous one, and each checksum.
func checkAppend(req *raft.AppendEntriesRequest) error {
	for i, l := range req.Entries {
		want := req.PrevLogEntry + 1 + uint64(i)
		switch {
		case l == nil:
			return fmt.Errorf("%w: no entry where %d belongs", ErrBadAppend, want)
		case l.Index != want:
			return fmt.Errorf("%w: entry %d where %d belongs", ErrBadAppend, l.Index, want)
		case l.Term > req.Term:
			return fmt.Errorf("%w: entry %d of term %d from a leader of term %d", ErrBadAppend, l.Index, l.Term, req.Term)
		}
		if err := checkEntryBytes(len(l.Data) + checksumBytes); err != nil {
			return fmt.Errorf("entry %d: %w", l.Index, err)
		}
		if err := VerifyEntry(l); err != nil {
			return fmt.Errorf("entry %d: %w", l.Index, err)
		}
	}
	return nil
}
