package proxy

import (
	"net"
	"time"
)

// Linger keeps the node's side of a connection open for so long after its client
// has gone, as when what was between them has forgotten the connection: the
// client is back over another one before the node notices.
func (n *Net) Linger(node string, d time.Duration) {
	n.change(node, func(r *rules) { r.linger = d })
}

// CutClients resets the live connections of a node on the clients' side only, and
// returns how many there were.
func (n *Net) CutClients(node string) int {
	n.mu.Lock()
	var cut []*link
	for l := range n.links {
		if l.Node == node {
			cut = append(cut, l)
		}
	}
	n.mu.Unlock()
	for _, l := range cut {
		if t, ok := l.sides[ToClient].(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = l.sides[ToClient].Close()
	}
	return len(cut)
}

// lingers waits before the node's side is closed.
func (l *link) lingers() {
	l.n.mu.Lock()
	d := l.n.nodes[l.Node].linger
	l.n.mu.Unlock()
	if d == 0 {
		return
	}
	l.clientGone.Store(true)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.ended:
	}
}
