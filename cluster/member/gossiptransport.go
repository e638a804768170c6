package member

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/hashicorp/memberlist"
)

// gossipBindTries is how often a port is looked for on which TCP and UDP are
// both free, when any will do.
const gossipBindTries = 20

// ListenGossip binds TCP and UDP on one port of an IP address or host name.
// With port 0 it picks one where both are free. The transport ends with
// Gossip.Close, or with its own Shutdown if gossip was never started.
func ListenGossip(bind string, log *slog.Logger) (memberlist.Transport, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	host, portText, err := net.SplitHostPort(bind)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w", bind, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: bad port", bind)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ip, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w", bind, err)
	}
	tries := 1
	if port == 0 {
		tries = gossipBindTries
	}
	for range tries {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{ip.String()}, BindPort: int(port), Logger: memberlistLogger(log),
		})
		if err == nil {
			return newNetGossip(t), nil
		}
	}
	return nil, fmt.Errorf("bind gossip to %s (TCP and UDP on one port): %w", bind, err)
}

// gossipStreamsMax bounds the streams that are open to the gossip port. A node has one to
// another now and then, for a moment; memberlist itself takes as many as come, each for
// some seconds, and the log needs the files that they are.
const gossipStreamsMax = 32

// netGossip is memberlist's transport with a bound on streams, made safe to shut down
// while nobody takes what it receives.
type netGossip struct {
	*memberlist.NetTransport
	streams chan net.Conn
	down    chan struct{}
	end     func() // closes down
	passing sync.WaitGroup

	mu   sync.Mutex    // guards open
	open []*gossipConn // oldest first
}

func newNetGossip(nt *memberlist.NetTransport) *netGossip {
	t := &netGossip{NetTransport: nt, streams: make(chan net.Conn), down: make(chan struct{})}
	t.end = sync.OnceFunc(func() { close(t.down) })
	t.passing.Go(t.pass)
	return t
}

// StreamCh implements memberlist.Transport.
func (t *netGossip) StreamCh() <-chan net.Conn { return t.streams }

func (t *netGossip) pass() {
	for {
		select {
		case nc := <-t.NetTransport.StreamCh():
			c := t.admit(nc)
			select {
			case t.streams <- c:
			case <-t.down:
				c.Close()
			}
		case <-t.down:
			return
		}
	}
}

// admit closes the oldest stream when there are too many: a node needs its own for less
// time than many strangers take to come.
func (t *netGossip) admit(nc net.Conn) *gossipConn {
	c := &gossipConn{Conn: nc, t: t}
	t.mu.Lock()
	var oldest *gossipConn
	if len(t.open) == gossipStreamsMax {
		oldest = t.open[0]
	}
	t.open = append(t.open, c)
	t.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
	return c
}

// gossipConn is a stream that is counted until it is closed.
type gossipConn struct {
	net.Conn
	t *netGossip
}

// Close implements net.Conn.
func (c *gossipConn) Close() error {
	err := c.Conn.Close()
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if i := slices.Index(c.t.open, c); i >= 0 {
		c.t.open = slices.Delete(c.t.open, i, i+1)
	}
	return err
}

// Shutdown implements memberlist.Transport.
func (t *netGossip) Shutdown() error {
	t.end()
	t.passing.Wait()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-t.PacketCh():
			case c := <-t.NetTransport.StreamCh():
				c.Close()
			case <-done:
				return
			}
		}
	}()
	err := t.NetTransport.Shutdown()
	close(done)
	<-ended
	return err
}

// GossipAddress is what other nodes should be told about a transport.
// advertise is a host (an IP address) to name instead of the bound one, "" for
// none.
func GossipAddress(t memberlist.Transport, advertise string) (string, error) {
	ip, port, err := t.FinalAdvertiseAddr("", 0)
	if err != nil {
		return "", fmt.Errorf("gossip address: %w", err)
	}
	host := ip.String()
	if advertise != "" {
		host = advertise
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// addressOnly hides that a transport can find nodes by name. Our gossip names
// change with each start of a process, see gossipName; addresses always work.
type addressOnly struct{ memberlist.Transport }
