package transporttest

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// backlogMax bounds the connections that wait to be accepted by a listener.
const backlogMax = 128

// Network connects hosts.
type Network struct {
	mu sync.Mutex // guards all of the network, its listeners and connections
	// changed is closed and replaced whenever a dial that waits may go on.
	changed   chan struct{}
	listeners map[string]*listener
	conns     map[*conn]struct{} // both ends of each
	// cut has the links, from and to, that let nothing through.
	cut      map[[2]string]struct{}
	isolated map[string]struct{}
	off      map[string]struct{} // hosts without power
	delay    time.Duration
	lastPort int
}

// NewNetwork returns a network on which everybody reaches everybody at once.
func NewNetwork() *Network {
	return &Network{
		changed:   make(chan struct{}),
		listeners: make(map[string]*listener),
		conns:     make(map[*conn]struct{}),
		cut:       make(map[[2]string]struct{}),
		isolated:  make(map[string]struct{}),
		off:       make(map[string]struct{}),
		lastPort:  40_000,
	}
}

func hostOf(addr string) string {
	host, _, _ := strings.Cut(addr, ":")
	return host
}

// Listen listens at addr, "n1:7450". Port 0 takes a free one.
func (n *Network) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.HasSuffix(addr, ":0") {
		addr = n.newAddr(hostOf(addr))
	}
	if _, taken := n.listeners[addr]; taken {
		return nil, opError("listen", addr, syscall.EADDRINUSE)
	}
	l := &listener{n: n, addr: Addr(addr), stop: make(chan struct{}), ready: make(chan *conn, backlogMax)}
	n.listeners[addr] = l
	n.announce()
	return l, nil
}

func (n *Network) newAddr(host string) string {
	n.lastPort++
	return host + ":" + strconv.Itoa(n.lastPort)
}

// Dialer returns a function that dials from a host.
func (n *Network) Dialer(fromHost string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := n.dial(ctx, fromHost, addr)
		if err != nil {
			return nil, opError("dial", addr, err)
		}
		return c, nil
	}
}

func (n *Network) dial(ctx context.Context, from, addr string) (*conn, error) {
	to := hostOf(addr)
	for {
		n.mu.Lock()
		if err := ctx.Err(); err != nil {
			n.mu.Unlock()
			return nil, err
		}
		changed, delay := n.changed, n.delay
		if n.open(from, to) && n.open(to, from) {
			c, err := n.connect(from, addr)
			n.mu.Unlock()
			if err == nil && delay > 0 {
				err = sleep(ctx, 2*delay) // there and back
				if err != nil {
					_ = c.Close()
				}
			}
			if err != nil {
				return nil, err
			}
			return c, nil
		}
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// connect makes a connection and queues its other end at the listener.
func (n *Network) connect(from, addr string) (*conn, error) {
	l := n.listeners[addr]
	if l == nil || len(l.ready) == cap(l.ready) {
		return nil, syscall.ECONNREFUSED
	}
	local := n.newAddr(from)
	there, back := newPipe(n, from, hostOf(addr)), newPipe(n, hostOf(addr), from)
	near := &conn{n: n, local: Addr(local), remote: Addr(addr), in: back, out: there}
	far := &conn{n: n, local: Addr(addr), remote: Addr(local), in: there, out: back}
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	l.ready <- far // has room
	return near, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open says whether the link lets through. The caller holds mu.
func (n *Network) open(from, to string) bool {
	if from == to {
		return true
	}
	_, cut := n.cut[[2]string{from, to}]
	_, a := n.isolated[from]
	_, b := n.isolated[to]
	_, c := n.off[from]
	_, d := n.off[to]
	return !cut && !a && !b && !c && !d
}

// announce wakes what may go on after a change. The caller holds mu.
func (n *Network) announce() {
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.conns {
		c.in.relink()
	}
}

// Cut stops everything that goes from a to b. The other direction is not
// touched.
func (n *Network) Cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{a, b}] = struct{}{}
	n.announce()
}

// CutBoth stops everything between a and b.
func (n *Network) CutBoth(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{a, b}] = struct{}{}
	n.cut[[2]string{b, a}] = struct{}{}
	n.announce()
}

// Isolate stops everything to and from a host, also of hosts that come later.
func (n *Network) Isolate(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isolated[host] = struct{}{}
	n.announce()
}

// Heal undoes every Cut and Isolate. What had stalled arrives now.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	clear(n.isolated)
	n.announce()
}

// SetDelay makes what is written from now on arrive later by d.
func (n *Network) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// Reset breaks every connection of a host, at both ends, also over links that
// are cut.
func (n *Network) Reset(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reset(host)
}

func (n *Network) reset(host string) {
	for c := range n.conns {
		if hostOf(string(c.local)) == host || hostOf(string(c.remote)) == host {
			c.in.fail(syscall.ECONNRESET)
			c.out.fail(syscall.ECONNRESET)
		}
	}
}

// Restart is what the network sees of a host whose process dies: its listeners
// close and its connections break. The host can listen again.
func (n *Network) Restart(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr, l := range n.listeners {
		if hostOf(addr) == host {
			l.close()
		}
	}
	n.reset(host)
}

// PowerOff breaks a host's connections, and nothing that its process still does leaves it.
// The process sees nothing of it but that. Heal does not change that.
func (n *Network) PowerOff(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off[host] = struct{}{}
	n.reset(host)
	n.announce()
}

// PowerOn ends it.
func (n *Network) PowerOn(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.off, host)
	n.announce()
}

// Conns is the number of ends of connections that are open, to see leaks.
func (n *Network) Conns() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// Addr is an address on a Network.
type Addr string

func (Addr) Network() string  { return "memory" }
func (a Addr) String() string { return string(a) }

func opError(op, addr string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Addr: Addr(addr), Err: err}
}

// listener accepts connections at one address.
type listener struct {
	n      *Network
	addr   Addr
	ready  chan *conn
	stop   chan struct{}
	closed bool // guarded by n.mu
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.stop:
		return nil, opError("accept", string(l.addr), net.ErrClosed)
	default:
	}
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.stop:
		return nil, opError("accept", string(l.addr), net.ErrClosed)
	}
}

func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.closed {
		return opError("close", string(l.addr), net.ErrClosed)
	}
	l.close()
	return nil
}

// close also breaks what was not accepted. The caller holds n.mu.
func (l *listener) close() {
	l.closed = true
	close(l.stop)
	delete(l.n.listeners, string(l.addr))
	for {
		select {
		case c := <-l.ready:
			c.in.fail(syscall.ECONNRESET)
			c.out.fail(syscall.ECONNRESET)
			delete(l.n.conns, c)
		default:
			return
		}
	}
}

func (l *listener) Addr() net.Addr { return l.addr }
