package client

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"onceq/transport/wire"
)

// RetryAfter makes a handler's error give the message back after delay instead
// of after the queue's backoff. 0 is at once; more than 24 h counts as 24 h. err may be
// nil; the message comes back all the same.
func RetryAfter(delay time.Duration, err error) error {
	return &verbError{verb: wire.VerbNack, delay: min(max(delay, atOnce), wire.NackDelayMax), what: fmt.Sprintf("retry after %v", delay), err: err}
}

// DeadLetter makes a handler's error give the message up at once, whatever the
// delivery limit: it goes to the queue's dead-letter queue, or is parked when
// there is none. It keeps the text of err, and is given up also when err is nil.
func DeadLetter(err error) error {
	return &verbError{verb: wire.VerbReject, what: "dead letter", err: err}
}

// Drop makes a handler's error ack the message all the same: it is logged, and
// the message is gone.
func Drop(err error) error {
	return &verbError{verb: wire.VerbAck, what: "drop", err: err}
}

// atOnce is the delay of a nack that comes back without one: none at all stands
// for the queue's backoff.
const atOnce = time.Nanosecond

// verbError is a handler's error that says what to do with the message.
type verbError struct {
	verb  wire.SettleVerb
	delay time.Duration
	what  string
	err   error
}

func (e *verbError) Error() string {
	if e.err == nil {
		return e.what
	}
	return e.what + ": " + e.err.Error()
}

func (e *verbError) Unwrap() error { return e.err }

// verdict is what to settle a delivery with.
type verdict struct {
	verb   wire.SettleVerb
	delay  time.Duration
	reason string
}

// verdictFor is what a handler's error asks for.
func verdictFor(err error) verdict {
	e := (*verbError)(nil)
	if !errors.As(err, &e) {
		return verdict{verb: wire.VerbNack, reason: cut(err.Error())}
	}
	r := verdict{verb: e.verb, delay: e.delay}
	// The error may have been wrapped around the verb: then its whole text tells
	// more than what is inside.
	if err != error(e) {
		r.reason = cut(err.Error())
	} else if e.err != nil {
		r.reason = cut(e.err.Error())
	}
	if r.verb == wire.VerbAck {
		r.reason = ""
	}
	return r
}

// cut makes a reason fit what a message keeps.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= wire.ReasonBytesMax {
		return s
	}
	n := wire.ReasonBytesMax
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
