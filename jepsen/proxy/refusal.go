package proxy

import (
	"slices"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Refusal refuses one request of each connection.
type Refusal struct {
	ops  []wire.Op
	code wire.Code
	done map[int]bool // links that have had theirs
}

// RefuseRequests keeps the next request of the given ops on each of node's
// connections from it and answers in its place, as a node does that cannot take
// one at the moment: what the client has sent behind it goes through.
func (n *Net) RefuseRequests(node string, code wire.Code, ops ...wire.Op) *Refusal {
	r := &Refusal{ops: ops, code: code, done: map[int]bool{}}
	n.change(node, func(x *rules) { x.refuse = append(x.refuse, r) })
	return r
}

// StopRefusing ends a Refusal and returns how many requests were refused.
func (n *Net) StopRefusing(r *Refusal) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.nodes {
		x.refuse = slices.DeleteFunc(x.refuse, func(y *Refusal) bool { return y == r })
	}
	return len(r.done)
}

// refuses says whether a request of op is to be refused, and with what.
func (n *Net) refuses(l Link, op wire.Op) (wire.Code, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.nodes[l.Node].refuse {
		if !x.done[l.Number] && slices.Contains(x.ops, op) {
			x.done[l.Number] = true
			return x.code, true
		}
	}
	return 0, false
}

// refusalDelay is how late a refusal is answered: what the client sends meanwhile
// is under way when it learns.
const refusalDelay = 20 * time.Millisecond

// refuse answers a request in a while. Its caller is one of the link's parts.
func (l *link) refuse(f wire.Frame, code wire.Code) {
	l.parts.Go(func() {
		t := time.NewTimer(refusalDelay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.ended:
			return
		}
		// Writes of whole frames to one connection do not mix. A client that is gone
		// needs no answer.
		_, _ = l.sides[ToClient].Write(refusal(f, code))
	})
}

func refusal(f wire.Frame, code wire.Code) []byte {
	var w pack.Writer
	wire.NewErrorReply(code, "refused by the proxy").Append(&w)
	return wire.AppendFrame(nil, wire.OpError, true, f.Corr, w.Bytes())
}
