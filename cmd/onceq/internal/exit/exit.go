// Package exit turns an error into the exit code of the process. Scripts build
// on these codes: they are only ever appended to.
package exit

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"onceq/client"
	"onceq/transport/wire"
)

// The exit codes.
const (
	OK          = 0
	Failure     = 1   // an error that none of the others names
	Usage       = 2   // the command line is wrong
	NotFound    = 3   // no such queue, node or message
	Conflict    = 4   // something that exists is in the way
	Denied      = 5   // not allowed
	Unavailable = 6   // nothing happened, and the same call may succeed later
	Unknown     = 7   // it may have happened or not; the id to look up is printed
	CheckFailed = 8   // a check came out red
	Interrupted = 130 // ended by a signal
)

// Error is an error that brings its exit code along.
type Error struct {
	Code int
	Err  error
	Hint string // what to do, for people; may be empty
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without its code.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error with a code.
func Errorf(code int, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Hint adds what to do to err and leaves its code as it is.
func Hint(err error, hint string) error {
	return &Error{Code: Of(err), Err: err, Hint: hint}
}

// Of is the exit code for err.
func Of(err error) int {
	if err == nil {
		return OK
	}
	var own *Error
	if errors.As(err, &own) {
		return own.Code
	}
	if errors.Is(err, client.ErrOutcomeUnknown) {
		return Unknown
	}
	if code := WireCode(err); code != 0 {
		return OfCode(code)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Interrupted
	case errors.Is(err, context.DeadlineExceeded):
		return Unavailable
	case errors.Is(err, syscall.EADDRINUSE):
		return Conflict
	}
	return Failure
}

// WireCode is the stable code that err carries, 0 when there is none.
func WireCode(err error) wire.Code {
	var answered *client.Error
	if errors.As(err, &answered) {
		return answered.Code
	}
	if errors.Is(err, client.ErrOutcomeUnknown) {
		return wire.CodeOutcomeUnknown
	}
	return 0
}

// OfCode holds the one table from stable codes to exit codes.
func OfCode(c wire.Code) int {
	switch c {
	case wire.CodeNoQueue, wire.CodeNoNode, wire.CodeNotStored, wire.CodeSealed:
		return NotFound
	case wire.CodeConflict, wire.CodeRevision, wire.CodeEpochMismatch, wire.CodeFenced,
		wire.CodeBodyDiffers, wire.CodeStale, wire.CodeMembership, wire.CodeLeaseLost,
		wire.CodeConsumerGone, wire.CodeWrongCluster, wire.CodeWrongGroup, wire.CodeNotEmpty, wire.CodeRestoreStale:
		return Conflict
	case wire.CodeUnreachable, wire.CodeNotLeader, wire.CodeNoLeader, wire.CodeOverloaded,
		wire.CodeShuttingDown, wire.CodeDiskFull, wire.CodeQueueFull, wire.CodeWindowFull, wire.CodeOutOfOrder,
		wire.CodeSessionCap, wire.CodeOutcomeCap, wire.CodeIndexCap, wire.CodeConsumerCap, wire.CodeLeaseCap,
		wire.CodeFlowControl, wire.CodeSlowReader, wire.CodeBackup:
		return Unavailable
	case wire.CodeOutcomeUnknown, wire.CodeBelowFloor, wire.CodeSessionExpired, wire.CodeRestored:
		return Unknown
	case wire.CodeBadBackup:
		return CheckFailed
	case wire.CodeBadName, wire.CodeBadOptions, wire.CodeBadSettings:
		return Usage
	}
	return Failure
}
