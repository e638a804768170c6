package client

import (
	"context"

	"onceq/transport/wire"
)

// What can be looked at.
type (
	// Place is where a message is in its queue.
	Place = wire.Place
	// MessageState is where a message is on its way.
	MessageState = wire.MessageState
	// MessageEvent is one moment in the life of a message that failed.
	MessageEvent = wire.MessageEvent
	// ConsumerInfo is what the cluster knows of a consumer.
	ConsumerInfo = wire.ConsumerInfo
	// SessionInfo is what the cluster knows of a producer's session.
	SessionInfo = wire.SessionInfo
	// SessionID names a producer's session for ever.
	SessionID = wire.SessionID
)

// The states of messages.
const (
	Ready   = wire.MessageReady
	Blocked = wire.MessageBlocked // ready, behind an earlier one of its ordering key
	Delayed = wire.MessageDelayed
	Leased  = wire.MessageLeased
	Parked  = wire.MessageParked // given up, and no dead-letter queue has taken it
)

// MessageInfo is what is known of one message, without touching it. Durations are
// cluster time from now.
type MessageInfo struct {
	wire.MessageInfo
	Queue string
	// Content is the message itself, nil when it was not asked for.
	Content *Message
}

// ID is the message's place, "orders/17".
func (m *MessageInfo) ID() string { return wire.FormatMessageID(m.Queue, m.Lane, m.Offset) }

// Place is where the message is in its queue, and how often it has been handed out
// and come back: edits go by both.
func (m *MessageInfo) Place() Place {
	turn := 2 * uint64(m.Attempts)
	if m.State == Leased {
		turn--
	}
	return Place{Lane: m.Lane, Offset: m.Offset, Turn: turn}
}

// Origin is the place that a dead letter came from, "" for any other message.
func (m *MessageInfo) Origin() string {
	if m.OriginQueue == "" {
		return ""
	}
	return wire.FormatMessageID(m.OriginQueue, m.OriginLane, m.OriginOffset)
}

// PeekOptions say what Peek looks at.
type PeekOptions struct {
	State  MessageState // default Ready
	From   Place        // the first to look at; the zero place is the first there is
	Limit  int          // default and most 1,000
	Bodies bool         // with the messages themselves
}

// Peeked is what Peek has seen. Next is where to go on; More says that there may
// be more, in this queue and state.
type Peeked struct {
	Messages []MessageInfo
	More     bool
	Next     Place
}

// Peek looks at messages of a queue in one state, in the order in which they would
// be handed out, and touches nothing.
func (a *Admin) Peek(ctx context.Context, queue string, o PeekOptions) (Peeked, error) {
	if o.State == 0 {
		o.State = Ready
	}
	if o.Limit <= 0 || o.Limit > wire.PeekMax {
		o.Limit = wire.PeekMax
	}
	request := wire.Peek{Queue: queue, State: o.State, FromLane: o.From.Lane, FromOffset: o.From.Offset, Limit: uint32(o.Limit), Bodies: o.Bodies}
	reply, err := a.look(ctx, wire.OpPeek, request, queue)
	if err != nil {
		return Peeked{}, err
	}
	p := Peeked{More: reply.More, Next: o.From}
	for i := range reply.Messages {
		m, err := messageInfo(queue, reply.Messages[i])
		if err != nil {
			return p, err
		}
		p.Messages = append(p.Messages, m)
		p.Next = Place{Lane: m.Lane, Offset: m.Offset + 1}
	}
	return p, nil
}

// Message looks at one message. ErrNoMessage means that it is not in the queue
// (any more).
func (a *Admin) Message(ctx context.Context, queue string, at Place) (MessageInfo, error) {
	reply, err := a.look(ctx, wire.OpMessageShow, wire.MessageShow{Queue: queue, Lane: at.Lane, Offset: at.Offset}, queue)
	switch {
	case err != nil:
		return MessageInfo{}, err
	case reply.Status == wire.StatusNotStored || len(reply.Messages) != 1:
		return MessageInfo{}, newError(wire.CodeNotStored, "message %s is not in its queue: acked, gone, or never stored", wire.FormatMessageID(queue, at.Lane, at.Offset))
	}
	return messageInfo(queue, reply.Messages[0])
}

func (a *Admin) look(ctx context.Context, op wire.Op, request appendable, queue string) (wire.PeekReply, error) {
	payload, err := a.c.read(ctx, op, request.Append)
	if err != nil {
		return wire.PeekReply{}, err
	}
	reply, err := wire.DecodePeekReply(payload)
	if err == nil && reply.Status != wire.StatusOK && reply.Status != wire.StatusNotStored {
		err = statusError(reply.Status, "queue "+queue)
	}
	return reply, err
}

func messageInfo(queue string, w wire.MessageInfo) (MessageInfo, error) {
	m := MessageInfo{MessageInfo: w, Queue: queue}
	if len(w.Message) > 0 {
		content, err := wire.DecodeMessage(w.Message)
		if err != nil {
			return m, err
		}
		c := fromWire(&content)
		m.Content = &c
	}
	return m, nil
}

// Consumers lists the consumers of a queue, those of all queues for "", in the order of
// their first attachment, from an ordinal on, at most limit and 1,000. Fewer than were
// asked for are the last; else go on behind the Ordinal of the last.
func (a *Admin) Consumers(ctx context.Context, queue string, from uint64, limit int) ([]ConsumerInfo, error) {
	limit = min(max(limit, 1), wire.PeekMax)
	payload, err := a.c.read(ctx, wire.OpConsumers, wire.ConsumersRequest{Queue: queue, From: from, Limit: uint32(limit)}.Append)
	if err != nil {
		return nil, err
	}
	r, err := wire.DecodeConsumersReply(payload)
	if err == nil && r.Status != wire.StatusOK {
		err = statusError(r.Status, "queue "+queue)
	}
	return r.Consumers, err
}

// Sessions lists producers' sessions by number, from one on, at most limit and
// 1,000.
func (a *Admin) Sessions(ctx context.Context, from uint64, limit int) ([]SessionInfo, error) {
	limit = min(max(limit, 1), wire.PeekMax)
	payload, err := a.c.read(ctx, wire.OpSessions, wire.SessionsRequest{From: from, Limit: uint32(limit)}.Append)
	if err != nil {
		return nil, err
	}
	r, err := wire.DecodeSessionsReply(payload)
	return r.Sessions, err
}

// Session shows one session. ErrNoSession means that there is none of that number
// (any more).
func (a *Admin) Session(ctx context.Context, number uint64) (SessionInfo, error) {
	found, err := a.Sessions(ctx, number, 1)
	if err != nil {
		return SessionInfo{}, err
	}
	if len(found) == 0 || found[0].Session.Number != number {
		return SessionInfo{}, newError(wire.CodeSessionExpired, "no session %d: closed, expired, or never opened", number)
	}
	return found[0], nil
}

// EndSession ends a session by command: what its producer sends from then on is
// refused, and its outcomes are forgotten. A session that was opened anew since it
// was looked at is left alone and gives ErrFenced; one that is gone is fine.
func (a *Admin) EndSession(ctx context.Context, s SessionInfo) error {
	request := wire.CloseSession{Incarnation: s.Session.Incarnation, Group: s.Session.Group, Session: s.Session.Number, Epoch: s.Epoch}
	payload, err := a.c.ask(ctx, wire.OpCloseSession, request.Append)
	err = statusOf(payload, err, s.Session.String())
	if answered(err, wire.CodeSessionExpired) {
		return nil
	}
	return err
}
