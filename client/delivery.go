package client

import (
	"context"
	"fmt"
	"time"

	"onceq/transport/wire"
)

// Delivery is one leased message. Its methods may be called from any goroutine.
type Delivery struct {
	s    *consumer
	life *life

	number   uint64 // the machine's, within the life
	place    MessageID
	attempt  uint32
	restored bool
	failures uint32
	at       int64
	raw      []byte // encoded message
	message  wire.Message
	dead     *wire.DeadLetter // nil unless it is one
	ctx      context.Context  // the handler's: it ends with the lease

	// Guarded by s.mu.
	phase    phase
	deadline time.Time // of the lease, by our own clock
	sure     time.Time // when the cluster was asked that has said last that it is held
	until    time.Time // to which Extend has prolonged it: kept alive so long in any case
	wanted   time.Time // the furthest that a call of Extend without an answer has asked for
	extends  int       // calls of Extend without an answer
	started  time.Time // when the handler was called
	verb     wire.SettleVerb
	delay    time.Duration
	reason   string
	chained  bool          // verb is asked for by an ack-and-publish, and by nothing else
	asking   bool          // a settle is under way
	alone    bool          // a frame that it was in was refused as a whole: next in one of its own
	unsure   bool          // an earlier settle may have counted: its answer was lost
	answered bool          // definite: answer says how it ended
	answer   error         // nil: as verb asked
	settled  chan struct{} // made when somebody waits; closed when answered
	cancel   context.CancelCauseFunc
	busy     bool // counted in consumer.busy
}

// phase is where a delivery is on its way through the client.
type phase uint8

const (
	buffered phase = iota // waits for a handler
	running               // its handler was called
	returned              // its handler has returned
)

// Context is the context that the handler was called with, and its like in a loop
// over Messages: it is cancelled with the cause ErrLeaseLost when the client learns
// that the lease is lost. Of a delivery from Receive it does not end: there the
// answer to Ack or Extend tells.
func (d *Delivery) Context() context.Context {
	if d.ctx == nil {
		return context.Background()
	}
	return d.ctx
}

// Body is the message's body. It must not be changed.
func (d *Delivery) Body() []byte { return d.message.Body }

// BizID is the sender's business id, "" when it gave none.
func (d *Delivery) BizID() string { return d.message.BizID }

// Headers are the message's headers, in the sender's order.
func (d *Delivery) Headers() []Header { return d.message.Headers }

// ID is the message's place, the same over all attempts.
func (d *Delivery) ID() MessageID { return d.place }

// Queue is the queue's name.
func (d *Delivery) Queue() string { return d.place.Queue }

// Attempt counts how often the message was handed out, this time included. 1
// means that nobody has seen it before, unless it is Restored.
func (d *Delivery) Attempt() int { return int(d.attempt) }

// Failures counts the attempts before that failed: given back with an error, lease
// ran out, consumer gone. The queue's delivery limit counts them.
func (d *Delivery) Failures() int { return int(d.failures) }

// Restored says that the message was stored before the cluster was restored from a
// backup. Whether it was handed out, or done, between the two nobody can tell:
// whoever must not do its work twice asks by BizID.
func (d *Delivery) Restored() bool { return d.restored }

// OrderingKey is what keeps the message in order among others, "" for none.
func (d *Delivery) OrderingKey() string { return d.message.OrderingKey }

// Priority is 0 to 9.
func (d *Delivery) Priority() int { return int(d.message.Priority) }

// DeadLetter says why the message is a dead letter and where it came from; false
// when it is none.
func (d *Delivery) DeadLetter() (DeadLetterInfo, bool) {
	if d.dead == nil {
		return DeadLetterInfo{}, false
	}
	return DeadLetterInfo{
		Reason: d.dead.Reason, FirstError: d.dead.FirstError, LastError: d.dead.LastError,
		Queue:    d.dead.OriginQueue,
		Origin:   wire.FormatMessageID(d.dead.OriginQueue, d.dead.OriginLane, d.dead.OriginOffset),
		Attempts: int(d.dead.OriginAttempts),
	}, true
}

// DeadLetterInfo is what a dead letter has behind it.
type DeadLetterInfo struct {
	Reason     string // why it is one
	FirstError string // of the handlers that failed, as far as they told
	LastError  string
	Queue      string // it came from
	Origin     string // its place there, "orders/17"
	Attempts   int    // it had there
}

// PublishedAt is when the message was stored, by the clock of the leader that
// stored it.
func (d *Delivery) PublishedAt() time.Time { return time.Unix(0, d.at) }

// Ack says that the message is done. nil means that the cluster has committed
// it: the message is never delivered again. ErrLeaseLost means that it did not
// count. ErrOutcomeUnknown means that it may have counted: ctx ended, and the client
// goes on trying; or the cluster gave the consumer up before it answered, then it is
// ErrConsumerGone too. Called again, it gives the same answer; after another verb,
// ErrAlreadySettled.
func (d *Delivery) Ack(ctx context.Context) error {
	return d.settle(ctx, verdict{verb: wire.VerbAck})
}

// Nack gives the message back, to be delivered again after the queue's backoff. The
// message keeps the text of err; nil for none. Its answers are like Ack's.
func (d *Delivery) Nack(ctx context.Context, err error) error {
	return d.settle(ctx, verdict{verb: wire.VerbNack, reason: textOf(err)})
}

// NackAfter is Nack with a delay of its own, as RetryAfter is for handlers: 0 is at
// once. One above 24 h is ErrBadOptions, and the delivery is still to be settled.
func (d *Delivery) NackAfter(ctx context.Context, delay time.Duration, err error) error {
	if delay > wire.NackDelayMax {
		return newError(wire.CodeBadOptions, "delivery %s: nack with a delay of %v: at most %v is accepted", d.place, delay, wire.NackDelayMax)
	}
	return d.settle(ctx, verdict{verb: wire.VerbNack, delay: max(delay, atOnce), reason: textOf(err)})
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return cut(err.Error())
}

// Reject gives the message up: it goes to the queue's dead-letter queue, or is
// parked when there is none, and keeps the reason. Its answers are like Ack's.
func (d *Delivery) Reject(ctx context.Context, reason string) error {
	return d.settle(ctx, verdict{verb: wire.VerbReject, reason: cut(reason)})
}

func (d *Delivery) settle(ctx context.Context, r verdict) error {
	s, verb := d.s, r.verb
	s.mu.Lock()
	if d.verb != 0 && (d.verb != verb || d.chained && !d.answered) {
		defer s.mu.Unlock()
		before := verbName(d.verb)
		if d.chained {
			before = "ack-and-publish"
		}
		return fmt.Errorf("delivery %s: %s after %s: %w", d.place, verbName(verb), before, ErrAlreadySettled)
	}
	s.settleLocked(d, r)
	if d.answered {
		defer s.mu.Unlock()
		return d.answer
	}
	if d.settled == nil {
		d.settled = make(chan struct{})
	}
	settled := d.settled
	s.mu.Unlock()
	select {
	case <-settled:
		return d.answer // set before the close, never changed
	case <-ctx.Done():
		return newError(wire.CodeOutcomeUnknown, "%s of %s has no answer yet", verbName(verb), d.place).because(causeOf(ctx))
	}
}

func verbName(v wire.SettleVerb) string {
	switch v {
	case wire.VerbAck:
		return "ack"
	case wire.VerbNack:
		return "nack"
	case wire.VerbReject:
		return "reject"
	}
	return "extend"
}

// Extend makes the lease last at least by from now. nil means that it is still
// held. Leases are kept alive without it for as long as WithAutoExtend says. More than
// 12 h is ErrBadOptions, and the lease is as it was: extend it again before it ends.
func (d *Delivery) Extend(ctx context.Context, by time.Duration) error {
	switch {
	case by <= 0:
		return fmt.Errorf("delivery %s: extend by %v: a positive duration is accepted", d.place, by)
	case by > wire.LeaseTimeMax:
		return newError(wire.CodeBadOptions, "delivery %s: extend by %v: at most %v is accepted", d.place, by, wire.LeaseTimeMax)
	}
	return d.s.extendOne(ctx, d, by)
}

// lostError says why a lease is lost.
func lostError(d *Delivery, st wire.LeaseState) error {
	why := st.String()
	switch st {
	case wire.LeaseExpired:
		why = "the lease ran out: extend it, or handle faster"
	case wire.LeaseGone:
		why = "the cluster did not hear from this consumer for too long and gave it up"
	case wire.LeasePurged:
		why = "the queue was purged"
	case wire.LeaseDeleted:
		why = "the queue was deleted"
	case wire.LeaseReturned:
		why = "it was given back, or released by command"
	case wire.LeaseNacked:
		why = "it was given back before"
	case wire.LeaseUnknown:
		why = "the cluster does not know this delivery (any more)"
	}
	return newError(wire.CodeLeaseLost, "delivery %s: lease lost: %s", d.place, why)
}
