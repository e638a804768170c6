package wire

// Status is what the queue machine decided about one request or one copy of a
// publish. It is part of the replicated results: values are on the wire and
// are only ever appended to. fsm.Status has the same values.
type Status uint8

const (
	StatusOK               Status = 1
	StatusSessionExpired   Status = 2  // the session is not known here (any more): this copy cannot be judged
	StatusFenced           Status = 3  // a newer epoch of the session exists
	StatusBelowFloor       Status = 4  // this copy was not stored and never will be; says nothing about other copies
	StatusWindowFull       Status = 5  // sequence at or above floor + 65,536
	StatusSealed           Status = 6  // never stored, and never will be
	StatusBodyDiffers      Status = 7  // the sequence has a record with another checksum
	StatusOutOfOrder       Status = 8  // After has no record yet; retriable, nothing recorded
	StatusQueueFull        Status = 9  // nothing recorded
	StatusTooLarge         Status = 10 // nothing recorded
	StatusNoQueue          Status = 11 // nothing recorded
	StatusSessionCap       Status = 12 // too many sessions: opening is refused
	StatusOutcomeCap       Status = 13 // too many open outcomes in the group: publishes are refused
	StatusEpochMismatch    Status = 14
	StatusNotStored        Status = 15 // outcome look-up: not stored so far
	StatusLeaseLost        Status = 16
	StatusConsumerGone     Status = 17
	StatusStale            Status = 18 // attach, leave or detach of an older attachment
	StatusConsumerCap      Status = 19
	StatusConflict         Status = 20 // the queue exists with other settings
	StatusQueueCap         Status = 21
	StatusRevision         Status = 22 // the queue has changed since
	StatusUnsupported      Status = 23 // not in this machine version
	StatusWrongIncarnation Status = 24 // from before a restore, or from another cluster
	StatusMalformed        Status = 25 // does not decode; a deterministic refusal
)

// LeaseState is what became of a delivery.
type LeaseState uint8

const (
	LeaseHeld     LeaseState = 1
	LeaseAcked    LeaseState = 2
	LeaseNacked   LeaseState = 3
	LeaseExpired  LeaseState = 4 // lost: the lease ran out
	LeaseGone     LeaseState = 5 // lost: the consumer was given up
	LeasePurged   LeaseState = 6 // lost: the queue was purged
	LeaseDeleted  LeaseState = 7 // lost: the queue was deleted
	LeaseUnknown  LeaseState = 8 // the number is below done, or was never given
	LeaseReturned LeaseState = 9 // given back by leave
)

// SettleVerb is what to do with a delivery.
type SettleVerb uint8

const (
	VerbAck    SettleVerb = 1
	VerbNack   SettleVerb = 2
	VerbExtend SettleVerb = 3
)
