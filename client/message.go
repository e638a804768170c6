package client

import (
	"onceq/transport/wire"
)

// Header is one name and value of a message. Names may repeat; order is kept.
type Header = wire.Header

// InnerMsgID is the identity of one publish: a session and a sequence in it. It
// is made by this package, and users see it only when they have to look up an
// unknown outcome. Printed "s1.42.1093@9f3ac01276d3e5aa".
type InnerMsgID = wire.InnerMsgID

// Message is what a producer hands in.
type Message struct {
	Body []byte
	// BizID is the sender's business id (an order id): carried through untouched,
	// for the consumer to recognise what it has done already.
	BizID   string
	Headers []Header
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
		m := &ms[i]
		switch {
		case len(m.Body) > bodyMax:
			return newError(wire.CodeTooLarge, "a body of %d bytes, at most %d are accepted: store it elsewhere and publish where", len(m.Body), bodyMax)
		case len(m.BizID) > wire.BizIDBytesMax:
			return newError(wire.CodeTooLarge, "a biz-id of %d bytes, at most %d are accepted", len(m.BizID), wire.BizIDBytesMax)
		case len(m.Headers) > wire.HeadersMax:
			return newError(wire.CodeTooLarge, "%d headers, at most %d are accepted", len(m.Headers), wire.HeadersMax)
		}
		for _, h := range m.Headers {
			if len(h.Name) > wire.HeaderNameBytesMax || len(h.Value) > wire.HeaderValueBytesMax {
				return newError(wire.CodeTooLarge, "header %.64q of %d and %d bytes, at most %d and %d are accepted",
					h.Name, len(h.Name), len(h.Value), wire.HeaderNameBytesMax, wire.HeaderValueBytesMax)
			}
		}
	}
	return nil
}
