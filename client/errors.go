package client

import (
	"context"
	"errors"
	"fmt"

	"onceq/transport/wire"
)

// Code is the stable number of an error; 'onceq errors' explains each.
type Code = wire.Code

// Error is what the cluster or the client refused, with its stable code. It is
// compared with errors.Is against the sentinels below: two Errors are the same
// when their codes are.
type Error struct {
	Code      Code
	Retriable bool   // the same call may succeed later
	Text      string // what happened, and what to do

	cause  error
	leader string // with CodeNotLeader: where the leader may be
}

func newError(code wire.Code, format string, args ...any) *Error {
	return &Error{Code: code, Retriable: retriable(code), Text: fmt.Sprintf(format, args...)}
}

// Error is "ONCEQ-2010: no queue "orders": create it first".
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("ONCEQ-%d: %s: %v", e.Code, e.Text, e.cause)
	}
	return fmt.Sprintf("ONCEQ-%d: %s", e.Code, e.Text)
}

// Is reports whether target is an *Error with the same code. ErrConsumerGone is
// ErrOutcomeUnknown too, since whether the settle counted cannot be told.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && (t.Code == e.Code || e.Code == wire.CodeConsumerGone && t.Code == wire.CodeOutcomeUnknown)
}

// Unwrap returns what the error came from, such as a context's end.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) because(cause error) *Error {
	e.cause = cause
	return e
}

// The sentinels, for errors.Is.
var (
	// ErrUnreachable: no node answers, each address and reason is in the text.
	ErrUnreachable error = newError(wire.CodeUnreachable, "cannot reach any node")
	// ErrNoLeader: nodes answer, but none leads; a majority of them is down or an
	// election is running. Nothing was stored.
	ErrNoLeader error = newError(wire.CodeNoLeader, "no leader")
	// ErrOutcomeUnknown is what every OutcomeUnknownError is.
	ErrOutcomeUnknown error = newError(wire.CodeOutcomeUnknown, "outcome unknown")
	// ErrWrongCluster: a node of another cluster answers at a known address.
	ErrWrongCluster error = newError(wire.CodeWrongCluster, "another cluster")
	// ErrSessionExpired: the cluster does not know a producer's session any more.
	ErrSessionExpired error = newError(wire.CodeSessionExpired, "session expired")
	// ErrRestored: the publish is from before the cluster was restored from a
	// backup, which has no record of it; whether it was stored nobody can tell.
	ErrRestored error = newError(wire.CodeRestored, "restored: cannot be judged")
	// ErrNotEmpty: a backup was not restored, the cluster has queues.
	ErrNotEmpty error = newError(wire.CodeNotEmpty, "the cluster is not empty")
	// ErrRestoreStale: another restore is under way, or has taken this one's place.
	ErrRestoreStale error = newError(wire.CodeRestoreStale, "another restore")
	// ErrBadBackup: a file is no backup, or is damaged; the text says where.
	ErrBadBackup error = newError(wire.CodeBadBackup, "bad backup")
	// ErrBackup: a backup could not be made, or was cut short.
	ErrBackup error = newError(wire.CodeBackup, "backup failed")
	// ErrFenced: another process has opened the named session since.
	ErrFenced error = newError(wire.CodeFenced, "fenced")
	// ErrQueueFull: not stored, the queue has reached its length.
	ErrQueueFull error = newError(wire.CodeQueueFull, "queue full")
	// ErrWindowFull: not sent, as many publishes of this producer are without an
	// outcome as it may have.
	ErrWindowFull error = newError(wire.CodeWindowFull, "too many publishes without an outcome")
	// ErrDiskFull: not stored, the disk of a node that votes is almost full.
	ErrDiskFull error = newError(wire.CodeDiskFull, "disk almost full")
	// ErrTooLarge: not stored, a limit of sizes is passed.
	ErrTooLarge error = newError(wire.CodeTooLarge, "too large")
	// ErrNoQueue: there is no queue of that name.
	ErrNoQueue error = newError(wire.CodeNoQueue, "no such queue")
	// ErrBadOptions: not sent, options of a message exclude each other or one is out
	// of range, see Message; or messages were to go to the queue that they are in.
	ErrBadOptions error = newError(wire.CodeBadOptions, "options exclude each other")
	// ErrIndexCap: not stored, the cluster holds too many messages with a key, a
	// delay or a time to live, or that came back.
	ErrIndexCap error = newError(wire.CodeIndexCap, "too many indexed messages")
	// ErrNotStored: the publish was sealed; it is not stored and never will be.
	ErrNotStored error = newError(wire.CodeSealed, "not stored, and never will be")
	// ErrLeaseLost: somebody else has or had the message; what was done with it
	// does not count. The text says why the lease was lost.
	ErrLeaseLost error = newError(wire.CodeLeaseLost, "lease lost")
	// ErrConsumerGone: the cluster has given the consumer up while an answer was
	// open, so whether an ack counted cannot be told.
	ErrConsumerGone error = newError(wire.CodeConsumerGone, "consumer gone")
	// ErrNoMessage: the message is not in its queue (any more).
	ErrNoMessage error = newError(wire.CodeNotStored, "no such message")
	// ErrNoSession: there is no such session (any more).
	ErrNoSession error = newError(wire.CodeSessionExpired, "no such session")
	// ErrConflict: the queue exists with other settings, or another queue needs it;
	// the text says which.
	ErrConflict error = newError(wire.CodeConflict, "conflict")
	// ErrRevision: the queue was changed by somebody else meanwhile.
	ErrRevision error = newError(wire.CodeRevision, "the queue has changed")
	// ErrBadName: the name of a queue or session is not acceptable.
	ErrBadName error = newError(wire.CodeBadName, "bad name")
	// ErrBadSettings: settings of a queue exclude each other or one is out of range; the
	// text says which.
	ErrBadSettings error = newError(wire.CodeBadSettings, "bad settings of a queue")
	// ErrMembership: a membership change was refused.
	ErrMembership error = newError(wire.CodeMembership, "membership change refused")
	// ErrNoNode: no such node.
	ErrNoNode error = newError(wire.CodeNoNode, "no such node")
	// ErrUnsupported: the cluster's version cannot do that.
	ErrUnsupported error = newError(wire.CodeUnsupported, "not supported")
	// ErrAlreadySettled: another verb was asked for before; nothing was done.
	ErrAlreadySettled = errors.New("already settled")
	// ErrClosed: the Client or Producer was closed.
	ErrClosed error = closedError{}
)

type closedError struct{}

func (closedError) Error() string { return "client closed" }

// OutcomeUnknownError says that a publish was sent and its fate was not known
// when the caller's context ended: it may be stored or not. errors.Is(err,
// ErrOutcomeUnknown) holds for it, and for what Cause is.
//
// What to do: unless Final, call Client.Seal with ID, from this Client and before
// the Producer is closed. Stored means done; Never means that it may be published
// again. The producer has stopped sending it, so it may be sealed. Final: nobody
// can tell any more, so the consumer's inbox has to, by biz-id.
type OutcomeUnknownError struct {
	ID InnerMsgID
	// Final says that the cluster has no way left to tell; Seal and Outcome will say
	// Unknown.
	Final bool
	Cause error
}

func (e *OutcomeUnknownError) Error() string {
	do := "look it up by its id"
	if e.Final {
		do = "the cluster cannot tell any more"
	}
	s := fmt.Sprintf("ONCEQ-%d: %s may or may not be stored: %s", wire.CodeOutcomeUnknown, e.ID, do)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Is reports whether target is ErrOutcomeUnknown.
func (e *OutcomeUnknownError) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == wire.CodeOutcomeUnknown
}

// Unwrap returns why the client stopped waiting.
func (e *OutcomeUnknownError) Unwrap() error { return e.Cause }

// retriable says of a code that nothing happened and that the same request may
// do better later.
func retriable(code wire.Code) bool {
	switch code {
	case wire.CodeUnreachable, wire.CodeNotLeader, wire.CodeNoLeader, wire.CodeOverloaded, wire.CodeShuttingDown, wire.CodeBackup,
		wire.CodeQueueFull, wire.CodeDiskFull, wire.CodeOutcomeCap, wire.CodeIndexCap, wire.CodeSessionCap, wire.CodeConsumerCap, wire.CodeLeaseCap, wire.CodeOutOfOrder, wire.CodeWindowFull:
		return true
	}
	return false
}

func fromReply(e wire.ErrorReply) *Error {
	return &Error{Code: e.Code, Retriable: e.Retriable, Text: e.Text, leader: e.Leader}
}

// transient says that the server appended nothing and that the request should
// go out again, maybe to another node.
func (e *Error) transient() bool {
	switch e.Code {
	case wire.CodeNotLeader, wire.CodeNoLeader, wire.CodeOverloaded, wire.CodeShuttingDown:
		return true
	case wire.CodeUnsupported:
		return e.Retriable // until all nodes are known to be new enough
	}
	return false
}

// unclear says that the server itself does not know what became of the request.
func (e *Error) unclear() bool {
	return e.Code == wire.CodeOutcomeUnknown || e.Code == wire.CodeInternal
}

// statusError is the error of a machine's refusal. what names its object.
func statusError(st wire.Status, what string) *Error {
	e := newError(wire.CodeOf(st), "%s: %s", what, st)
	switch st {
	case wire.StatusNoQueue:
		e.Text = what + ": no such queue: create it first"
	case wire.StatusQueueFull:
		e.Text = what + ": the queue is full: wait for consumers, or raise its length"
	case wire.StatusTooLarge:
		e.Text = what + ": too large: send less at once, or raise the limit"
	case wire.StatusSessionExpired, wire.StatusWrongIncarnation:
		e.Text = what + ": the session is not known to the cluster any more"
	case wire.StatusRestored:
		e.Text = what + ": from before the cluster was restored from a backup, which has no record of it: find out by its biz-id"
	case wire.StatusFenced, wire.StatusEpochMismatch:
		e.Text = what + ": another process has opened this session's name since: stop one of the two"
	case wire.StatusBodyDiffers:
		e.Text = what + ": another message is stored under this id: two processes share a session"
	case wire.StatusSealed:
		e.Text = what + ": sealed: it is not stored and never will be"
	case wire.StatusSessionCap:
		e.Text = what + ": the cluster has no room for another session: close some"
	case wire.StatusIndexCap:
		e.Text = what + ": the cluster holds too many messages with options of their own: consume some, or publish without options"
	case wire.StatusOutcomeCap:
		e.Text = what + ": the cluster keeps too many open outcomes: try again later"
	case wire.StatusConsumerCap:
		e.Text = what + ": the cluster has no room for another consumer"
	case wire.StatusLeaseCap:
		e.Text = what + ": the cluster's consumers hold too many messages, or do not say what they know: settle some"
	case wire.StatusBusy:
		e.Text = what + ": more than the cluster does at once: try again"
	case wire.StatusRevision:
		e.Text = what + ": the queue has changed since it was looked at: look again"
	}
	return e
}

// endedError is the error of a call whose context ended before anything was
// sent, or read: nothing happened. why is what kept the client from that.
type endedError struct {
	what  string
	read  bool // it was to be read
	cause error
	why   error
}

func (e *endedError) Error() string {
	text := fmt.Sprintf("%s: nothing was sent: %v", e.what, e.cause)
	if e.read {
		text = fmt.Sprintf("%s: nothing was read: %v", e.what, e.cause)
	}
	if e.why == nil {
		return text
	}
	return fmt.Sprintf("%v: %s", e.why, text)
}

func (e *endedError) Unwrap() []error {
	if e.why == nil {
		return []error{e.cause}
	}
	return []error{e.cause, e.why}
}

// causeOf is why ctx ended. Who gave the context a cause of its own still finds
// context.DeadlineExceeded or context.Canceled in it.
func causeOf(ctx context.Context) error {
	kind, err := ctx.Err(), context.Cause(ctx)
	switch {
	case kind == nil:
		return context.Canceled // it is about to end
	case errors.Is(err, kind):
		return err
	}
	return &causeError{err, kind}
}

// unanswered is the error of a request whose answer was not waited for. Why is there
// only in words, and how the context ended: its cause may be an Error, for another
// request, and must not be taken for the answer to this one.
type unanswered struct{ cause, kind error }

func (e *unanswered) Error() string        { return e.cause.Error() }
func (e *unanswered) Is(target error) bool { return target == e.kind }

// answerOf is the server's answer that err is, nil for none. One that err wraps does
// not count: it may be what ended the caller's context.
func answerOf(err error) *Error {
	e, _ := err.(*Error)
	return e
}

// answered says that the server's answer was an error with this code.
func answered(err error, code wire.Code) bool {
	e := answerOf(err)
	return e != nil && e.Code == code
}

// causeError is a context's own cause, and how it ended.
type causeError struct{ cause, kind error }

func (e *causeError) Error() string   { return e.cause.Error() }
func (e *causeError) Unwrap() []error { return []error{e.cause, e.kind} }
