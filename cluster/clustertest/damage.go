package clustertest

import (
	"context"
	"net"
	"strings"

	"onceq/cluster"
)

// TryRestart starts a node that is down and that may refuse: it was damaged.
func (c *Cluster) TryRestart(n *Node) error {
	c.t.Helper()
	l, err := net.Listen("tcp", n.Address)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.start(n, l)
}

// TryJoin starts one more node that the cluster may refuse, and ends it again when it
// was taken in. ctx bounds how long it tries.
func (c *Cluster) TryJoin(ctx context.Context, opts ...Option) error {
	c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	known := c.Addresses()
	n := c.add(len(c.nodes), l, 0, opts)
	c.nodes = c.nodes[:len(c.nodes)-1]
	n.config.Join, n.config.Listener = known, l
	node, err := cluster.Start(ctx, n.config)
	if err != nil {
		return err
	}
	return node.Close()
}

// Logged says whether a node has logged a text.
func (c *Cluster) Logged(text string) bool { return strings.Contains(c.logs.String(), text) }
