package client

import (
	"slices"
	"sync"

	"onceq/transport/wire"
)

// topology is what the client knows of the cluster: its identity, where the
// nodes are and who leads. It only moves forward: a node that lags behind may
// say something older, which is not believed.
type topology struct {
	mu          sync.Mutex // guards what follows
	cluster     string     // "" until the first welcome
	incarnation uint64
	before      []wire.Life // what the cluster was before restores
	newest      wire.Topology
	seeds       []string      // from the URL; kept for ever
	changed     chan struct{} // closed and replaced at each change
	changes     uint64        // of the leader, after the first
	version     uint64        // grows with each change of leader or term
	bodyMax     int
}

func newTopology(seeds []string) *topology {
	return &topology{seeds: seeds, changed: make(chan struct{}), bodyMax: wire.BodyBytesMax}
}

// welcome takes what a node said when it was connected to. It refuses the node
// of another cluster, unless what is known was restored in that. restored says
// that the cluster's life is another than before.
func (t *topology) welcome(w wire.Welcome) (restored bool, err error) {
	t.mu.Lock()
	switch {
	case t.cluster != "" && w.Cluster != t.cluster && !w.Lived(t.incarnation):
		defer t.mu.Unlock()
		return false, newError(wire.CodeWrongCluster, "node %s belongs to cluster %s, this client to %s: check the address", w.Node, w.Cluster, t.cluster)
	case w.Cluster == "":
		defer t.mu.Unlock()
		return false, newError(wire.CodeNoLeader, "node %s is starting, or in no cluster yet: wait, or start the other nodes", w.Node)
	}
	t.cluster = w.Cluster
	// A node that has not come as far as the restore still tells the life before.
	late := slices.ContainsFunc(t.before, func(l wire.Life) bool { return l.Incarnation == w.Incarnation })
	if w.Incarnation != t.incarnation && !late {
		restored = t.incarnation != 0
		t.incarnation, t.before = w.Incarnation, w.Lives
		t.newest.Term = 0 // it may be another log, with terms of its own
	}
	t.bodyMax = int(w.BodyBytesMax)
	t.mu.Unlock()
	t.learn(w.Topology, w.Node)
	return restored, nil
}

// learn takes a topology that node told.
func (t *topology) learn(n wire.Topology, node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.Term < t.newest.Term {
		return
	}
	if n.Leader == "" && t.newest.Leader != node {
		// Who knows of no leader cannot unmake one, also not as the candidate of a
		// higher term that nobody follows. The leader itself can, and a new one.
		n.Leader, n.Term = t.newest.Leader, t.newest.Term
	}
	if len(n.Nodes) == 0 {
		n.Nodes = t.newest.Nodes
	}
	if n.Leader != "" && n.Leader != t.newest.Leader && t.newest.Term != 0 {
		t.changes++
	}
	if n.Leader != t.newest.Leader || n.Term != t.newest.Term {
		t.version++
	}
	t.newest = n
	close(t.changed)
	t.changed = make(chan struct{})
}

// leads says whether node leads as far as is known, and since which term.
func (t *topology) leads(node string) (bool, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newest.Leader == node && node != "", t.newest.Term
}

// age tells whether who leads, or since when, has changed between two calls.
func (t *topology) age() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version
}

// news is closed when more is known than at the call.
func (t *topology) news() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// leader is the leader's address, "" when it is not known.
func (t *topology) leader() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.newest.Nodes {
		if n.Name == t.newest.Leader && n.Name != "" {
			return n.Address
		}
	}
	return ""
}

// addresses are all places where a node may be.
func (t *topology) addresses() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for _, n := range t.newest.Nodes {
		all = append(all, n.Address)
	}
	return append(all, t.seeds...)
}

func (t *topology) nodes() []wire.NodeAddress {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newest.Nodes
}

// was says whether the cluster has this id, or what it was restored from had it.
func (t *topology) was(cluster string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cluster == cluster || slices.ContainsFunc(t.before, func(l wire.Life) bool { return l.Cluster == cluster })
}

// identity is what requests to the machine carry.
func (t *topology) identity() (incarnation uint64, group uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.incarnation, t.newest.Group
}

func (t *topology) clusterID() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cluster
}

func (t *topology) bodyBytesMax() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bodyMax
}

func (t *topology) leaderChanges() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changes
}
