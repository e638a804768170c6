package fsm

import "time"

// Effects is what one entry did, for the node that applied it. It is derived
// state: every replica computes the same, only the leader acts on it.
type Effects struct {
	// Proposal is the number the proposer put into the entry.
	Proposal uint64
	// Results has one element for each command of the entry, in order.
	Results []Result
	// Deliveries are the leases made by this entry and, for consumers that
	// attached in it, those it holds and did not list; per consumer in the
	// order of their numbers.
	Deliveries []Delivery
	// Ready are queues in which something became ready in this entry, or another
	// consumer's turn came, and which have messages that nobody took: receives that
	// wait for one may try. It is a hint; a restored replica may leave out one.
	Ready []ReadyQueue
	// Lost are the leases that timers of this entry took from consumers that
	// are attached, and consumers that were given up.
	Lost []Loss
	// Term is set when the entry held a term command: the node that leads.
	// Every consumer has been detached.
	Term *TermResult
	// More says that due timers or assignments are left for the next entry:
	// the leader ticks at once.
	More bool
	// Now is cluster time after the entry; NextTimer the earliest pending
	// deadline, 0 for none.
	Now, NextTimer Time
	// Restored is set when the entry put the content of a backup in the place of
	// what was here: another incarnation has begun, and whoever was connected has
	// to hear of it.
	Restored bool
	// Digest is the machine's digest when the entry held a digest command.
	Digest *DigestResult
	// Verdict is set when the entry held a verdict. The node judges itself by it:
	// see Verdict.Judge and Machine.DigestAt.
	Verdict *Verdict
}

// TermResult names the leader that wrote the entry.
type TermResult struct {
	Node  string
	Nonce Nonce
}

// DigestResult is the digest at an index.
type DigestResult struct {
	Index  uint64
	Digest uint64
}

// Result is what one command did. Which field is set follows from Kind.
type Result struct {
	Kind   Kind
	Status Status

	Session SessionResult   // KindOpenSession
	Publish []PublishResult // KindPublish, KindSeal, KindAckPublish: in the order of the command
	Attach  AttachResult    // KindAttach
	Settle  []DeliveryState // KindSettle: covers every number asked, in order
	Queue   QueueInfo       // the queue commands
	Removed uint64          // KindQueuePurge, KindQueueDelete
	// Deletions is how many queues were ever deleted, for KindQueueCreate.
	Deletions uint64
	Conflict  string        // with StatusConflict: the settings that differ, or who needs the queue
	Edits     []EditState   // KindEdit: for each place, in order
	Restore   RestoreResult // the restore commands
	Receive   ReceiveResult // KindReceive, KindRelease
}

// ReadyQueue is a queue with messages that nobody took.
type ReadyQueue struct {
	Name     string
	Messages uint64
}

// ReceiveResult answers KindReceive and KindRelease. Next is the number that the
// puller's next receive begins with. Deliveries are what it holds of this one; they
// are not in Effects.Deliveries.
type ReceiveResult struct {
	Queue      uint64
	LeaseTime  time.Duration
	Next       uint64
	Deliveries []Delivery
}

// SessionResult answers KindOpenSession. Epoch is the present one, also with
// StatusEpochMismatch.
type SessionResult struct {
	Incarnation uint64
	Number      uint64
	Epoch       uint64
	Floor       uint64
	Next        uint64
	Expiry      time.Duration
}

// PublishResult is the decision about one copy of a publish, or one sequence of
// a seal.
type PublishResult struct {
	Sequence  uint64
	Status    Status
	Duplicate bool
	Queue     uint64
	Lane      uint8
	Offset    uint64
	Count     uint32
	Outputs   []Position // of an ack-and-publish, instead of the four before
}

// Position is where the messages of one publish begin in a queue.
type Position struct {
	Queue  uint64
	Lane   uint8
	Offset uint64
	Count  uint32
}

// AttachResult answers KindAttach.
type AttachResult struct {
	Queue     uint64
	LeaseTime time.Duration
	Next      uint64
	States    []DeliveryState
}

// DeliveryState is what became of deliveries From..To of one consumer.
type DeliveryState struct {
	From, To uint64
	State    LeaseState
}

// Delivery is a lease to hand to its consumer. The body is in the BodyStore.
type Delivery struct {
	Consumer ConsumerID
	N        uint64
	Number   uint64
	Queue    uint64
	Lane     uint8
	Offset   uint64
	Attempt  uint32
	Failures uint32
	Deadline Time
	Dead     *DeadLetter // nil unless it is a dead letter; not changed afterwards
	Restored bool        // it was stored before a restore: who has seen it is not known
}

// DeadLetter is what a dead letter has behind it.
type DeadLetter struct {
	Reason, FirstError, LastError string
	OriginQueue                   string
	OriginLane                    uint8
	OriginOffset                  uint64
	OriginAttempts                uint32
}

// Loss tells an attached consumer what was taken from it.
type Loss struct {
	Consumer ConsumerID
	N        uint64
	Gone     bool
	Lost     []DeliveryState
}
