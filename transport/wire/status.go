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
	StatusOutOfOrder       Status = 8  // After is not stored; retriable, nothing recorded
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
	StatusIndexCap         Status = 26 // too many messages with a record of their own: publishes of such are refused
	StatusRestored         Status = 27 // from before a restore, and without a record: cannot be judged
	StatusNotEmpty         Status = 28 // a restore would replace what is here
	StatusRestoreStale     Status = 29 // another restore is under way, or this one was given up or replaced
	StatusLeaseCap         Status = 30 // too many deliveries that their consumers have not answered for
	StatusBusy             Status = 31 // more than one entry may do: nothing happened, the same request may go out again
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
	LeaseReturned LeaseState = 9 // given back by leave, or taken back by command
	LeaseRejected LeaseState = 10
)

// SettleVerb is what to do with a delivery.
type SettleVerb uint8

const (
	VerbAck    SettleVerb = 1
	VerbNack   SettleVerb = 2
	VerbExtend SettleVerb = 3
	VerbReject SettleVerb = 4 // a dead letter at once
)

// EditVerb is what to do with messages named by place.
type EditVerb uint8

const (
	EditDelete  EditVerb = 1 // gone for good; not while leased
	EditRequeue EditVerb = 2 // parked or delayed: ready now
	EditRelease EditVerb = 3 // leased: taken from its consumer and ready
	EditMove    EditVerb = 4 // to the end of another queue; not while leased
)

// EditState is what became of one place.
type EditState uint8

const (
	EditDone      EditState = 1
	EditNotHere   EditState = 2 // never stored, gone, or moved already
	EditLeased    EditState = 3 // release it first, or wait
	EditUnchanged EditState = 4 // the verb does not apply to its state
	EditRefused   EditState = 5 // the target does not exist, is full or unknown
	EditChanged   EditState = 6 // handed out, or come back, since it was looked at
	EditCapped    EditState = 7 // it would need a record, and there are as many as may be
)

// MessageState is where a message is, for those who look.
type MessageState uint8

const (
	MessageReady   MessageState = 1
	MessageBlocked MessageState = 2 // ready, behind an earlier one of its key
	MessageDelayed MessageState = 3
	MessageLeased  MessageState = 4
	MessageParked  MessageState = 5
)

// EventKind is what happened to a message that failed at least once.
type EventKind uint8

const (
	EventExpired  EventKind = 1 // its lease ran out
	EventNacked   EventKind = 2
	EventGone     EventKind = 3 // its consumer was given up
	EventLeft     EventKind = 4 // its consumer left while its handler ran
	EventRejected EventKind = 5
	EventLeased   EventKind = 6
	EventDead     EventKind = 7 // it became a dead letter
	EventParked   EventKind = 8
	EventRequeued EventKind = 9
	EventReleased EventKind = 10 // its lease was taken by command
)

// ConditionField is what of a message a condition looks at. Values are on the wire and
// only ever appended to.
type ConditionField uint8

const (
	FieldReason ConditionField = 1 // why it is a dead letter or parked
	FieldError  ConditionField = 2 // its first or its last error
	FieldOrigin ConditionField = 3 // the queue that a dead letter came from
	FieldKey    ConditionField = 4 // its ordering key
	FieldBizID  ConditionField = 5
	FieldBody   ConditionField = 6
)

// ConditionMatch is how a condition's value is compared. Values are on the wire and only
// ever appended to.
type ConditionMatch uint8

const (
	MatchEqual  ConditionMatch = 1
	MatchRegexp ConditionMatch = 2 // RE2, anywhere in the field
)
