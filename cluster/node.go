package cluster

import (
	"context"

	"onceq/transport/wire"
)

// Node is one process of a cluster.
type Node struct{}

// Start opens a node. ctx bounds the opening alone.
func Start(ctx context.Context, cfg Config) (*Node, error) { panic("not yet") }

// Close hands over leadership, leaves gossip and closes everything.
func (n *Node) Close() error { panic("not yet") }

// Kill ends the node without handing anything over, as a crash would, as far
// as that goes within one process.
func (n *Node) Kill() { panic("not yet") }

// Status is what the node knows of itself.
func (n *Node) Status() wire.NodeStatus { panic("not yet") }

// Addr is the address that clients and peers are told to dial.
func (n *Node) Addr() string { panic("not yet") }

// GossipAddr is the address that other nodes join.
func (n *Node) GossipAddr() string { panic("not yet") }

// Done is closed when the node has ended.
func (n *Node) Done() <-chan struct{} { panic("not yet") }
