package client

import (
	"context"
	"log/slog"
	"net"
)

// Dialer opens a network connection, like (*net.Dialer).DialContext.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

type options struct {
	logger *slog.Logger
	dial   Dialer
	label  string
}

// Option changes how Dial makes a Client.
type Option func(*options)

// WithLogger makes the client log to l. The default discards.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// WithDialer makes the client open its connections with d. The default is a
// net.Dialer.
func WithDialer(d func(ctx context.Context, network, address string) (net.Conn, error)) Option {
	return func(o *options) { o.dial = d }
}

// WithLabel sets a text that servers show for this client in logs and listings.
func WithLabel(label string) Option { return func(o *options) { o.label = label } }

// Client is a connection to a cluster. It is safe for concurrent use.
type Client struct {
	o options
}

// Dial connects to a cluster of which url names one or more nodes:
// "onceq://h1:7450,h2:7450" or "h1:7450,h2:7450". It finds the other nodes and
// follows the leader.
func Dial(ctx context.Context, url string, opts ...Option) (*Client, error) {
	return nil, ErrUnreachable
}

// Close ends everything that the client has started and waits for it.
func (c *Client) Close() error { return nil }

// Cluster is the id of the cluster.
func (c *Client) Cluster() string { return "" }

// Stats returns counters since Dial.
func (c *Client) Stats() Stats { return Stats{} }

// Stats counts what a client has been through.
type Stats struct {
	LeaderChanges uint64 // seen by this client after the first leader
	Connects      uint64 // connections made, the first included
	ConnectErrors uint64 // attempts that failed
}
