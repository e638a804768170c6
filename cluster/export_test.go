package cluster

import (
	"onceq/fsm"
	"onceq/transport/wire"
)

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
		w := fsm.NewEntry(0)
		w.Add(fsm.KindQueueCreate, encoded(wire.QueueCreate{Incarnation: g.incarnation, Group: groupNumber, Name: "of-" + g.node}))
		eff, err := g.machine.Apply(g.machine.Index(), w.Finish(0, 0))
		if err != nil || eff.Results[0].Status != fsm.StatusOK {
			return false, err
		}
	}
	return true, nil
}
