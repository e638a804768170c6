package wire

import "fmt"

var opNames = map[Op]string{
	OpHello: "hello", OpPing: "ping", OpTopology: "topology", OpError: "error",
	OpOpenSession: "open session", OpCloseSession: "close session", OpPublish: "publish", OpSeal: "seal",
	OpAttach: "attach", OpLeave: "leave", OpSettle: "settle",
	OpQueueCreate: "queue create", OpQueueDelete: "queue delete", OpQueuePurge: "queue purge",
	OpQueueUpdate: "queue update", OpQueuePause: "queue pause", OpEdit: "edit", OpAckPublish: "ack and publish",
	OpReceive: "receive", OpRelease: "release",
	OpOutcome: "outcome", OpQueueShow: "queue show", OpQueueList: "queue list",
	OpPeek: "peek", OpMessageShow: "message show", OpConsumers: "consumers", OpSessions: "sessions", OpRedrive: "redrive",
	OpRestoreBegin: "restore begin", OpRestoreChunk: "restore chunk", OpRestoreEnd: "restore end",
	OpCommitted: "committed", OpBackupOpen: "backup open", OpBackupRead: "backup read",
	OpDeliver: "deliver", OpLost: "lost",
	OpNodeStatus: "node status", OpDigest: "digest", OpMembers: "members",
	OpMemberAdd: "member add", OpMemberRemove: "member remove", OpMemberTransfer: "member transfer",
}

// String is the op's name, for logs.
func (o Op) String() string { return nameOf(opNames, o, "op") }

var statusNames = map[Status]string{
	StatusOK: "ok", StatusSessionExpired: "session expired", StatusFenced: "fenced",
	StatusBelowFloor: "below floor", StatusWindowFull: "window full", StatusSealed: "sealed",
	StatusBodyDiffers: "body differs", StatusOutOfOrder: "out of order", StatusQueueFull: "queue full",
	StatusTooLarge: "too large", StatusNoQueue: "no queue", StatusSessionCap: "too many sessions",
	StatusOutcomeCap: "too many open outcomes", StatusEpochMismatch: "epoch mismatch",
	StatusNotStored: "not stored so far", StatusLeaseLost: "lease lost", StatusConsumerGone: "consumer gone",
	StatusStale: "stale", StatusConsumerCap: "too many consumers", StatusConflict: "conflict",
	StatusQueueCap: "too many queues", StatusRevision: "revision has changed", StatusUnsupported: "unsupported",
	StatusWrongIncarnation: "wrong incarnation", StatusMalformed: "malformed",
	StatusIndexCap: "too many indexed messages", StatusRestored: "restored: cannot be judged",
	StatusNotEmpty: "the cluster is not empty", StatusRestoreStale: "another restore",
	StatusLeaseCap: "too many leases", StatusBusy: "too much at once",
}

// String is the status in words.
func (s Status) String() string { return nameOf(statusNames, s, "status") }

var leaseStateNames = map[LeaseState]string{
	LeaseHeld: "held", LeaseAcked: "acked", LeaseNacked: "nacked", LeaseExpired: "expired", LeaseGone: "consumer gone",
	LeasePurged: "purged", LeaseDeleted: "queue deleted", LeaseUnknown: "unknown", LeaseReturned: "returned",
	LeaseRejected: "rejected",
}

// String is the state in words.
func (s LeaseState) String() string { return nameOf(leaseStateNames, s, "lease state") }

var verbNames = map[SettleVerb]string{VerbAck: "ack", VerbNack: "nack", VerbExtend: "extend", VerbReject: "reject"}

// String is the verb's name.
func (v SettleVerb) String() string { return nameOf(verbNames, v, "verb") }

var editVerbNames = map[EditVerb]string{
	EditDelete: "delete", EditRequeue: "requeue", EditRelease: "release", EditMove: "move",
}

// String is the verb's name.
func (v EditVerb) String() string { return nameOf(editVerbNames, v, "edit verb") }

var editStateNames = map[EditState]string{
	EditDone: "done", EditNotHere: "not here", EditLeased: "leased", EditUnchanged: "unchanged", EditRefused: "refused",
	EditChanged: "changed", EditCapped: "too many indexed messages",
}

// String is the state in words.
func (s EditState) String() string { return nameOf(editStateNames, s, "edit state") }

var conditionFieldNames = map[ConditionField]string{
	FieldReason: "reason", FieldError: "error", FieldOrigin: "origin", FieldKey: "key", FieldBizID: "biz-id", FieldBody: "body",
}

// String is the field's name.
func (f ConditionField) String() string { return nameOf(conditionFieldNames, f, "condition field") }

var conditionMatchNames = map[ConditionMatch]string{MatchEqual: "=", MatchRegexp: "~"}

// String is how the match is written.
func (m ConditionMatch) String() string { return nameOf(conditionMatchNames, m, "condition match") }

var messageStateNames = map[MessageState]string{
	MessageReady: "ready", MessageBlocked: "blocked", MessageDelayed: "delayed", MessageLeased: "leased", MessageParked: "parked",
}

// String is the state in a word.
func (s MessageState) String() string { return nameOf(messageStateNames, s, "message state") }

var eventNames = map[EventKind]string{
	EventExpired: "lease expired", EventNacked: "nacked", EventGone: "consumer gone", EventLeft: "consumer left",
	EventRejected: "rejected", EventLeased: "leased", EventDead: "dead letter", EventParked: "parked",
	EventRequeued: "requeued", EventReleased: "released",
}

// String is the event in words.
func (k EventKind) String() string { return nameOf(eventNames, k, "event") }

// String is the code as users see it: "ONCEQ-1002".
func (c Code) String() string { return fmt.Sprintf("ONCEQ-%04d", uint16(c)) }

func nameOf[T ~uint8](names map[T]string, v T, kind string) string {
	if name, ok := names[v]; ok {
		return name
	}
	return fmt.Sprintf("%s %d", kind, uint8(v))
}

// codeOf says which error code a status is shown as. Only StatusOK has none.
var codeOf = map[Status]Code{
	StatusSessionExpired: CodeSessionExpired, StatusFenced: CodeFenced, StatusBelowFloor: CodeBelowFloor,
	StatusWindowFull: CodeWindowFull, StatusSealed: CodeSealed, StatusBodyDiffers: CodeBodyDiffers,
	StatusOutOfOrder: CodeOutOfOrder, StatusQueueFull: CodeQueueFull, StatusTooLarge: CodeTooLarge,
	StatusNoQueue: CodeNoQueue, StatusSessionCap: CodeSessionCap, StatusOutcomeCap: CodeOutcomeCap,
	StatusEpochMismatch: CodeEpochMismatch, StatusNotStored: CodeNotStored, StatusLeaseLost: CodeLeaseLost,
	StatusConsumerGone: CodeConsumerGone, StatusStale: CodeStale, StatusConsumerCap: CodeConsumerCap,
	StatusConflict: CodeConflict, StatusQueueCap: CodeQueueCap, StatusRevision: CodeRevision,
	StatusUnsupported: CodeUnsupported, StatusWrongIncarnation: CodeWrongCluster, StatusMalformed: CodeMalformed,
	StatusIndexCap: CodeIndexCap, StatusRestored: CodeRestored, StatusNotEmpty: CodeNotEmpty, StatusRestoreStale: CodeRestoreStale,
	StatusLeaseCap: CodeLeaseCap, StatusBusy: CodeOverloaded,
}

// CodeOf is the error code that stands for a status: 0 for StatusOK,
// CodeInternal for a status that this version does not know.
func CodeOf(s Status) Code {
	if s == StatusOK {
		return 0
	}
	if c, ok := codeOf[s]; ok {
		return c
	}
	return CodeInternal
}
