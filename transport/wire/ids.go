package wire

// SessionID names a producer's session for ever: its number is never reused
// within a group, and the incarnation sets apart what was opened before a
// restore from what was opened after it.
type SessionID struct {
	Incarnation uint64
	Group       uint32
	Number      uint64
}

// InnerMsgID is the identity of one publish (one message or one atomic
// batch): a session and a sequence in it. It is made by the client library and
// carries no business meaning. Printed "s1.42.1093", outside a cluster
// "s1.42.1093@9f3ac01276d3e5aa" (group 1, session 42, sequence 1093).
type InnerMsgID struct {
	Session  SessionID
	Sequence uint64
}

// MessageID is the place of a stored message. Queue is the queue's number,
// which is never reused, so a queue that is deleted and created again gives
// other ids. Printed "orders/17" for lane 0 and "orders/p3.17" for lane 3.
type MessageID struct {
	Incarnation uint64
	Queue       uint64
	Lane        uint8
	Offset      uint64
}

// ConsumerID is made at random by the client library for each Consume call of
// a process. Only the same id resumes; what users configure is a label.
type ConsumerID [16]byte

// Nonce tells a repeated request from a new one.
type Nonce [16]byte

// Range is the inclusive range From..To of delivery numbers.
type Range struct {
	From, To uint64
}
