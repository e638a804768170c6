package client

import (
	"fmt"

	"onceq/transport/wire"
)

// Error is what the cluster or the client refused, with its stable code.
// Compare with errors.Is against the sentinels below, or look at Code.
type Error struct {
	Code      wire.Code
	Retriable bool   // the same call may succeed later
	Text      string // what, and what to do
}

func (e *Error) Error() string { return fmt.Sprintf("ONCEQ-%d: %s", e.Code, e.Text) }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// The sentinels, for errors.Is.
var (
	ErrUnreachable    error = &Error{Code: wire.CodeUnreachable, Retriable: true, Text: "cannot reach any node"}
	ErrNoLeader       error = &Error{Code: wire.CodeNoLeader, Retriable: true, Text: "no leader"}
	ErrOutcomeUnknown error = &Error{Code: wire.CodeOutcomeUnknown, Text: "outcome unknown"}
	ErrWrongCluster   error = &Error{Code: wire.CodeWrongCluster, Text: "another cluster"}
	ErrSessionExpired error = &Error{Code: wire.CodeSessionExpired, Text: "session expired"}
	ErrFenced         error = &Error{Code: wire.CodeFenced, Text: "fenced"}
	ErrQueueFull      error = &Error{Code: wire.CodeQueueFull, Retriable: true, Text: "queue full"}
	ErrTooLarge       error = &Error{Code: wire.CodeTooLarge, Text: "too large"}
	ErrNoQueue        error = &Error{Code: wire.CodeNoQueue, Text: "no such queue"}
	ErrNotStored      error = &Error{Code: wire.CodeSealed, Text: "not stored, and never will be"}
	ErrLeaseLost      error = &Error{Code: wire.CodeLeaseLost, Text: "lease lost"}
	ErrConsumerGone   error = &Error{Code: wire.CodeConsumerGone, Text: "consumer gone"}
	ErrConflict       error = &Error{Code: wire.CodeConflict, Text: "conflict"}
	ErrRevision       error = &Error{Code: wire.CodeRevision, Text: "the queue has changed"}
	ErrBadName        error = &Error{Code: wire.CodeBadName, Text: "bad name"}
	ErrMembership     error = &Error{Code: wire.CodeMembership, Text: "membership change refused"}
	ErrNoNode         error = &Error{Code: wire.CodeNoNode, Text: "no such node"}
	ErrUnsupported    error = &Error{Code: wire.CodeUnsupported, Text: "not supported"}
	ErrClosed         error = errClosed{}
)

type errClosed struct{}

func (errClosed) Error() string { return "client closed" }

// OutcomeUnknownError says that a publish was sent and its fate is not known:
// it may be stored or not. (*Client).Outcome or (*Client).Seal resolve ID.
// errors.Is(err, ErrOutcomeUnknown) holds for it.
type OutcomeUnknownError struct {
	ID InnerMsgID
	// Final says that the cluster can no longer tell (its session is gone).
	Final bool
	Cause error
}

func (e *OutcomeUnknownError) Error() string { return "ONCEQ-1005: outcome unknown" }

// Is reports whether target is ErrOutcomeUnknown.
func (e *OutcomeUnknownError) Is(target error) bool { return target == ErrOutcomeUnknown }

// Unwrap returns why the client stopped waiting.
func (e *OutcomeUnknownError) Unwrap() error { return e.Cause }
