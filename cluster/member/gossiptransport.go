package member

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"

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
			return &netGossip{NetTransport: t}, nil
		}
	}
	return nil, fmt.Errorf("bind gossip to %s (TCP and UDP on one port): %w", bind, err)
}

// netGossip is memberlist's transport, made safe to shut down while nobody
// takes what it receives.
type netGossip struct{ *memberlist.NetTransport }

func (t *netGossip) Shutdown() error {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-t.PacketCh():
			case c := <-t.StreamCh():
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
