package cluster

import (
	"fmt"

	"onceq/fsm"
	"onceq/transport/wire"
)

// peekFrameBytes is about how much of the messages themselves one answer holds.
const peekFrameBytes = 4 << 20

// noQueue answers who looks into a queue that is not there.
func noQueue(name string) wire.ErrorReply {
	return wire.ErrorReply{Code: wire.CodeNoQueue, Text: fmt.Sprintf("no queue %q", name)}
}

// peek answers with messages in one state. The tables are read under the
// machine's lock, bodies and the encoding wait until it is free again.
func (g *group) peek(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodePeek(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	if m.State < wire.MessageReady || m.State > wire.MessageParked {
		c.Error(corr, *malformed(fmt.Errorf("unknown state %d of messages", m.State)))
		return
	}
	limit := int(min(m.Limit, wire.PeekMax))
	var queue fsm.QueueInfo
	var found []fsm.MessageInfo
	var known bool
	// In steps, each of which holds up what is applied for a moment only.
	next := &fsm.MessageInfo{Lane: m.FromLane, Offset: m.FromOffset}
	var step read
	step = read{
		do: func() {
			var some []fsm.MessageInfo
			if queue, known = g.machine.QueueByName(m.Queue); known {
				some, next, _ = g.machine.Peek(m.Queue, fsm.MessageState(m.State), *next, limit-len(found))
				found = append(found, some...)
			}
		},
		then: func() {
			switch {
			case !known:
				c.Error(corr, noQueue(m.Queue))
				return
			case next != nil && len(found) < limit:
				g.reads.submit(step)
				return
			}
			reply := wire.PeekReply{Status: wire.StatusOK, More: len(found) == limit && limit > 0}
			reply.Messages, reply.More = g.messageInfos(queue.Number, found, m.Bodies, reply.More)
			c.Reply(corr, wire.OpPeek, encoded(reply))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	}
	g.reads.submit(step)
}

// messageInfos adds the messages themselves, as far as one frame takes them. What
// was acked or moved since the tables were read is told without.
func (g *group) messageInfos(queue uint64, found []fsm.MessageInfo, bodies, more bool) ([]wire.MessageInfo, bool) {
	out := make([]wire.MessageInfo, 0, len(found))
	bytes := 0
	for _, f := range found {
		if bytes >= peekFrameBytes {
			return out, true
		}
		i := messageInfo(f)
		if bodies {
			if at, message, ok := g.bodies.Get(queue, f.Lane, f.Offset); ok {
				i.PublishedAt, i.Message = at, message
				bytes += len(message)
			}
		}
		out = append(out, i)
	}
	return out, more
}

// messageShow answers with one message, body included.
func (g *group) messageShow(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeMessageShow(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	var queue fsm.QueueInfo
	var info fsm.MessageInfo
	var known, here bool
	g.reads.submit(read{
		do: func() {
			if queue, known = g.machine.QueueByName(m.Queue); known {
				info, here = g.machine.Message(m.Queue, m.Lane, m.Offset)
			}
		},
		then: func() {
			reply := wire.PeekReply{Status: wire.StatusNotStored}
			switch {
			case !known:
				c.Error(corr, noQueue(m.Queue))
				return
			case here:
				reply.Status = wire.StatusOK
				reply.Messages, _ = g.messageInfos(queue.Number, []fsm.MessageInfo{info}, true, false)
			}
			c.Reply(corr, wire.OpMessageShow, encoded(reply))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	})
}

func (g *group) consumersList(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeConsumersRequest(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	var found []fsm.ConsumerInfo
	known := true
	g.reads.submit(read{
		do: func() {
			if m.Queue != "" {
				_, known = g.machine.QueueByName(m.Queue)
			}
			found = g.machine.Consumers(m.Queue)
		},
		then: func() {
			if !known {
				c.Error(corr, noQueue(m.Queue))
				return
			}
			reply := wire.ConsumersReply{Status: wire.StatusOK, Consumers: make([]wire.ConsumerInfo, len(found))}
			for i, f := range found {
				reply.Consumers[i] = wire.ConsumerInfo{ID: wire.ConsumerID(f.ID), Queue: f.Queue, Label: f.Label, N: f.N,
					Attached: f.Attached, Pulls: f.Pulls, Credit: f.Credit, Held: f.Held, Next: f.Next}
			}
			c.Reply(corr, wire.OpConsumers, encoded(reply))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	})
}

func (g *group) sessionsList(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeSessionsRequest(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	var found []fsm.SessionInfo
	g.reads.submit(read{
		do: func() { found = g.machine.Sessions(m.From, int(min(m.Limit, wire.PeekMax))) },
		then: func() {
			reply := wire.SessionsReply{Sessions: make([]wire.SessionInfo, len(found))}
			for i, f := range found {
				reply.Sessions[i] = wire.SessionInfo{
					Session: wire.SessionID{Incarnation: f.Incarnation, Group: groupNumber, Number: f.Number},
					Named:   f.Named, Name: f.Name, Label: f.Label, Epoch: f.Epoch, Floor: f.Floor, Next: f.Next,
					Outcomes: f.Outcomes, Idle: f.Idle,
				}
			}
			c.Reply(corr, wire.OpSessions, encoded(reply))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	})
}

func messageInfo(f fsm.MessageInfo) wire.MessageInfo {
	i := wire.MessageInfo{
		Lane: f.Lane, Offset: f.Offset, State: wire.MessageState(f.State), Attempts: f.Attempts, Failures: f.Failures,
		Age: f.Age, Due: f.Due, Expires: f.Expires, OrderingKey: f.Key,
		Consumer: wire.ConsumerID(f.Consumer), Label: f.Label, Number: f.Number, Deadline: f.Deadline,
		Reason: f.Reason, FirstError: f.FirstError, LastError: f.LastError,
		OriginQueue: f.OriginQueue, OriginLane: f.OriginLane, OriginOffset: f.OriginOffset, OriginAttempts: f.OriginAttempts,
	}
	for _, e := range f.Events {
		i.Events = append(i.Events, wire.MessageEvent{Ago: e.Ago, Kind: wire.EventKind(e.Kind), Attempt: e.Attempt, Consumer: e.Consumer, Text: e.Text})
	}
	return i
}
