package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"onceq/transport/wire"
)

// Condition is what a message must meet to be redriven.
type Condition = wire.Condition

// What a condition looks at, and how its value is compared.
const (
	FieldReason = wire.FieldReason // why the message is a dead letter or parked
	FieldError  = wire.FieldError  // its first or its last error
	FieldOrigin = wire.FieldOrigin // the queue that a dead letter came from
	FieldKey    = wire.FieldKey    // its ordering key
	FieldBizID  = wire.FieldBizID
	FieldBody   = wire.FieldBody

	MatchEqual  = wire.MatchEqual
	MatchRegexp = wire.MatchRegexp // RE2, anywhere in the field
)

// RedriveOptions say what Redrive sends where.
type RedriveOptions struct {
	// To is the queue to move to, another one. With "" each dead letter goes to the queue that it came
	// from, what was parked where it was published is made ready there, and others are
	// left alone.
	To string
	// Where are conditions, all of which must hold. The leader evaluates them beside
	// whatever it applies. At most 16.
	Where []Condition
	// Only names the messages to look at, at most; default: all that are ready or parked
	// when it begins.
	Only []Place
	// Rate is how many to move a second at most; default: as fast as it goes.
	Rate float64
	// DryRun moves nothing and counts what would be moved.
	DryRun bool
	// Progress, if there is one, is called after each step.
	Progress func(Redriven)
	// Would, if there is one, is called by a dry run for each message that would be moved.
	Would func(id, target string)
	// StepTimeout bounds each step, whose request is repeated until it is answered;
	// default: only the context does.
	StepTimeout time.Duration
}

// Redriven is what a redrive has done so far, or would do.
type Redriven struct {
	Seen    uint64 // looked at
	Moved   uint64 // also those made ready in place; of a dry run: what would be
	Refused uint64 // their target does not exist or is full
	Skipped uint64 // gone, held by a consumer, or handed out since they were looked at
	// Targets counts what a dry run would move, by queue; Oldest is the greatest age of it.
	Targets map[string]uint64
	Oldest  time.Duration
}

// Redrive sends dead letters and parked messages of a queue back to work: to the end of
// another queue, with their failures counted from zero. A dead letter that goes back to
// where it came from keeps its priority, in any other queue it has none; parked messages
// keep their place. It goes in small steps, each of
// which happens once, also when its answer is lost or the leader changes. What it was
// told of is returned also with an error; what was moved stays moved, and the same again
// goes on with the rest. Messages that arrive in the queue while it lasts are not met.
func (a *Admin) Redrive(ctx context.Context, queue string, o RedriveOptions) (Redriven, error) {
	if o.To == queue && queue != "" {
		return Redriven{}, newError(wire.CodeBadOptions, "redrive %s to %s: that is the queue they are in: name another", queue, o.To)
	}
	incarnation, group := a.c.topo.identity()
	r := redrive{a: a, o: o, done: Redriven{Targets: map[string]uint64{}}}
	r.next = wire.Redrive{Incarnation: incarnation, Group: group, Queue: queue, Target: o.To, Where: o.Where, Dry: o.DryRun}
	err := r.run(ctx)
	return r.done, err
}

// redrive is a run.
type redrive struct {
	a    *Admin
	o    RedriveOptions
	next wire.Redrive // the step that comes next
	done Redriven
}

func (r *redrive) run(ctx context.Context) error {
	first, err := r.ask(ctx)
	if err != nil || !first.More {
		return err
	}
	r.next.Number, r.next.Edited, r.next.Ends = first.Number, first.Edited, first.Ends
	r.next.Limit = wire.RedriveMax
	if r.o.Rate > 0 {
		r.next.Limit = uint32(min(wire.RedriveMax, max(1, r.o.Rate/5)))
	}
	if len(r.o.Only) == 0 {
		return r.steps(ctx)
	}
	r.next.One = true
	for _, at := range r.o.Only {
		r.next.At = at
		if err := r.steps(ctx); err != nil {
			return err
		}
	}
	return nil
}

// steps goes on until there is no more.
func (r *redrive) steps(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return causeOf(ctx) // between two steps: nothing is under way
		}
		began := time.Now()
		_, _ = rand.Read(r.next.Nonce[:]) // never fails
		reply, err := r.ask(ctx)
		if err != nil {
			return err
		}
		r.note(&reply)
		r.next.Edited = reply.Edited
		if reply.Status == wire.StatusRevision {
			continue // somebody else has edited the queue: from the same place again
		}
		r.next.From = reply.Next
		if !reply.More {
			return nil
		}
		if r.o.Rate > 0 && reply.Moved > 0 && !r.o.DryRun {
			rest := time.Duration(float64(reply.Moved)/r.o.Rate*float64(time.Second)) - time.Since(began)
			pause(ctx, rest)
		}
	}
}

func (r *redrive) note(reply *wire.RedriveReply) {
	d := &r.done
	d.Seen += uint64(reply.Seen)
	d.Moved += uint64(reply.Moved) + uint64(len(reply.Matches))
	d.Refused += uint64(reply.Refused)
	d.Skipped += uint64(reply.Skipped)
	for _, m := range reply.Matches {
		target := ""
		if int(m.Target) < len(reply.Targets) {
			target = reply.Targets[m.Target]
		}
		d.Targets[target]++
		d.Oldest = max(d.Oldest, time.Duration(m.Age))
		if r.o.Would != nil {
			r.o.Would(wire.FormatMessageID(r.next.Queue, m.Lane, m.Offset), target)
		}
	}
	if r.o.Progress != nil {
		r.o.Progress(*d)
	}
}

// ask asks for one step until there is an answer.
func (r *redrive) ask(ctx context.Context) (wire.RedriveReply, error) {
	if r.o.StepTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.o.StepTimeout, fmt.Errorf("no answer within %s", r.o.StepTimeout))
		defer cancel()
	}
	ask := r.a.c.ask
	if r.next.Dry || r.next.Number == 0 {
		ask = r.a.c.read // the first one moves nothing: it is told what there is
	}
	payload, err := ask(ctx, wire.OpRedrive, r.next.Append)
	if err != nil {
		return wire.RedriveReply{}, err
	}
	reply, err := wire.DecodeRedriveReply(payload)
	switch {
	case err != nil || reply.Status == wire.StatusOK || reply.Status == wire.StatusRevision:
	case reply.Status == wire.StatusNoQueue:
		err = statusError(reply.Status, "queue "+r.a.missing(ctx, r.next.Queue, r.o.To))
	default:
		err = statusError(reply.Status, "queue "+r.next.Queue)
	}
	return reply, err
}

// missing is which of two queues an answer means that says of one of them, and not
// of which, that it does not exist. target may be "".
func (a *Admin) missing(ctx context.Context, source, target string) string {
	if target == "" {
		return source
	}
	for _, name := range []string{source, target} {
		if _, err := a.Queue(ctx, name); errors.Is(err, ErrNoQueue) {
			return name
		}
	}
	return source // it was created anew, and its messages went with the former one
}
