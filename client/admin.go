package client

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// What the cluster tells about itself.
type (
	// QueueSettings are the settings of a queue; zero fields take the default:
	// LeaseTime (30 s), LengthMax and BytesMax (no limit; BytesMax counts what was not
	// delivered yet, so no dead letters: bound their queue by LengthMax), TTL (for ever),
	// DeliveryLimit (attempts that may fail; no limit), DeadLetter (a queue's name;
	// without one what is given up is parked), BackoffMin and BackoffMax (100 ms to
	// 1 min after a failure; below 0 none), SingleActive.
	QueueSettings = wire.QueueSettings
	// QueueInfo is what the machine knows of a queue.
	QueueInfo = wire.QueueInfo
	// QueueCounts counts a queue's messages by state.
	QueueCounts = wire.QueueCounts
	// NodeStatus is what one node knows of itself.
	NodeStatus = wire.NodeStatus
	// Members are the members of the cluster.
	Members = wire.Members
	// Member is one of them.
	Member = wire.Member
)

// Admin holds the calls that manage a cluster. Each tries until it has an answer
// or ctx ends.
type Admin struct{ c *Client }

// Admin returns the management calls of c.
func (c *Client) Admin() *Admin { return &Admin{c} }

// CreateQueue creates a queue if absent. If there is one with other settings,
// ErrConflict names them.
func (a *Admin) CreateQueue(ctx context.Context, name string, s QueueSettings) (QueueInfo, error) {
	if !wire.ValidQueueName(name) {
		return QueueInfo{}, newError(wire.CodeBadName, "queue name %.300q: write 1 to %d letters, digits, dots, underscores and hyphens", name, wire.QueueNameBytesMax)
	}
	incarnation, group := a.c.topo.identity()
	request := wire.QueueCreate{Incarnation: incarnation, Group: group, Name: name, Deletions: a.c.deletions.Load(), Settings: s}
	for {
		r, err := a.queue(ctx, wire.OpQueueCreate, request, name)
		if !errors.Is(err, ErrRevision) || r.Deletions <= request.Deletions {
			return r.Info, err
		}
		// Queues were deleted since this client looked, maybe one of that name.
		request.Deletions = r.Deletions
		a.c.deletions.Store(r.Deletions)
	}
}

// Queue shows one queue.
func (a *Admin) Queue(ctx context.Context, name string) (QueueInfo, error) {
	payload, err := a.c.read(ctx, wire.OpQueueShow, wire.QueueShow{Name: name}.Append)
	if err != nil {
		return QueueInfo{}, err
	}
	r, err := a.queueAnswer(wire.OpQueueShow, payload, false, name)
	return r.Info, err
}

// Queues lists all queues by name.
func (a *Admin) Queues(ctx context.Context) ([]QueueInfo, error) {
	var all []QueueInfo
	for from := uint64(1); from != 0; {
		payload, err := a.c.read(ctx, wire.OpQueueList, wire.QueueList{From: from}.Append)
		if err != nil {
			return nil, err
		}
		r, err := wire.DecodeQueuesReply(payload)
		if err != nil {
			return nil, err
		}
		all = append(all, r.Queues...)
		if r.Next != 0 && r.Next <= from {
			return nil, newError(wire.CodeInternal, "the list of queues goes on at %d after %d", r.Next, from)
		}
		from = r.Next
	}
	slices.SortFunc(all, func(a, b QueueInfo) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// DeleteQueue deletes a queue and returns how many messages went with it. One that
// takes the dead letters of another is not deleted: ErrConflict.
func (a *Admin) DeleteQueue(ctx context.Context, name string) (uint64, error) {
	return a.delete(ctx, name, false)
}

// ForceDeleteQueue deletes a queue also when it takes the dead letters of another,
// whose dead letters are parked from then on.
func (a *Admin) ForceDeleteQueue(ctx context.Context, name string) (uint64, error) {
	return a.delete(ctx, name, true)
}

func (a *Admin) delete(ctx context.Context, name string, force bool) (uint64, error) {
	info, err := a.Queue(ctx, name)
	if err != nil {
		return 0, err
	}
	incarnation, group := a.c.topo.identity()
	r, err := a.queue(ctx, wire.OpQueueDelete, wire.QueueDelete{Incarnation: incarnation, Group: group, Number: info.Number, Force: force}, name)
	if answered(err, wire.CodeNoQueue) {
		// It was there a moment ago and is not now: an earlier copy of this request,
		// or somebody else, has deleted it.
		return 0, nil
	}
	return r.Removed, err
}

// PurgeQueue removes every message of a queue and returns how many. ErrRevision
// means that the queue was changed meanwhile and nothing was removed.
func (a *Admin) PurgeQueue(ctx context.Context, name string) (uint64, error) {
	info, err := a.Queue(ctx, name)
	if err != nil {
		return 0, err
	}
	incarnation, group := a.c.topo.identity()
	request := wire.QueuePurge{Incarnation: incarnation, Group: group, Number: info.Number, Revision: info.Revision}
	_, _ = rand.Read(request.Nonce[:]) // never fails
	r, err := a.queue(ctx, wire.OpQueuePurge, request, name)
	return r.Removed, err
}

func (a *Admin) queue(ctx context.Context, op wire.Op, request interface{ Append(w *pack.Writer) }, name string) (wire.QueueReply, error) {
	payload, unknown, err := a.c.try(ctx, op, request.Append)
	if err != nil {
		return wire.QueueReply{}, err
	}
	return a.queueAnswer(op, payload, unknown, name)
}

func (a *Admin) queueAnswer(op wire.Op, payload []byte, unknown bool, name string) (wire.QueueReply, error) {
	r, err := wire.DecodeQueueReply(payload)
	switch {
	case err != nil:
		return wire.QueueReply{}, err
	case unknown && (r.Status == wire.StatusConflict && op == wire.OpQueueDelete || r.Status == wire.StatusQueueCap):
		return r, stillOpen(statusError(r.Status, "queue "+name))
	case r.Status == wire.StatusConflict && op == wire.OpQueueDelete:
		return r, newError(wire.CodeConflict, "queue %s is not deleted: %s: change that queue first, or force it", name, r.Text)
	case r.Status == wire.StatusConflict:
		return r, newError(wire.CodeConflict, "queue %s exists with other settings (%s): use the same, or another name", name, r.Text)
	case r.Status != wire.StatusOK:
		return r, statusError(r.Status, "queue "+name)
	}
	a.c.learnQueue(r.Info.Number, r.Info.Name)
	return r, nil
}

// NodeReport is the answer of one node, or why there is none.
type NodeReport struct {
	Node    string
	Address string
	Status  NodeStatus
	Err     error
}

// Nodes asks each node what it knows of itself, at the same time. The error says
// why no node is known; a node that does not answer has its own.
func (a *Admin) Nodes(ctx context.Context) ([]NodeReport, error) {
	if !a.c.enter() {
		return nil, ErrClosed
	}
	defer a.c.wg.Done()
	nodes := a.c.topo.nodes()
	if len(nodes) == 0 {
		return nil, newError(wire.CodeUnreachable, "no node is known yet")
	}
	reports := make([]NodeReport, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			st, err := a.c.nodeStatus(ctx, n.Address)
			reports[i] = NodeReport{Node: n.Name, Address: n.Address, Status: st, Err: err}
		})
	}
	wg.Wait()
	return reports, nil
}

func (c *Client) nodeStatus(ctx context.Context, address string) (NodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	cn, err := c.connect(ctx, address)
	if err != nil {
		return NodeStatus{}, err
	}
	defer cn.close()
	payload, err := cn.call(ctx, wire.OpNodeStatus, wire.NodeStatusRequest{}.Append)
	if err != nil {
		return NodeStatus{}, err
	}
	return wire.DecodeNodeStatus(payload)
}

// Digest puts a digest entry into the log and returns the leader's value at its
// index. Nodes tells the other nodes' values.
func (a *Admin) Digest(ctx context.Context) (index, digest uint64, err error) {
	payload, err := a.c.ask(ctx, wire.OpDigest, wire.DigestRequest{}.Append)
	if err != nil {
		return 0, 0, err
	}
	r, err := wire.DecodeDigestReply(payload)
	return r.Index, r.Digest, err
}

// Members lists the members of the cluster.
func (a *Admin) Members(ctx context.Context) (Members, error) {
	payload, err := a.c.read(ctx, wire.OpMembers, wire.MembersRequest{}.Append)
	if err != nil {
		return Members{}, err
	}
	return wire.DecodeMembers(payload)
}

// AddMember makes a node a voter.
func (a *Admin) AddMember(ctx context.Context, node string) error {
	return a.change(ctx, wire.OpMemberAdd, node)
}

// RemoveMember removes a node. A node that is not a member (any more) is fine.
func (a *Admin) RemoveMember(ctx context.Context, node string) error {
	return a.change(ctx, wire.OpMemberRemove, node)
}

// TransferLeadership hands leadership to node, or to one that raft chooses when
// node is "". It is not repeated when its answer is lost.
func (a *Admin) TransferLeadership(ctx context.Context, node string) error {
	if !a.c.enter() {
		return ErrClosed
	}
	defer a.c.wg.Done()
	leader, err := a.c.produce.ready(ctx)
	if err != nil {
		return err
	}
	// On a connection of its own: the link's goes as soon as leadership does, and
	// the answer with it.
	cn, err := a.c.connect(ctx, leader.address)
	if err != nil {
		return err
	}
	defer cn.close()
	payload, err := cn.call(ctx, wire.OpMemberTransfer, wire.MemberChange{Node: node}.Append)
	if errors.Is(err, errLost) || err != nil && answerOf(err) == nil && ctx.Err() != nil {
		return newError(wire.CodeOutcomeUnknown, "leadership may or may not have moved: look at the members").because(err)
	}
	return statusOf(payload, err, node)
}

// change names the members that it has seen: a late copy has no effect on others.
func (a *Admin) change(ctx context.Context, op wire.Op, node string) error {
	members, err := a.Members(ctx)
	if err != nil {
		return err
	}
	payload, unknown, err := a.c.try(ctx, op, wire.MemberChange{Node: node, Seen: members.Index}.Append)
	if unknown && op == wire.OpMemberRemove && answered(err, wire.CodeNoNode) {
		return nil // an earlier copy has removed it
	}
	return statusOf(payload, err, node)
}

// stillOpen is the error of a request that was refused while an earlier copy of it
// may be on its way.
func stillOpen(refused error) error {
	return newError(wire.CodeOutcomeUnknown, "it was refused, and an earlier copy of the request may be carried out yet: look again").because(refused)
}

func statusOf(payload []byte, err error, what string) error {
	if err != nil {
		return err
	}
	r, err := wire.DecodeStatusReply(payload)
	if err == nil && r.Status != wire.StatusOK {
		err = statusError(r.Status, what)
	}
	return err
}
