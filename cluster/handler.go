package cluster

import (
	"context"
	"errors"
	"fmt"

	"onceq/fsm"
	"onceq/transport"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// commandFieldsMax is more than any command has.
const commandFieldsMax = 64

// handler serves clients: it implements transport.Handler for a Node. Its
// Request runs on the connection's reader and never waits: what goes through
// the log is answered by the goroutine that applies, look-ups by the reader,
// changes of the membership by goroutines of their own.
type handler struct{ n *Node }

var _ transport.Handler = (*handler)(nil)

// Welcome implements transport.Handler.
func (h *handler) Welcome() wire.Welcome {
	w := wire.Welcome{
		Version: wire.Version, Node: h.n.cfg.Name,
		PublishWindow: publishWindow, FrameBytesMax: wire.FrameBytesMax, BodyBytesMax: uint32(h.n.limits.BodyBytesMax),
		Topology: wire.Topology{Group: groupNumber},
	}
	if g := h.n.group.Load(); g != nil {
		w.Cluster, w.Incarnation = h.n.cluster, g.life.incarnation()
		w.Lives = g.life.before()
		w.Topology = g.topology.current()
	}
	return w
}

// Connected implements transport.Handler.
func (h *handler) Connected(c *transport.ServerConn) {
	h.n.hub.connected(c)
	if g := h.n.group.Load(); g != nil {
		// It may have changed since Welcome, and a change after this is pushed.
		c.Push(wire.OpTopology, encoded(g.topology.current()))
	}
}

// Disconnected implements transport.Handler.
func (h *handler) Disconnected(c *transport.ServerConn) {
	h.n.hub.disconnected(c)
	if g := h.n.group.Load(); g != nil {
		g.receives.disconnected(c)
	}
	h.n.backups.disconnected(c)
}

// Request implements transport.Handler.
func (h *handler) Request(c *transport.ServerConn, corr uint32, op wire.Op, payload []byte) {
	h.n.hub.asked(c)
	h.request(c, corr, op, payload)
}

func (h *handler) request(c conn, corr uint32, op wire.Op, payload []byte) {
	g := h.n.group.Load()
	if g == nil {
		c.Error(corr, wire.ErrorReply{Code: wire.CodeNoLeader, Retriable: true,
			Text: "the node is not a member of a cluster yet: it waits for other nodes"})
		return
	}
	switch op {
	case wire.OpOpenSession, wire.OpCloseSession, wire.OpPublish, wire.OpSeal, wire.OpAttach, wire.OpLeave, wire.OpSettle,
		wire.OpQueueCreate, wire.OpQueueDelete, wire.OpQueuePurge, wire.OpQueueUpdate, wire.OpQueuePause,
		wire.OpEdit, wire.OpAckPublish, wire.OpReceive, wire.OpRelease, wire.OpRestoreBegin, wire.OpRestoreChunk, wire.OpRestoreEnd:
		g.command(c, corr, op, payload)
	case wire.OpCommitted:
		g.committed(c, corr, payload)
	case wire.OpBackupOpen:
		h.n.backups.begin(g, c, corr, payload)
	case wire.OpBackupRead:
		h.n.backups.read(c, corr, payload)
	case wire.OpOutcome:
		g.outcome(c, corr, payload)
	case wire.OpQueueShow:
		g.queueShow(c, corr, payload)
	case wire.OpQueueList:
		g.queueList(c, corr, payload)
	case wire.OpPeek:
		g.peek(c, corr, payload)
	case wire.OpMessageShow:
		g.messageShow(c, corr, payload)
	case wire.OpConsumers:
		g.consumersList(c, corr, payload)
	case wire.OpSessions:
		g.sessionsList(c, corr, payload)
	case wire.OpRedrive:
		h.redriveRequest(g, c, corr, payload)
	case wire.OpNodeStatus:
		if _, err := wire.DecodeNodeStatusRequest(payload); err != nil {
			c.Error(corr, *malformed(err))
			return
		}
		c.Reply(corr, op, encoded(h.n.Status()))
	case wire.OpDigest:
		g.digestRequest(c, corr, payload)
	case wire.OpMembers:
		if _, err := wire.DecodeMembersRequest(payload); err != nil {
			c.Error(corr, *malformed(err))
			return
		}
		c.Reply(corr, op, encoded(g.steward.members()))
	case wire.OpMemberAdd, wire.OpMemberRemove, wire.OpMemberTransfer:
		h.memberChange(g, c, corr, op, payload)
	default:
		c.Error(corr, wire.ErrorReply{Code: wire.CodeUnknownOp, Text: fmt.Sprintf("unknown request %d", op)})
	}
}

func malformed(err error) *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeMalformed, Text: err.Error()}
}

// command checks a client's command and queues it for the log.
func (g *group) command(c conn, corr uint32, op wire.Op, payload []byte) {
	kind := fsm.Kind(op)
	if refused := g.foreign(op, payload); refused != nil {
		c.Error(corr, *refused)
		return
	}
	if refused := g.version.refuses(kind); refused != nil && g.lead.serving() {
		c.Error(corr, *refused)
		return
	}
	if err := fsm.Check(kind, payload, g.limits); err != nil {
		c.Error(corr, *refusedByCheck(err))
		return
	}
	if refused := g.disk.refuses(op, payload); refused != nil {
		c.Error(corr, *refused)
		return
	}
	done := func(o outcome) {
		if o.Err != nil {
			c.Error(corr, *o.Err)
			return
		}
		reply, refused := commandReply(o.Result)
		if refused != nil {
			c.Error(corr, *refused)
			return
		}
		c.Reply(corr, op, reply)
	}
	switch op {
	case wire.OpReceive, wire.OpRelease:
		g.pull(c, corr, op, payload)
	case wire.OpAttach:
		g.attach(payload, c, done)
	case wire.OpLeave:
		g.leave(payload, done)
	default:
		g.proposer.submit(kind, payload, done)
	}
}

// foreign refuses what is meant for another cluster, another life of this one,
// or another group, before it costs room in the log. Every command begins with
// the incarnation and the group. What the machine may still have an answer to
// from before a restore goes on to it.
func (g *group) foreign(op wire.Op, payload []byte) *wire.ErrorReply {
	r := pack.NewReader(payload)
	r.Array(commandFieldsMax)
	incarnation, number := r.Uint(), r.Uint32()
	switch {
	case r.Err() != nil:
		return malformed(r.Err())
	case number != groupNumber:
		e := wrongGroup(number)
		return &e
	case incarnation == g.life.incarnation(), g.life.lived(incarnation) && answeredAfterRestore(op):
		return nil
	}
	return &wire.ErrorReply{Code: wire.CodeWrongCluster,
		Text: "the request is for another cluster, or from before this one was restored"}
}

// answeredAfterRestore names what a client may ask with an incarnation from
// before: copies of publishes, which may have a record, and the steps of a
// restore, whose last one may have been taken.
func answeredAfterRestore(op wire.Op) bool {
	switch op {
	case wire.OpPublish, wire.OpSeal, wire.OpAckPublish, wire.OpCloseSession,
		wire.OpRestoreBegin, wire.OpRestoreChunk, wire.OpRestoreEnd:
		return true
	}
	return false
}

// attach registers the consumer on this connection when its attachment was
// applied: after the answer, before the deliveries.
func (g *group) attach(payload []byte, c conn, done func(outcome)) {
	m, err := wire.DecodeAttach(payload)
	if err != nil {
		done(outcome{Err: malformed(err)})
		return
	}
	g.proposer.submit(fsm.KindAttach, payload, func(o outcome) {
		done(o)
		if o.Err == nil && o.Result.Status == fsm.StatusOK {
			g.hub.register(c, fsm.ConsumerID(m.Consumer), m.N)
		}
	})
}

func (g *group) leave(payload []byte, done func(outcome)) {
	m, err := wire.DecodeLeave(payload)
	if err != nil {
		done(outcome{Err: malformed(err)})
		return
	}
	g.proposer.submit(fsm.KindLeave, payload, func(o outcome) {
		done(o)
		if o.Err == nil && o.Result.Status == fsm.StatusOK {
			g.hub.unregister(fsm.ConsumerID(m.Consumer), m.N)
		}
	})
}

// pull passes on what a puller asks for, which may wait.
func (g *group) pull(c conn, corr uint32, op wire.Op, payload []byte) {
	if op == wire.OpReceive {
		m, err := wire.DecodeReceive(payload)
		if err != nil {
			c.Error(corr, *malformed(err))
			return
		}
		g.receives.receive(c, corr, payload, m)
		return
	}
	m, err := wire.DecodeRelease(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	g.receives.release(c, corr, payload, m)
}

// barren looks whether a receive would find nothing, if that can be done at once.
func (g *group) barren(m *wire.Receive) bool {
	if !g.mu.TryRLock() {
		return false
	}
	defer g.mu.RUnlock()
	return g.machine.Barren(m.Queue, fsm.ConsumerID(m.Consumer), m.First)
}

func refusedByCheck(err error) *wire.ErrorReply {
	var check *fsm.CheckError
	if !errors.As(err, &check) {
		return malformed(err)
	}
	if check.Settings { // an operator's mistake, not one of a client's bytes
		return &wire.ErrorReply{Code: wire.CodeBadSettings, Text: check.Text}
	}
	return &wire.ErrorReply{Code: wire.CodeOf(wire.Status(check.Status)), Text: check.Text}
}

func (g *group) outcome(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeOutcome(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	if m.Group != groupNumber {
		c.Error(corr, wrongGroup(m.Group))
		return
	}
	g.reads.submit(read{
		do: func() {
			r, epoch := g.machine.Outcome(m.Incarnation, m.Session, m.Sequence)
			c.Reply(corr, wire.OpOutcome, encoded(wire.OutcomeReply{Result: publishResult(r), Epoch: epoch}))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	})
}

func wrongGroup(n uint32) wire.ErrorReply {
	return wire.ErrorReply{Code: wire.CodeWrongGroup, Text: fmt.Sprintf("there is no group %d, only group %d", n, groupNumber)}
}

func (g *group) queueShow(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeQueueShow(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	g.reads.submit(read{
		do: func() {
			info, ok := g.machine.QueueByName(m.Name)
			if !ok {
				c.Error(corr, noQueue(m.Name))
				return
			}
			c.Reply(corr, wire.OpQueueShow, encoded(wire.QueueReply{Status: wire.StatusOK, Info: queueInfo(info)}))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	})
}

func (g *group) queueList(c conn, corr uint32, payload []byte) {
	asked, err := wire.DecodeQueueList(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	g.reads.submit(read{
		do: func() {
			found := g.machine.QueuesFrom(asked.From, wire.QueuesMax)
			m := wire.QueuesReply{Queues: make([]wire.QueueInfo, len(found))}
			for i, q := range found {
				m.Queues[i] = queueInfo(q)
			}
			if len(found) == wire.QueuesMax {
				m.Next = found[len(found)-1].Number + 1
			}
			c.Reply(corr, wire.OpQueueList, encoded(m))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	})
}

// digestRequest puts a digest entry into the log, so that every replica notes
// its value at that index.
func (g *group) digestRequest(c conn, corr uint32, payload []byte) {
	if _, err := wire.DecodeDigestRequest(payload); err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	g.propose(fsm.KindDigest, fsm.DigestPayload(), func(o outcome) {
		switch {
		case o.Err != nil:
			c.Error(corr, *o.Err)
		case o.Effects.Digest == nil:
			c.Error(corr, wire.ErrorReply{Code: wire.CodeInternal, Text: "the entry gave no digest"})
		default:
			c.Reply(corr, wire.OpDigest, encoded(wire.DigestReply{Index: o.Effects.Digest.Index, Digest: o.Effects.Digest.Digest}))
		}
	})
}

func (h *handler) memberChange(g *group, c conn, corr uint32, op wire.Op, payload []byte) {
	m, err := wire.DecodeMemberChange(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	started := h.n.spawn(func(ctx context.Context) {
		var refused *wire.ErrorReply
		switch op {
		case wire.OpMemberAdd:
			refused = g.steward.add(ctx, m.Node, m.Seen)
		case wire.OpMemberRemove:
			refused = g.steward.remove(m.Node, m.Seen)
		default:
			// Released when the answer is on its way.
			defer g.topology.hold()()
			refused = g.steward.transfer(m.Node)
		}
		if refused != nil {
			c.Error(corr, *refused)
			return
		}
		c.Reply(corr, op, encoded(wire.StatusReply{Status: wire.StatusOK}))
	})
	if !started {
		c.Error(corr, *errShuttingDown())
	}
}
