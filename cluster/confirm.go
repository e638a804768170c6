package cluster

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// confirmRetry is how long a voter that could not be asked is left alone.
const confirmRetry = 20 * time.Millisecond

// confirmer asks the voters whether they still follow this leader.
//
// The library's own VerifyLeader takes for a yes whatever answer comes after it was
// called, also that to a heartbeat or to entries sent before (replication.go, notifyAll
// in heartbeat and in updateLastAppended). A leader that stood still finds such answers
// in its sockets while another one serves already; a look-up on it would deny what
// that one has confirmed. Here only the answers to questions count that were sent after
// the look-up had come.
type confirmer struct {
	id    raft.ServerID
	trans raft.Transport
	// term is the present one, and whether this node leads in it as far as it knows;
	// voters are those of the newest configuration, of which this node need not be one;
	// over is closed when this node's leadership ends.
	term   func() (uint64, bool)
	voters func() []raft.Server
	over   func() <-chan struct{}

	asking sync.WaitGroup

	mu      sync.Mutex // guards what follows
	round   uint64
	peers   map[raft.ServerID]*confirming
	changed chan struct{} // closed and made anew when a peer has answered
}

// confirming is one voter: at most one question to it is under way, since one that
// stands still does not answer for long.
type confirming struct {
	busy bool
	// yes is the newest round in which it was asked and said that it follows the leader
	// of term.
	yes, term uint64
	idle      time.Time // it could not be asked, and is left alone until then
}

func newConfirmer(g *group, trans raft.Transport) *confirmer {
	return &confirmer{
		id: g.id, trans: trans, over: g.lead.over,
		term: func() (uint64, bool) {
			term := g.raft.CurrentTerm()
			return term, g.raft.State() == raft.Leader && g.raft.CurrentTerm() == term
		},
		voters: g.succession.voters,
		peers:  map[raft.ServerID]*confirming{}, changed: make(chan struct{}),
	}
}

// leads waits until a majority of the voters has said, after this call, that it follows
// this node in a term, false if it does not lead in that any more or end is closed.
func (c *confirmer) leads(term uint64, end <-chan struct{}) bool {
	over := c.over()
	if now, leads := c.term(); !leads || now != term {
		return false
	}
	c.mu.Lock()
	c.round++
	mine := c.round
	c.mu.Unlock()
	for {
		voters := c.voters()
		c.mu.Lock()
		maps.DeleteFunc(c.peers, func(id raft.ServerID, p *confirming) bool {
			return !p.busy && !slices.ContainsFunc(voters, func(v raft.Server) bool { return v.ID == id })
		})
		changed := c.changed
		yes := 0
		for _, v := range voters {
			if v.ID == c.id || c.said(v.ID, term, mine) {
				yes++
			} else {
				c.ask(v, term, mine)
			}
		}
		if yes > len(voters)/2 {
			c.mu.Unlock()
			return true
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(confirmRetry):
		case <-over:
			return false
		case <-end:
			return false
		}
	}
}

// said says whether a voter has said yes in a round or later. c.mu is held.
func (c *confirmer) said(id raft.ServerID, term, round uint64) bool {
	p := c.peers[id]
	return p != nil && p.yes >= round && p.term == term
}

// ask asks one voter, unless a question to it is under way: that one was sent before,
// so another follows it. c.mu is held.
func (c *confirmer) ask(v raft.Server, term, round uint64) {
	p := c.peers[v.ID]
	if p == nil {
		p = &confirming{}
		c.peers[v.ID] = p
	}
	if p.busy || time.Now().Before(p.idle) {
		return
	}
	p.busy = true
	c.asking.Go(func() {
		req := raft.AppendEntriesRequest{ // a heartbeat
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.id),
				Addr: c.trans.EncodePeer(c.id, c.trans.LocalAddr())},
			Term: term,
		}
		var resp raft.AppendEntriesResponse
		err := c.trans.AppendEntries(v.ID, v.Address, &req, &resp)
		c.mu.Lock()
		defer c.mu.Unlock()
		p.busy = false
		if err == nil && resp.Success && resp.Term == term {
			p.yes, p.term = round, term
		} else {
			p.idle = time.Now().Add(confirmRetry)
		}
		close(c.changed)
		c.changed = make(chan struct{})
	})
}
