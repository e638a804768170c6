package cluster

import (
	"sync/atomic"

	"onceq/fsm"
	"onceq/transport/wire"
)

// life is which life of the cluster this node is in: what the machine says, and
// before the first entry of all what the cluster was founded with. Peers know
// each other by the latter for ever, since a restore is an entry of the log that
// they share; clients are told the former, and everything they name carries it.
type life struct {
	founded uint64
	newest  atomic.Pointer[lives]
}

type lives struct {
	incarnation uint64
	before      []wire.Life
}

func newLife(founded uint64) *life {
	l := &life{founded: founded}
	l.newest.Store(&lives{incarnation: founded})
	return l
}

// incarnation is the present one.
func (l *life) incarnation() uint64 { return l.newest.Load().incarnation }

// before are the lives that led here.
func (l *life) before() []wire.Life { return l.newest.Load().before }

// lived says whether an incarnation is one of them.
func (l *life) lived(incarnation uint64) bool {
	for _, x := range l.before() {
		if x.Incarnation == incarnation {
			return true
		}
	}
	return false
}

// learn takes what the machine says, and tells whether another life has begun.
// The machine must not change meanwhile.
func (l *life) learn(m *fsm.Machine) (begun bool) {
	n := &lives{incarnation: m.Incarnation()}
	if n.incarnation == 0 {
		n.incarnation = l.founded
	}
	for _, x := range m.Lives() {
		n.before = append(n.before, wire.Life(x))
	}
	return l.newest.Swap(n).incarnation != n.incarnation
}

// renewed cuts off every client: what it names is of a life that is over. It
// comes back, is told of the new one, and judges by that what is still open.
func (g *group) renewed() {
	g.log.Info("the cluster was restored: another incarnation has begun", "incarnation", g.life.incarnation())
	g.hub.renew()
	bye := wire.ErrorReply{Code: wire.CodeRestored, Retriable: true, Text: "the cluster was restored from a backup: connect again"}
	for _, c := range g.hub.all() {
		c.Close(bye)
	}
}
