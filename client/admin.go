package client

import (
	"context"

	"onceq/transport/wire"
)

// What the cluster tells about itself.
type (
	QueueSettings = wire.QueueSettings
	QueueInfo     = wire.QueueInfo
	QueueCounts   = wire.QueueCounts
	NodeStatus    = wire.NodeStatus
	Members       = wire.Members
	Member        = wire.Member
)

// Admin holds the calls that manage a cluster.
type Admin struct{ c *Client }

// Admin returns the management calls of c.
func (c *Client) Admin() *Admin { return &Admin{c} }

// NodeReport is the answer of one node, or why there is none.
type NodeReport struct {
	Node    string
	Address string
	Status  NodeStatus
	Err     error
}

// CreateQueue creates a queue if absent; with other settings than an existing
// one has, ErrConflict names them.
func (a *Admin) CreateQueue(ctx context.Context, name string, s QueueSettings) (QueueInfo, error) {
	return QueueInfo{}, ErrClosed
}

// Queue shows one queue.
func (a *Admin) Queue(ctx context.Context, name string) (QueueInfo, error) {
	return QueueInfo{}, ErrClosed
}

// Queues lists all queues by name.
func (a *Admin) Queues(ctx context.Context) ([]QueueInfo, error) { return nil, ErrClosed }

// DeleteQueue deletes a queue and returns how many messages went with it.
func (a *Admin) DeleteQueue(ctx context.Context, name string) (uint64, error) { return 0, ErrClosed }

// PurgeQueue removes every message of a queue and returns how many.
func (a *Admin) PurgeQueue(ctx context.Context, name string) (uint64, error) { return 0, ErrClosed }

// Nodes asks each node what it knows of itself.
func (a *Admin) Nodes(ctx context.Context) ([]NodeReport, error) { return nil, ErrClosed }

// Digest puts a digest entry into the log.
func (a *Admin) Digest(ctx context.Context) (index, digest uint64, err error) {
	return 0, 0, ErrClosed
}

// Members lists the members of the cluster.
func (a *Admin) Members(ctx context.Context) (Members, error) { return Members{}, ErrClosed }

// AddMember makes a node a voter.
func (a *Admin) AddMember(ctx context.Context, node string) error { return ErrClosed }

// RemoveMember removes a node.
func (a *Admin) RemoveMember(ctx context.Context, node string) error { return ErrClosed }

// TransferLeadership hands leadership to node, or to one that raft chooses when
// node is "".
func (a *Admin) TransferLeadership(ctx context.Context, node string) error { return ErrClosed }
