package member

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/hashicorp/raft"
)

// termJumpMax is by how much a term may be above our own. Terms grow by one an
// election, so a larger jump is damage or forgery, and accepting it would end
// elections for ever: terms are on disk and there is none above the highest.
const termJumpMax = 1 << 32

var (
	// ErrTermJump is the answer to a message with an absurd term.
	ErrTermJump = errors.New("term is too far above our own")

	errGuardClosed = errors.New("transport is closed")
)

// Guard says what GuardTransport lets through.
type Guard struct {
	// CurrentTerm is the node's own term. It may answer 0 until raft runs, which
	// refuses nothing that a node of that age could see.
	CurrentTerm func() uint64
	// Allow refuses servers that are neither in the configuration nor joining,
	// such as a removed one that still asks for votes. nil allows all.
	Allow func(raft.ServerID) error
	// Succeeds says that a pre-vote may be granted although raft, which has not
	// noticed that its leader is gone, would refuse it. nil never does.
	Succeeds func(*raft.RequestPreVoteRequest) bool
	// Sending and Receiving are given each snapshot on its way, and return what
	// is read in its place; done is called when it was answered. nil: nobody.
	Sending   func(to raft.ServerID, req *raft.InstallSnapshotRequest, data io.Reader) (r io.Reader, done func(error))
	Receiving func(req *raft.InstallSnapshotRequest, data io.Reader) io.Reader
	// Follows is told how far a follower is: it has all entries up to index, but for
	// those in flight to it. It must not block. nil: nobody.
	Follows func(id raft.ServerID, index uint64)
	Logger  *slog.Logger
}

// GuardedTransport is what GuardTransport returns.
type GuardedTransport interface {
	raft.Transport
	// Stand makes this node's raft a candidate at once, without pre-votes, as a
	// leader does that hands over to it.
	Stand() error
}

// GuardTransport wraps raft's transport so that messages which no honest member
// sends do not reach raft: in requests, which are answered with an error, and
// in answers, which become errors. Addresses that come out of it are plain.
//
// Goroutines: one that passes requests on. Close waits for it.
func GuardTransport(inner raft.Transport, g Guard) GuardedTransport {
	if g.Logger == nil {
		g.Logger = slog.New(slog.DiscardHandler)
	}
	t := &guardTransport{
		Transport: inner, guard: g,
		log:  &rateLog{log: g.Logger, every: refusalLogEvery},
		out:  make(chan raft.RPC),
		done: make(chan struct{}),
	}
	t.wg.Go(t.pass)
	if pv, ok := inner.(raft.WithPreVote); ok {
		// raft asks for pre-votes only of a transport that has the method.
		return &preVoteGuard{guardTransport: t, inner: pv}
	}
	return t
}

type guardTransport struct {
	raft.Transport
	guard Guard
	log   *rateLog
	out   chan raft.RPC
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

func (t *guardTransport) Consumer() <-chan raft.RPC { return t.out }

func (t *guardTransport) pass() {
	in := t.Transport.Consumer()
	for {
		select {
		case rpc, ok := <-in:
			if !ok {
				return
			}
			if err := t.check(rpc.Command); err != nil {
				t.refuse(rpc, err)
				continue
			}
			if t.succeeds(rpc) {
				continue
			}
			if req, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok && t.guard.Receiving != nil {
				rpc.Reader = t.guard.Receiving(req, rpc.Reader)
			}
			select {
			case t.out <- rpc:
			case <-t.done:
				rpc.Respond(nil, errGuardClosed)
				return
			}
		case <-t.done:
			return
		}
	}
}

// succeeds grants a pre-vote that raft is not asked for.
func (t *guardTransport) succeeds(rpc raft.RPC) bool {
	req, ok := rpc.Command.(*raft.RequestPreVoteRequest)
	if !ok || t.guard.Succeeds == nil || !t.guard.Succeeds(req) {
		return false
	}
	rpc.Respond(&raft.RequestPreVoteResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: req.ProtocolVersion}, Term: req.Term, Granted: true,
	}, nil)
	return true
}

// Stand implements GuardedTransport. It waits for raft to take the request.
func (t *guardTransport) Stand() error {
	answers := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{
		Command:  &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}},
		RespChan: answers,
	}
	select {
	case t.out <- rpc:
	case <-t.done:
		return errGuardClosed
	}
	select {
	case a := <-answers:
		return a.Error
	case <-t.done:
		return errGuardClosed
	}
}

// refuse answers with an error. A snapshot that follows its request is read to
// its end first: what is left of it would be taken for requests.
func (t *guardTransport) refuse(rpc raft.RPC, err error) {
	t.log.warn("refused a raft message", "kind", fmt.Sprintf("%T", rpc.Command), "error", err)
	if rpc.Reader == nil {
		rpc.Respond(nil, err)
		return
	}
	t.wg.Go(func() {
		io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(nil, err)
	})
}

func (t *guardTransport) check(command any) error {
	if h, ok := command.(raft.WithRPCHeader); ok && t.guard.Allow != nil {
		if id := raft.ServerID(h.GetRPCHeader().ID); id != "" {
			if err := t.guard.Allow(id); err != nil {
				return err
			}
		}
	}
	switch c := command.(type) {
	case *raft.AppendEntriesRequest:
		return t.checkTerm(c.Term)
	case *raft.RequestVoteRequest:
		return t.checkTerm(c.Term)
	case *raft.RequestPreVoteRequest:
		return t.checkTerm(c.Term)
	case *raft.InstallSnapshotRequest:
		return t.checkTerm(c.Term)
	}
	return nil
}

func (t *guardTransport) checkTerm(term uint64) error {
	own := t.guard.CurrentTerm()
	if term > own && term-own > termJumpMax {
		return fmt.Errorf("%w: %d, ours is %d", ErrTermJump, term, own)
	}
	return nil
}

// SetHeartbeatHandler guards the fast path that heartbeats take around the
// Consumer channel.
func (t *guardTransport) SetHeartbeatHandler(cb func(raft.RPC)) {
	if cb == nil {
		t.Transport.SetHeartbeatHandler(nil)
		return
	}
	t.Transport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if err := t.check(rpc.Command); err != nil {
			t.refuse(rpc, err)
			return
		}
		cb(rpc)
	})
}

func (t *guardTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.Transport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	if index := args.PrevLogEntry + uint64(len(args.Entries)); resp.Success && index > 0 { // 0: a heartbeat
		t.follows(id, index)
	}
	return t.checkTerm(resp.Term)
}

func (t *guardTransport) follows(id raft.ServerID, index uint64) {
	if t.guard.Follows != nil {
		t.guard.Follows(id, index)
	}
}

func (t *guardTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.Transport.RequestVote(id, target, args, resp); err != nil {
		return err
	}
	return t.checkTerm(resp.Term)
}

func (t *guardTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) (err error) {
	if t.guard.Sending != nil {
		var done func(error)
		data, done = t.guard.Sending(id, args, data)
		defer func() { done(err) }()
	}
	if err := t.Transport.InstallSnapshot(id, target, args, resp, data); err != nil {
		return err
	}
	return t.checkTerm(resp.Term)
}

// EncodePeer and DecodePeer keep the server id that a DialedAddress carries out
// of what raft knows as the leader's address.
func (t *guardTransport) EncodePeer(id raft.ServerID, a raft.ServerAddress) []byte {
	return []byte(PlainAddress(raft.ServerAddress(t.Transport.EncodePeer(id, a))))
}

func (t *guardTransport) DecodePeer(b []byte) raft.ServerAddress {
	return raft.ServerAddress(PlainAddress(t.Transport.DecodePeer(b)))
}

// Close closes the transport below, too.
func (t *guardTransport) Close() error {
	t.once.Do(func() { close(t.done) })
	var err error
	if c, ok := t.Transport.(raft.WithClose); ok {
		err = c.Close()
	}
	t.wg.Wait()
	return err
}

type preVoteGuard struct {
	*guardTransport
	inner raft.WithPreVote
}

func (t *preVoteGuard) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.inner.RequestPreVote(id, target, args, resp); err != nil {
		return err
	}
	return t.checkTerm(resp.Term)
}
