package clustertest

import (
	"net"
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
