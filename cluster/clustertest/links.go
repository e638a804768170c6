package clustertest

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// links are the connections between nodes, which tests can cut. Connections of
// clients do not go through it.
type links struct {
	mu       sync.Mutex
	isolated map[string]bool
	open     map[*link]struct{}
}

type link struct {
	net.Conn
	links    *links
	from, to string
}

func newLinks() *links {
	return &links{isolated: make(map[string]bool), open: make(map[*link]struct{})}
}

func (s *links) dialer(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if s.cut(from, address) {
			return nil, fmt.Errorf("dial %s: cut off by the test", address)
		}
		nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		l := &link{Conn: nc, links: s, from: from, to: address}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.isolated[from] || s.isolated[address] {
			nc.Close()
			return nil, fmt.Errorf("dial %s: cut off by the test", address)
		}
		s.open[l] = struct{}{}
		return l, nil
	}
}

func (s *links) cut(from, to string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isolated[from] || s.isolated[to]
}

func (s *links) isolate(node string) {
	s.mu.Lock()
	s.isolated[node] = true
	var closing []*link
	for l := range s.open {
		if l.from == node || l.to == node {
			closing = append(closing, l)
		}
	}
	s.mu.Unlock()
	for _, l := range closing {
		l.Close()
	}
}

func (s *links) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.isolated)
}

// Close implements net.Conn.
func (l *link) Close() error {
	l.links.mu.Lock()
	delete(l.links.open, l)
	l.links.mu.Unlock()
	return l.Conn.Close()
}
