package client

import (
	"time"

	"onceq/transport/wire"
)

// Header is one name and value of a message. Names may repeat; order is kept.
type Header = wire.Header

// InnerMsgID is the identity of one publish: a session and a sequence in it. It
// is made by this package, and users see it only when they have to look up an
// unknown outcome. Printed "s1.42.1093@9f3ac01276d3e5aa".
type InnerMsgID = wire.InnerMsgID

// Message is what a producer hands in. Which options go together:
//
//	              OrderingKey  Priority  Delay  DeliverAt  TTL
//	OrderingKey                no        no     no         yes
//	Priority      no                     yes    yes        yes
//	Delay         no           yes              no         yes
//	DeliverAt     no           yes       no                yes
//	TTL           yes          yes       yes    yes
//
// The messages of one batch have the same priority. What does not go together is
// refused with ErrBadOptions before anything is sent.
type Message struct {
	Body []byte
	// BizID is the sender's business id (an order id): carried through untouched,
	// for the consumer to recognise what it has done already.
	BizID   string
	Headers []Header
	// OrderingKey: of all messages with the same key one is handed out at a time,
	// in the order in which they were stored. The next waits until it is acked or
	// becomes a dead letter; other keys are not held up. "" for none.
	OrderingKey string
	// Priority is 0 to 9; the highest goes first, equal ones in storing order.
	Priority int
	// Delay keeps the message back after it was stored, at most for a year.
	Delay time.Duration
	// DeliverAt keeps the message back until a moment, by the clock of the node
	// that stores it: at most for a year from now, and not at all when it has passed.
	// The zero time is none.
	DeliverAt time.Time
	// TTL is how long the message may wait for a consumer; then it is gone. 0 for
	// the queue's.
	TTL time.Duration
}

// wire makes the message what is sent. Its options are checked by checkMessages.
func (m *Message) wire() (wire.Message, error) {
	if m.Priority < 0 || m.Priority > wire.PriorityMax {
		return wire.Message{}, newError(wire.CodeBadOptions, "priority %d: 0 to %d is accepted", m.Priority, wire.PriorityMax)
	}
	w := wire.Message{
		Body: m.Body, BizID: m.BizID, Headers: m.Headers,
		OrderingKey: m.OrderingKey, Priority: uint8(m.Priority), Delay: m.Delay, TTL: m.TTL,
	}
	if !m.DeliverAt.IsZero() {
		if year := m.DeliverAt.Year(); year < 1970 || year > 2261 {
			return wire.Message{}, newError(wire.CodeBadOptions, "deliver at %v: a moment from 1970 to 2261 is accepted", m.DeliverAt)
		}
		if most := time.Now().Add(wire.DelayMax); m.DeliverAt.After(most) {
			return wire.Message{}, newError(wire.CodeBadOptions, "deliver at %v: at most %v from now, %v, is accepted", m.DeliverAt, wire.DelayMax, most.Truncate(time.Second))
		}
		w.DeliverAt = max(m.DeliverAt.UnixNano(), 1)
	}
	return w, nil
}

func wireMessages(ms []Message) ([]wire.Message, error) {
	out := make([]wire.Message, len(ms))
	for i := range ms {
		m, err := ms[i].wire()
		if err != nil {
			return nil, err
		}
		out[i] = m
	}
	return out, nil
}

// fromWire is the message as its producer handed it in.
func fromWire(w *wire.Message) Message {
	m := Message{
		Body: w.Body, BizID: w.BizID, Headers: w.Headers,
		OrderingKey: w.OrderingKey, Priority: int(w.Priority), Delay: w.Delay, TTL: w.TTL,
	}
	if w.DeliverAt != 0 {
		m.DeliverAt = time.Unix(0, w.DeliverAt)
	}
	return m
}

// MessageID is the place of a stored message. QueueNumber is never reused, so a
// queue that is deleted and created again gives other ids.
type MessageID struct {
	Incarnation uint64
	QueueNumber uint64
	Queue       string // the queue's name; "" when it could not be learned
	Lane        uint8
	Offset      uint64
}

// ParseMessageID reads "orders/17" and "orders/p3.17": the name of a queue and a
// place in it.
func ParseMessageID(s string) (queue string, at Place, err error) { return wire.ParseMessageID(s) }

// String is "orders/17", or "orders/p3.17" for lane 3.
func (id MessageID) String() string { return wire.FormatMessageID(id.Queue, id.Lane, id.Offset) }

// Receipt says that a message is stored.
type Receipt struct {
	ID        InnerMsgID
	Message   MessageID
	Duplicate bool // the answer came from the record of an earlier copy
	Attempts  int  // copies sent
}

func checkMessages(ms []wire.Message, bodyMax int) error {
	switch {
	case len(ms) == 0:
		return newError(wire.CodeMalformed, "a publish needs at least one message")
	case len(ms) > wire.MessagesMax:
		return newError(wire.CodeTooLarge, "a batch of %d messages, at most %d are accepted: publish several", len(ms), wire.MessagesMax)
	}
	for i := range ms {
		if n := len(ms[i].Body); n > bodyMax {
			return newError(wire.CodeTooLarge, "a body of %d bytes, at most %d are accepted: store it elsewhere and publish where", n, bodyMax)
		}
	}
	if e := wire.CheckOptions(ms); e != nil {
		return fromReply(e.ErrorReply)
	}
	return nil
}
