package clustertest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// links are the connections between nodes, which tests can cut. Connections of
// clients do not go through it.
type links struct {
	mu       sync.Mutex
	isolated map[string]bool
	holds    map[string]hold // by the node that is written to
	open     map[*link]struct{}
}

// hold stops each connection to a node once it has carried so many bytes.
type hold struct {
	after int
	over  chan struct{}
}

type link struct {
	net.Conn
	links    *links
	from, to string
	written  atomic.Int64
	ended    chan struct{}
	once     sync.Once
}

func newLinks() *links {
	return &links{isolated: make(map[string]bool), holds: make(map[string]hold), open: make(map[*link]struct{})}
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
		l := &link{Conn: nc, links: s, from: from, to: address, ended: make(chan struct{})}
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

// Write implements net.Conn.
func (l *link) Write(b []byte) (int, error) {
	l.links.mu.Lock()
	h, held := l.links.holds[l.to]
	l.links.mu.Unlock()
	if held && l.written.Load() >= int64(h.after) {
		select {
		case <-h.over:
		case <-l.ended:
			return 0, net.ErrClosed
		}
	}
	n, err := l.Conn.Write(b)
	l.written.Add(int64(n))
	return n, err
}

// hold stops each connection to a node after so many bytes, until release.
func (s *links) hold(node string, after int) (release func()) {
	over := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[node] = hold{after, over}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.holds, node)
		close(over)
	})
}

// Close implements net.Conn.
func (l *link) Close() error {
	l.once.Do(func() { close(l.ended) })
	l.links.mu.Lock()
	delete(l.links.open, l)
	l.links.mu.Unlock()
	return l.Conn.Close()
}
