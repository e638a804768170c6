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
	// servers are those of the newest configuration; over is closed when this node's
	// leadership ends.
	term    func() (uint64, bool)
	servers func() []raft.Server
	over    func() <-chan struct{}

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
		servers: func() []raft.Server { return g.raft.GetConfiguration().Configuration().Servers },
		peers:   map[raft.ServerID]*confirming{}, changed: make(chan struct{}),
	}
}

// leads waits until a majority of the voters has said, after this call, that it follows
// this node, false if it does not lead any more or end is closed.
func (c *confirmer) leads(end <-chan struct{}) bool {
	over := c.over()
	term, leads := c.term()
	if !leads {
		return false
	}
	c.mu.Lock()
	c.round++
	mine := c.round
	c.mu.Unlock()
	for {
		voters, self := c.voters()
		c.mu.Lock()
		maps.DeleteFunc(c.peers, func(id raft.ServerID, p *confirming) bool {
			return !p.busy && !slices.ContainsFunc(voters, func(v raft.Server) bool { return v.ID == id })
		})
		changed := c.changed
		yes := 0
		if self {
			yes++
		}
		for _, v := range voters {
			if p := c.peers[v.ID]; p != nil && p.yes >= mine && p.term == term {
				yes++
			}
		}
		if yes > (len(voters)+btoi(self))/2 {
			c.mu.Unlock()
			return true
		}
		for _, v := range voters {
			c.ask(v, term, mine)
		}
		c.mu.Unlock()
		retry := time.NewTimer(confirmRetry)
		select {
		case <-changed:
			retry.Stop()
		case <-retry.C:
		case <-over:
			retry.Stop()
			return false
		case <-end:
			retry.Stop()
			return false
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// voters are the others, and whether this node is one.
func (c *confirmer) voters() (others []raft.Server, self bool) {
	for _, v := range c.servers() {
		switch {
		case v.Suffrage != raft.Voter:
		case v.ID == c.id:
			self = true
		default:
			others = append(others, v)
		}
	}
	return others, self
}

// ask asks one voter, unless a question to it is under way: that one was sent before,
// so another follows it. c.mu is held.
func (c *confirmer) ask(v raft.Server, term, round uint64) {
	p := c.peers[v.ID]
	if p == nil {
		p = &confirming{}
		c.peers[v.ID] = p
	}
	if p.busy || p.yes >= round && p.term == term || time.Now().Before(p.idle) {
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
