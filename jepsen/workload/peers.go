package workload

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/raw"
	"onceq/transport/wire"
)

// linesMax is how many connections a peer set keeps to one node, so that copies
// can come over several.
const linesMax = 2

// peers are one process's raw connections to all nodes, made when they are
// needed.
type peers struct {
	w      *World
	client string

	mu     sync.Mutex // guards what follows
	conns  map[line]*raw.Conn
	calls  map[line]time.Time // when a line is or was dialled last
	leader string             // address, as heard last
	term   uint64
	closed bool
}

// redialEvery bounds how often a line is dialled.
const redialEvery = 300 * time.Millisecond

type line struct {
	address string
	n       int
}

func newPeers(w *World, client string) *peers {
	return &peers{w: w, client: client, conns: map[line]*raw.Conn{}, calls: map[line]time.Time{}}
}

// get returns a connection to a node, nil when there is none to be had.
func (p *peers) get(ctx context.Context, l line) *raw.Conn {
	p.mu.Lock()
	c, closed := p.conns[l], p.closed
	p.mu.Unlock()
	if closed {
		return nil
	}
	if c != nil && alive(c) {
		return c
	}
	// One dial at a time: a node that does not answer must not gather thousands.
	p.mu.Lock()
	busy := time.Since(p.calls[l]) < redialEvery
	if !busy {
		p.calls[l] = time.Now()
	}
	p.mu.Unlock()
	if busy {
		return nil
	}
	fresh, err := raw.Dial(ctx, p.w.Dial(p.client), l.address, p.client, p.push)
	if err != nil {
		return nil
	}
	p.learn(fresh.Welcome.Topology)
	p.mu.Lock()
	old := p.conns[l]
	switch {
	case p.closed:
		fresh, old = nil, fresh
	case old != nil && alive(old):
		fresh, old = old, fresh // another was faster
	default:
		p.conns[l] = fresh
	}
	p.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return fresh
}

func alive(c *raw.Conn) bool {
	select {
	case <-c.Done():
		return false
	default:
		return true
	}
}

func (p *peers) push(op wire.Op, payload []byte, _ time.Duration) {
	if op == wire.OpTopology {
		if t, err := wire.DecodeTopology(payload); err == nil {
			p.learn(t)
		}
	}
}

func (p *peers) learn(t wire.Topology) {
	i := slices.IndexFunc(t.Nodes, func(n wire.NodeAddress) bool { return n.Name == t.Leader })
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= 0 && t.Term >= p.term {
		p.leader, p.term = t.Nodes[i].Address, t.Term
	}
}

// leads is false when another node than the one at address was heard to lead.
func (p *peers) leads(address string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leader == address
}

// inTerm is the newest term that was heard of.
func (p *peers) inTerm() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.term
}

// toLeader is a line to where the leader was heard to be, or to anybody.
func (p *peers) toLeader(r *rand.Rand) line {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leader != "" && r.IntN(20) != 0 {
		return line{p.leader, r.IntN(linesMax)}
	}
	return p.anyLocked(r)
}

// anywhere is a line to any node.
func (p *peers) anywhere(r *rand.Rand) line {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.anyLocked(r)
}

func (p *peers) anyLocked(r *rand.Rand) line {
	return line{p.w.Addrs[r.IntN(len(p.w.Addrs))], r.IntN(linesMax)}
}

// answer says what an error proves about a request: fail that it had no effect,
// unknown that nobody can tell.
func (p *peers) answer(err error) (fail bool) {
	if errors.Is(err, raw.ErrUnsent) {
		return true
	}
	if e := (*wire.Error)(nil); errors.As(err, &e) {
		switch e.Code {
		case wire.CodeOutcomeUnknown, wire.CodeInternal:
			return false
		case wire.CodeNotLeader, wire.CodeNoLeader:
			// A node that knows no leader may be cut off from the others: with ""
			// the next line goes to any.
			p.mu.Lock()
			p.leader = e.Leader
			p.mu.Unlock()
		}
		return true
	}
	return false
}

// failed completes an operation whose request got an error for an answer, and says
// whether that proves that it had no effect.
func (p *peers) failed(op history.Event, err error) (fail bool) {
	op.Err = err.Error()
	outcome := history.Info
	if fail = p.answer(err); fail {
		outcome = history.Fail
	}
	p.w.H.Complete(op, outcome)
	return fail
}

func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	conns := make([]*raw.Conn, 0, len(p.conns))
	for _, c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
