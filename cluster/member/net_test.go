package member

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
)

// testNet connects streams in memory.
type testNet struct {
	mu        sync.Mutex
	listeners map[string]*testListener
	down      map[string]bool
}

func newTestNet() *testNet {
	return &testNet{listeners: make(map[string]*testListener), down: make(map[string]bool)}
}

type testListener struct {
	net   *testNet
	addr  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (n *testNet) listen(addr string) *testListener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		panic("in use: " + addr)
	}
	l := &testListener{net: n, addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[addr] = l
	return l
}

func (n *testNet) setDown(addr string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[addr] = down
}

func (n *testNet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	if n.down[addr] {
		l = nil
	}
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("%s: connection refused", addr)
	}
	a, b := net.Pipe()
	select {
	case l.conns <- b:
		return a, nil
	case <-l.done:
		return nil, fmt.Errorf("%s: connection refused", addr)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dialFrom is the dialer of a node: a node that is down reaches nobody.
func (n *testNet) dialFrom(from string) DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.mu.Lock()
		down := n.down[from]
		n.mu.Unlock()
		if down {
			return nil, fmt.Errorf("%s: network is down", from)
		}
		return n.dial(ctx, network, addr)
	}
}

func (l *testListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *testListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
	})
	return nil
}

func (l *testListener) Addr() net.Addr { return nodeAddr(l.addr) }

func testLogger(t *testing.T) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("test", t.Name())
}

// testNode is a directory with its streams.
type testNode struct {
	t       *testing.T
	net     *testNet
	path    string
	name    string
	addr    string
	gossip  string
	key     []byte
	dir     *Dir
	streams *Streams
}

func newTestNode(t *testing.T, n *testNet, name string) *testNode {
	tn := &testNode{t: t, net: n, path: t.TempDir(), name: name, addr: name + ":7450"}
	t.Cleanup(tn.stop)
	return tn
}

func (n *testNode) start() *testNode {
	n.t.Helper()
	n.dir = openDir(n.t, n.path, n.name, n.key)
	var err error
	n.streams, err = NewStreams(StreamConfig{
		Dir: n.dir, Listener: n.net.listen(n.addr), Dial: n.net.dialFrom(n.addr), Address: n.addr, GossipAddress: n.gossip,
		Enroll: EnrollOpen, Logger: testLogger(n.t).With("node", n.name),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return n
}

func (n *testNode) stop() {
	if n.streams != nil {
		n.streams.Close()
	}
	if n.dir != nil {
		n.dir.Close()
	}
}

// enter puts the node into a cluster.
func (n *testNode) enter(c ClusterInfo) *testNode {
	n.t.Helper()
	if err := n.dir.update(func(id *Identity) error { id.Stage, id.Cluster = StageMember, c; return nil }); err != nil {
		n.t.Fatal(err)
	}
	return n
}
