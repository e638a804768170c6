package client

import (
	"fmt"

	"onceq/transport/wire"
)

// Header is one name and value of a message.
type Header = wire.Header

// InnerMsgID is the identity of one publish, see wire.InnerMsgID.
type InnerMsgID = wire.InnerMsgID

// Message is what a producer hands in.
type Message struct {
	Body    []byte
	BizID   string
	Headers []Header
}

// MessageID is the place of a stored message.
type MessageID struct {
	Incarnation uint64
	QueueNumber uint64
	Queue       string
	Lane        uint8
	Offset      uint64
}

// String is "orders/17", or "orders/p3.17" for lane 3.
func (id MessageID) String() string {
	if id.Lane == 0 {
		return fmt.Sprintf("%s/%d", id.Queue, id.Offset)
	}
	return fmt.Sprintf("%s/p%d.%d", id.Queue, id.Lane, id.Offset)
}

// Receipt says that a message is stored.
type Receipt struct {
	ID        InnerMsgID
	Message   MessageID
	Duplicate bool // an earlier copy of this publish had been stored already
	Attempts  int  // copies sent
}
