package wire

// Redrive sends what is ready or parked in a queue back to work: to Target, or with ""
// each dead letter to the queue that it came from, while what was parked where it was
// published is made ready in place. It goes in steps. The leader reads a few messages
// beside the apply path, holds them against the conditions and proposes an Edit that
// names each by its place and turn: no filter ever enters the log.
//
// A run begins with a step without Ends, which changes nothing: its answer has the ends
// of the queue's lanes, so that what arrives while the run lasts, such as a message that
// was sent back and gave up again, is not met by it. Every later step names where the
// last one got to, and the newest edit of the queue that its sender has been told of.
//
// A repeated step finds its own nonce as that of the newest edit and is told what it has
// done. A late copy finds another one, and is refused with StatusRevision, as is a step
// when somebody else has edited the queue: the sender goes on from the same place with a
// step of a new nonce.
type Redrive struct {
	Incarnation uint64
	Group       uint32
	Queue       string
	Number      uint64 // of the queue; 0 with the first step only
	Nonce       Nonce  // of the step
	Edited      Nonce  // of the newest edit
	Target      string
	Where       []Condition // all must hold; at most ConditionsMax
	Ends        []Place     // of the lanes
	From        RedriveFrom
	One         bool // only the message At
	At          Place
	Limit       uint32 // messages to move, at most RedriveMax
	Dry         bool   // only look
}

// RedriveFrom is where a step begins: first the ready messages, then the parked ones,
// each in the order in which they stand. The zero value is the beginning.
type RedriveFrom struct {
	State  MessageState // MessageReady or MessageParked, 0 for the beginning
	Lane   uint8
	Offset uint64
}

// Condition is what a message must meet.
type Condition struct {
	Field ConditionField
	Match ConditionMatch
	Value string // at most ConditionBytesMax
}

// RedriveReply is what a step has seen and done. A repeat tells of what was moved only
// and its Next is where it began: what was not moved is met again.
type RedriveReply struct {
	Status   Status // StatusOK, StatusNoQueue for the queue or the target, StatusRevision
	Number   uint64 // of the queue
	Edited   Nonce  // of the newest edit
	Ends     []Place
	Next     RedriveFrom
	More     bool
	Repeated bool
	Seen     uint32 // looked at
	Moved    uint32 // also those made ready in place
	Refused  uint32 // their target does not exist or is full
	Skipped  uint32 // gone, or held by a consumer by then
	Targets  []string
	Matches  []RedriveMatch // of a dry step: what would be moved
}

// RedriveMatch is a message that would be moved.
type RedriveMatch struct {
	Lane   uint8
	Offset uint64
	Target uint32 // index into Targets
	Age    int64  // cluster time since it was stored, ns
}
