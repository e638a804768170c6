// Package membertest has what tests of node membership need: a network for
// gossip that lives in memory and works in a testing/synctest bubble.
package membertest

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// packetsMax is how many packets a transport keeps for a receiver that is
// behind; more are lost, as they are with UDP.
const packetsMax = 1024

// GossipNet connects memberlist transports in memory. Unlike
// memberlist.MockNetwork it survives nodes that go away: a packet for one that
// is gone is lost, a stream to it is refused, and neither blocks the sender for
// ever.
type GossipNet struct {
	mu       sync.Mutex // guards what follows
	byAddr   map[string]*GossipTransport
	isolated map[string]bool
}

// NewGossipNet returns a network without nodes.
func NewGossipNet() *GossipNet {
	return &GossipNet{byAddr: make(map[string]*GossipTransport), isolated: make(map[string]bool)}
}

// Transport binds an address, an IP and a port such as "10.0.0.1:7946". It
// panics if the address is taken.
func (n *GossipNet) Transport(addr string) *GossipTransport {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	ip := net.ParseIP(host)
	port, err := strconv.Atoi(portText)
	if ip == nil || err != nil {
		panic(fmt.Sprintf("gossip address %q is not IP:port", addr))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byAddr[addr] != nil {
		panic("gossip address in use: " + addr)
	}
	t := &GossipTransport{
		net: n, addr: addr, ip: ip, port: port,
		packets: make(chan *memberlist.Packet, packetsMax), streams: make(chan net.Conn),
		done: make(chan struct{}),
	}
	n.byAddr[addr] = t
	return t
}

// Isolate loses everything from and to an address until Heal.
func (n *GossipNet) Isolate(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isolated[addr] = true
}

// Heal ends Isolate.
func (n *GossipNet) Heal(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.isolated, addr)
}

// route finds the transport at an address; lost says that nothing gets there.
func (n *GossipNet) route(from, to string) (t *GossipTransport, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byAddr[to], n.isolated[from] || n.isolated[to]
}

// GossipTransport is one node's memberlist.Transport.
type GossipTransport struct {
	net     *GossipNet
	addr    string
	ip      net.IP
	port    int
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	once    sync.Once
}

var _ memberlist.Transport = (*GossipTransport)(nil)

type gossipAddr string

func (gossipAddr) Network() string  { return "gossip" }
func (a gossipAddr) String() string { return string(a) }

// FinalAdvertiseAddr answers the bound address.
func (t *GossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.ip, t.port, nil
}

// WriteTo sends a packet, or loses it.
func (t *GossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	select {
	case <-t.done:
		return now, net.ErrClosed
	default:
	}
	to, lost := t.net.route(t.addr, addr)
	if to == nil || lost {
		return now, nil
	}
	select {
	case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: gossipAddr(t.addr), Timestamp: now}:
	default:
	}
	return now, nil
}

// PacketCh is where packets arrive.
func (t *GossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout opens a stream. To an isolated address it waits for the time-out.
func (t *GossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, lost := t.net.route(t.addr, addr)
	if to == nil && !lost {
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	if lost {
		select {
		case <-timer.C:
			return nil, fmt.Errorf("dial %s: timed out", addr)
		case <-t.done:
			return nil, net.ErrClosed
		}
	}
	here, there := net.Pipe()
	select {
	case to.streams <- there:
		return here, nil
	case <-to.done:
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	case <-timer.C:
		return nil, fmt.Errorf("dial %s: timed out", addr)
	case <-t.done:
		return nil, net.ErrClosed
	}
}

// StreamCh is where streams arrive.
func (t *GossipTransport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown frees the address.
func (t *GossipTransport) Shutdown() error {
	t.once.Do(func() {
		close(t.done)
		t.net.mu.Lock()
		delete(t.net.byAddr, t.addr)
		t.net.mu.Unlock()
	})
	return nil
}

// Drain lets a minute of virtual time pass. memberlist's Shutdown does not wait
// for the probes that are under way, and time in a synctest bubble stands still
// once the test function has returned: a test in a bubble calls Drain last, or
// the bubble takes those probes for deadlocked. What still runs after it is a
// leak.
func Drain() { time.Sleep(time.Minute) }
