package fsm

import "math"

// Time is cluster time: nanoseconds that the log has moved the machine's clock
// by since the cluster was made. It is no wall clock and starts at 0.
type Time int64

const never Time = math.MaxInt64

// ConsumerID is made at random by the client library.
type ConsumerID [16]byte

// Nonce tells a repeated request from a new one.
type Nonce [16]byte

// Kind is the kind of a command. Values are in the log and only ever appended
// to. Kinds 16 and up are requests of clients and have the value of their wire
// opcode; lower ones are made by the leader alone.
type Kind uint8

const (
	KindTerm      Kind = 1 // the leader's first own entry
	KindDetach    Kind = 2 // the leader saw the consumer's connection end
	KindHoldGrace Kind = 3 // attaches are waiting: nobody's grace ends yet
	KindDigest    Kind = 4
	KindVerdict   Kind = 5 // what the voters had at a digest entry
	KindRaise     Kind = 6 // all members know a newer version of the machine

	KindOpenSession  Kind = 16
	KindCloseSession Kind = 17
	KindPublish      Kind = 18
	KindSeal         Kind = 19
	KindAttach       Kind = 20
	KindLeave        Kind = 21
	KindSettle       Kind = 22
	KindQueueCreate  Kind = 23
	KindQueueDelete  Kind = 24
	KindQueuePurge   Kind = 25
	KindQueueUpdate  Kind = 26
	KindQueuePause   Kind = 27
	KindEdit         Kind = 28
	KindAckPublish   Kind = 29
	KindReceive      Kind = 30
	KindRelease      Kind = 31
	KindRestoreBegin Kind = 32
	KindRestoreChunk Kind = 33
	KindRestoreEnd   Kind = 34
)

// Status is what the machine decided. Not a Go error: it is the same on every
// replica. Values are recorded in results and only ever appended to.
type Status uint8

const (
	StatusOK               Status = 1
	StatusSessionExpired   Status = 2
	StatusFenced           Status = 3
	StatusBelowFloor       Status = 4
	StatusWindowFull       Status = 5
	StatusSealed           Status = 6
	StatusBodyDiffers      Status = 7
	StatusOutOfOrder       Status = 8
	StatusQueueFull        Status = 9
	StatusTooLarge         Status = 10
	StatusNoQueue          Status = 11
	StatusSessionCap       Status = 12
	StatusOutcomeCap       Status = 13
	StatusEpochMismatch    Status = 14
	StatusNotStored        Status = 15
	StatusLeaseLost        Status = 16
	StatusConsumerGone     Status = 17
	StatusStale            Status = 18
	StatusConsumerCap      Status = 19
	StatusConflict         Status = 20
	StatusQueueCap         Status = 21
	StatusRevision         Status = 22
	StatusUnsupported      Status = 23
	StatusWrongIncarnation Status = 24
	StatusMalformed        Status = 25
	StatusIndexCap         Status = 26
	StatusRestored         Status = 27
	StatusNotEmpty         Status = 28
	StatusRestoreStale     Status = 29
	StatusLeaseCap         Status = 30
	StatusBusy             Status = 31
)

// LeaseState is what became of a delivery. Values are in snapshots and on the
// wire and only ever appended to.
type LeaseState uint8

const (
	LeaseHeld     LeaseState = 1
	LeaseAcked    LeaseState = 2
	LeaseNacked   LeaseState = 3
	LeaseExpired  LeaseState = 4
	LeaseGone     LeaseState = 5
	LeasePurged   LeaseState = 6
	LeaseDeleted  LeaseState = 7
	LeaseUnknown  LeaseState = 8
	LeaseReturned LeaseState = 9
	LeaseRejected LeaseState = 10
)

const (
	verbAck    = 1
	verbNack   = 2
	verbExtend = 3
	verbReject = 4
)
