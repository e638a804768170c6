package cluster

import (
	"io"
	"time"

	"github.com/hashicorp/raft"

	"onceq/fsm"
	"onceq/transport/wire"
)

// Forger is a raft transport that speaks as this node, whatever raft would say.
func (n *Node) Forger() raft.Transport {
	return raft.NewNetworkTransport(n.streams.Raft(), 1, 5*time.Second, io.Discard)
}

// Raft's header for what a Forger sends.
func (n *Node) RPCHeader() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.opened.id), Addr: []byte(n.address)}
}

// LastContact is when raft has heard from its leader last.
func (n *Node) LastContact() time.Time { return n.raft.LastContact() }

// ReceivesWaiting is how many receives have no answer from this node yet.
func (n *Node) ReceivesWaiting() int {
	r := n.opened.receives
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.consumers)
}

// Diverge makes the machines of nodes that are at the same index differ from
// everybody's, each alone with a queue of its own, and does nothing when they
// are at different ones.
func Diverge(nodes ...*Node) (done bool, err error) {
	for _, n := range nodes {
		g := n.group.Load()
		g.mu.Lock()
		defer g.mu.Unlock()
	}
	for _, n := range nodes[1:] {
		if n.group.Load().machine.Index() != nodes[0].group.Load().machine.Index() {
			return false, nil
		}
	}
	for _, n := range nodes {
		g := n.group.Load()
		var c fsm.Commands
		c.Add(fsm.KindQueueCreate, encoded(wire.QueueCreate{Incarnation: g.life.incarnation(), Group: groupNumber, Name: "of-" + g.node}))
		eff, err := g.machine.Apply(g.machine.Index(), fsm.NewEntry(0, 0, 0, &c))
		if err != nil || eff.Results[0].Status != fsm.StatusOK {
			return false, err
		}
	}
	return true, nil
}

// WithTransferIdle says how long a snapshot on its way may stand still.
func WithTransferIdle(c *Config, d time.Duration) { c.transferIdle = d }

// WithDrain says how long what is in flight may take to end when a node hands over or
// ends.
func WithDrain(c *Config, d time.Duration) { c.drain = d }

// WithGather says how long the replicas are asked for what they have before they are
// judged by the answers that came.
func WithGather(c *Config, d time.Duration) { c.gather = d }

// WithMachineVersion makes a node an older build, as far as the queue machine goes.
func WithMachineVersion(c *Config, version uint32) { c.machineVersion = version }
