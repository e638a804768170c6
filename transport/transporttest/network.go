package transporttest

import (
	"context"
	"net"
	"time"
)

// Network is an in-memory network.
type Network struct{}

func NewNetwork() *Network                                  { panic("stub") }
func (n *Network) Listen(addr string) (net.Listener, error) { panic("stub") }
func (n *Network) Dialer(fromHost string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	panic("stub")
}
func (n *Network) Cut(a, b string)          { panic("stub") }
func (n *Network) CutBoth(a, b string)      { panic("stub") }
func (n *Network) Heal()                    { panic("stub") }
func (n *Network) Isolate(host string)      { panic("stub") }
func (n *Network) Reset(host string)        { panic("stub") }
func (n *Network) SetDelay(d time.Duration) { panic("stub") }
