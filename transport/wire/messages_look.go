package wire

import "time"

// Peek looks at messages of one state in the order in which they would be
// handed out, from a place on (the zero place: from the first), and touches
// nothing. The answer is PeekReply.
type Peek struct {
	Queue      string
	State      MessageState
	FromLane   uint8
	FromOffset uint64
	Limit      uint32 // at most PeekMax
	Bodies     bool   // with the messages themselves
}

// PeekReply has the messages found. More says that it was cut short by the
// limit or by the size of a frame: ask again from behind the last one.
type PeekReply struct {
	Status   Status
	More     bool
	Messages []MessageInfo
}

// MessageShow asks for one message; the answer is PeekReply with one message,
// or StatusNotStored when it is not in the queue (any more).
type MessageShow struct {
	Queue  string
	Lane   uint8
	Offset uint64
}

// MessageInfo is what is known of one message. Durations are cluster time from
// now: of the past for Age and events, of the future for the others.
type MessageInfo struct {
	Lane        uint8
	Offset      uint64
	State       MessageState
	Attempts    uint32
	Failures    uint32
	Age         time.Duration // since it was stored
	Due         time.Duration // delayed: until it is ready
	Expires     time.Duration // until it is too old; 0: never
	OrderingKey string
	// Leased: who holds it, under which delivery number, and for how long.
	Consumer ConsumerID
	Label    string
	Number   uint64
	Deadline time.Duration
	// Failed at least once: errors, and the newest events.
	Reason, FirstError, LastError string
	Events                        []MessageEvent
	// A dead letter: where it came from and what it had behind it there.
	OriginQueue    string
	OriginLane     uint8
	OriginOffset   uint64
	OriginAttempts uint32

	PublishedAt int64  // wall clock of the leader that stored it, unix ns; with the body only
	Message     []byte // an encoded Message, when asked for
}

// MessageEvent is one moment in the life of a message that failed.
type MessageEvent struct {
	Ago      time.Duration
	Kind     EventKind
	Attempt  uint32
	Consumer uint64 // the consumer's ordinal in the machine
	Text     string
}

// ConsumersRequest asks for the consumers of a queue, "" for those of all
// queues, from an ordinal on; the answer is ConsumersReply.
type ConsumersRequest struct {
	Queue string
	From  uint64
	Limit uint32 // at most PeekMax
}

// ConsumersReply lists consumers in the order of their first attachment. Fewer than
// were asked for are the last.
type ConsumersReply struct {
	Status    Status
	Consumers []ConsumerInfo
}

// ConsumerInfo is what the machine knows of a consumer.
type ConsumerInfo struct {
	Ordinal  uint64 // in the order of first attachment
	ID       ConsumerID
	Queue    string
	Label    string
	N        uint64
	Attached bool // else in grace, or a puller
	Pulls    bool // it asks for messages instead of being handed them
	Credit   uint32
	Held     uint32
	Next     uint64 // the next delivery number
}

// SessionsRequest asks for sessions by number, from one on; the answer is
// SessionsReply.
type SessionsRequest struct {
	From  uint64
	Limit uint32 // at most PeekMax
}

// SessionsReply lists sessions by number.
type SessionsReply struct {
	Sessions []SessionInfo
}

// SessionInfo is what the machine knows of a session.
type SessionInfo struct {
	Session  SessionID
	Named    bool
	Name     string
	Label    string
	Epoch    uint64
	Floor    uint64
	Next     uint64
	Outcomes uint32        // kept for it
	Idle     time.Duration // cluster time since it was last heard of
}
