package wire

// Edit does something with messages as the caller has seen them: by place, and by
// their turn. A message that was handed out or has come back since is EditChanged and
// left alone, so a late copy never takes a lease from a new holder or deletes what
// has been delivered again. The queue keeps the answer to its newest edit that did
// something by its nonce; a repeat after another edit finds what is there. Target is for EditMove: the
// queue to move to, "" for where each dead letter came from.
type Edit struct {
	Incarnation uint64
	Group       uint32
	Number      uint64 // of the queue
	Nonce       Nonce
	Verb        EditVerb
	Target      string
	Places      []Place // at most EditPlacesMax
}

// Place is where a message is in its queue. Turn counts how often it was handed out
// and has come back: 0 for one that was never delivered, odd while it is leased. Edits
// go by it, looking does not.
type Place struct {
	Lane   uint8
	Offset uint64
	Turn   uint64
}

// EditReply says what became of each place, in the order asked. Status
// StatusNoQueue means the queue or the target.
type EditReply struct {
	Status Status
	States []EditState // a bin of one byte each
}

// AckPublish acks one delivery and publishes outputs, all in one command or
// nothing. It is judged by its sequence before its lease, so a retry that comes
// when the lease is long gone gets the recorded positions. The answer is a
// PublishReply with one result.
type AckPublish struct {
	Incarnation uint64
	Group       uint32
	Session     uint64
	Epoch       uint64
	Floor       uint64
	Sequence    uint64
	Checksum    uint64 // see AckPublishChecksum
	Consumer    ConsumerID
	Number      uint64 // of the delivery
	Done        uint64 // the consumer's lowest number without a definite answer
	Outputs     []Output
}

// Output is what an ack-and-publish stores in one queue. No queue comes twice.
type Output struct {
	Queue    string
	Messages []Message
}
