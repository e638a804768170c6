package wire

// Edit does something with messages named by place. It is idempotent by nature:
// a message that is not there any more was edited before, or is gone. Target is
// for EditMove: the queue to move to, "" for where each dead letter came from.
type Edit struct {
	Incarnation uint64
	Group       uint32
	Number      uint64 // of the queue
	Verb        EditVerb
	Target      string
	Places      []Place // at most EditPlacesMax
}

// Place is where a message is in its queue.
type Place struct {
	Lane   uint8
	Offset uint64
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
