package cluster

import (
	"sort"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
	"onceq/transport/wire"
)

// topologyObservations bounds what raft may report before it is read. Reports
// beyond it are dropped by raft; the next one brings the same news.
const topologyObservations = 16

// topology knows who leads and where the nodes are, and tells clients when that
// changes.
type topology struct {
	g      *group
	nodes  func() []member.NodeView // as gossip sees them
	self   wire.NodeAddress
	wake   chan struct{} // cap 1
	events chan raft.Observation

	// held: the answer to a request that changes the leader is being made;
	// pushes wait for it. A client that learns of another leader leaves this
	// node, and would leave without its answer.
	held atomic.Int32

	mu   sync.Mutex    // guards last
	last wire.Topology // pushed last
}

func newTopology(g *group, self wire.NodeAddress, nodes func() []member.NodeView) *topology {
	return &topology{g: g, nodes: nodes, self: self, wake: make(chan struct{}, 1),
		events: make(chan raft.Observation, topologyObservations)}
}

// observe subscribes to leader changes.
func (t *topology) observe(r *raft.Raft) *raft.Observer {
	o := raft.NewObserver(t.events, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	r.RegisterObserver(o)
	return o
}

func (t *topology) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run pushes the topology to every client whenever it has changed.
func (t *topology) run(end <-chan struct{}) {
	for {
		select {
		case <-t.wake:
		case <-t.events:
		case <-end:
			return
		}
		if t.held.Load() > 0 {
			continue // release pokes
		}
		if m, changed := t.refresh(); changed {
			payload := encoded(m)
			for _, c := range t.g.hub.all() {
				c.Push(wire.OpTopology, payload)
			}
		}
	}
}

// hold keeps pushes back until release is called, which may be only once.
func (t *topology) hold() (release func()) {
	t.held.Add(1)
	return func() {
		t.held.Add(-1)
		t.poke()
	}
}

// refresh builds the topology anew and says whether it differs from the last.
func (t *topology) refresh() (wire.Topology, bool) {
	m := t.build()
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := m.Term != t.last.Term || m.Leader != t.last.Leader || len(m.Nodes) != len(t.last.Nodes)
	for i := 0; !changed && i < len(m.Nodes); i++ {
		changed = m.Nodes[i] != t.last.Nodes[i]
	}
	t.last = m
	return m, changed
}

// build asks raft and gossip. A node names itself leader only while it serves:
// clients that came earlier would be refused and back off.
func (t *topology) build() wire.Topology {
	m := wire.Topology{Group: groupNumber, Term: t.g.raft.CurrentTerm()}
	_, id := t.g.raft.LeaderWithID()
	m.Leader = member.NameOf(id)
	if m.Leader == t.self.Name && !t.g.lead.serving() {
		m.Leader = ""
	}
	known := map[string]string{t.self.Name: t.self.Address}
	for _, s := range t.g.raft.GetConfiguration().Configuration().Servers {
		if name := member.NameOf(s.ID); known[name] == "" {
			known[name] = string(s.Address)
		}
	}
	for _, v := range t.nodes() {
		if _, configured := known[v.Name]; configured && v.Address != "" {
			known[v.Name] = v.Address
		}
	}
	for name, address := range known {
		m.Nodes = append(m.Nodes, wire.NodeAddress{Name: name, Address: address})
	}
	sort.Slice(m.Nodes, func(i, j int) bool { return m.Nodes[i].Name < m.Nodes[j].Name })
	return m
}

// current returns the topology as it is now. It does not count as pushed: the
// next change is pushed to everybody.
func (t *topology) current() wire.Topology { return t.build() }

// leader returns who leads and where, "" when nobody is known to.
func (t *topology) leader() (name, address string) {
	_, id := t.g.raft.LeaderWithID()
	name = member.NameOf(id)
	if name == "" {
		return "", ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.last.Nodes {
		if n.Name == name {
			return name, n.Address
		}
	}
	a, _ := t.g.configuredAddress(id)
	return name, string(a)
}
