package onceqtest

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// cuts are the connections between nodes, which a partition breaks. Those of
// clients do not go through it.
type cuts struct {
	mu   sync.Mutex      // guards what follows
	side map[string]bool // the addresses on one side
	open map[*peerConn]struct{}
}

type peerConn struct {
	net.Conn
	cuts     *cuts
	from, to string
}

func newCuts() *cuts { return &cuts{open: map[*peerConn]struct{}{}} }

// dialer is how the node at from reaches others.
func (s *cuts) dialer(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		cut := fmt.Errorf("dial %s: cut off by the test", address)
		if s.between(from, address) {
			return nil, cut
		}
		nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.side[from] != s.side[address] { // since
			nc.Close()
			return nil, cut
		}
		p := &peerConn{Conn: nc, cuts: s, from: from, to: address}
		s.open[p] = struct{}{}
		return p, nil
	}
}

func (s *cuts) between(a, b string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.side[a] != s.side[b]
}

func (s *cuts) partition(side map[string]bool) {
	s.mu.Lock()
	s.side = side
	var broken []*peerConn
	for p := range s.open {
		if side[p.from] != side[p.to] {
			broken = append(broken, p)
		}
	}
	s.mu.Unlock()
	for _, p := range broken {
		p.Close()
	}
}

// Close implements net.Conn.
func (p *peerConn) Close() error {
	p.cuts.mu.Lock()
	delete(p.cuts.open, p)
	p.cuts.mu.Unlock()
	return p.Conn.Close()
}
