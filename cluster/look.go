package cluster

import (
	"context"
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
	g.lookThrough(c, corr, m.Queue, func() (*fsm.Look, bool) {
		return g.machine.Look(m.Queue, fsm.MessageState(m.State), fsm.MessageInfo{Lane: m.FromLane, Offset: m.FromOffset}, limit)
	}, func(l *fsm.Look) {
		reply := wire.PeekReply{Status: wire.StatusOK}
		var cut bool
		reply.Messages, cut = g.messageInfos(l.Queue(), l.Found(), m.Bodies)
		reply.More = cut || len(l.Found()) == limit && limit > 0
		c.Reply(corr, wire.OpPeek, encoded(reply))
	})
}

// lookThrough makes a look in steps, each of which holds up what is applied for a moment
// only, and then has it answered.
func (g *group) lookThrough(c conn, corr uint32, queue string, begin func() (*fsm.Look, bool), answer func(l *fsm.Look)) {
	var l *fsm.Look
	known, done := true, false
	var step read
	step = read{
		do: func() {
			if l == nil {
				if l, known = begin(); !known {
					return
				}
			}
			done = g.machine.LookOn(l)
		},
		then: func() {
			switch {
			case !known:
				c.Error(corr, noQueue(queue))
			case !done:
				g.reads.submit(step)
			default:
				answer(l)
			}
		},
		refuse: func(e *wire.ErrorReply) {
			if l != nil {
				l.Close()
			}
			c.Error(corr, *e)
		},
	}
	g.reads.submit(step)
}

// look reads the machine and waits until it has.
func (g *group) look(ctx context.Context, do func()) *wire.ErrorReply {
	done := make(chan *wire.ErrorReply, 1)
	g.reads.submit(read{do: do, then: func() { done <- nil }, refuse: func(e *wire.ErrorReply) { done <- e }})
	select {
	case refused := <-done:
		return refused
	case <-ctx.Done():
		return errShuttingDown()
	}
}

// messageInfos adds the messages themselves, as far as one frame takes them, and says
// whether it was cut short. What was acked or moved since the tables were read is told
// without.
func (g *group) messageInfos(queue uint64, found []fsm.MessageInfo, bodies bool) (out []wire.MessageInfo, cut bool) {
	out = make([]wire.MessageInfo, 0, len(found))
	bytes := 0
	for _, f := range found {
		if bytes >= peekFrameBytes {
			return out, true
		}
		i := messageInfo(f)
		if bodies {
			at, message, ok := g.bodies.Get(queue, f.Lane, f.Offset)
			if !ok {
				at, message, ok = g.lookAgain(func() bool { return g.machine.Stored(queue, &f) }, queue, f.Lane, f.Offset)
			}
			if ok {
				i.PublishedAt, i.Message = at, message
				bytes += len(message)
			}
		}
		out = append(out, i)
	}
	return out, false
}

// messageShow answers with one message, body included.
func (g *group) messageShow(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeMessageShow(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	g.lookThrough(c, corr, m.Queue, func() (*fsm.Look, bool) { return g.machine.LookAt(m.Queue, m.Lane, m.Offset) }, func(l *fsm.Look) {
		reply := wire.PeekReply{Status: wire.StatusNotStored}
		if len(l.Found()) == 1 {
			reply.Status = wire.StatusOK
			reply.Messages, _ = g.messageInfos(l.Queue(), l.Found(), true)
		}
		c.Reply(corr, wire.OpMessageShow, encoded(reply))
	})
}

func (g *group) consumersList(c conn, corr uint32, payload []byte) {
	m, err := wire.DecodeConsumersRequest(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	limit := int(min(m.Limit, wire.PeekMax))
	var found []fsm.ConsumerInfo
	known, next := true, m.From
	var step read
	step = read{
		do: func() {
			if m.Queue != "" {
				_, known = g.machine.QueueByName(m.Queue)
			}
			var some []fsm.ConsumerInfo
			some, next = g.machine.Consumers(m.Queue, next, limit-len(found))
			found = append(found, some...)
		},
		then: func() {
			switch {
			case !known:
				c.Error(corr, noQueue(m.Queue))
				return
			case next != 0:
				g.reads.submit(step)
				return
			}
			reply := wire.ConsumersReply{Status: wire.StatusOK, Consumers: make([]wire.ConsumerInfo, len(found))}
			for i, f := range found {
				reply.Consumers[i] = wire.ConsumerInfo{Ordinal: f.Ordinal, ID: wire.ConsumerID(f.ID), Queue: f.Queue, Label: f.Label, N: f.N,
					Attached: f.Attached, Pulls: f.Pulls, Credit: f.Credit, Held: f.Held, Next: f.Next}
			}
			c.Reply(corr, wire.OpConsumers, encoded(reply))
		},
		refuse: func(e *wire.ErrorReply) { c.Error(corr, *e) },
	}
	g.reads.submit(step)
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
