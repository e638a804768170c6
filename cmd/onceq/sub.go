package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/format"
)

type subCmd struct {
	Queue      string        `arg:"" help:"Queue to consume."`
	N          *uint64       `short:"n" help:"End after that many messages, from 1 on." placeholder:"N"`
	Format     string        `short:"f" help:"How to write a message; see below." default:"%b\\n" placeholder:"FORMAT"`
	Output     string        `short:"o" help:"jsonl writes an object a line instead of --format." enum:"text,jsonl" default:"text"`
	UntilEmpty bool          `help:"End when the queue holds no message any more: none ready, leased or delayed."`
	EmptyFor   time.Duration `help:"With --until-empty, how long the queue must have stayed empty: for producers that are still at work, longer than a leader change takes." placeholder:"TIME"`
	Prefetch   int           `help:"How many messages to hold at most." default:"256" placeholder:"N"`
	Forward    string        `help:"Move each message to that queue once it was written, in place of acking it." placeholder:"QUEUE"`
	Label      string        `help:"Text that listings show for this consumer." placeholder:"TEXT"`
}

// Help shows the verbs of a format and examples.
func (*subCmd) Help() string {
	return `A message is acked after it has been written; if standard output fails, it is not,
and the cluster keeps it. A leader change does not repeat anything. If this
process dies between writing and acking, the message comes again, with a higher
attempt number.

--until-empty takes the leader's word, verified with a majority, that no message
is ready, delayed, or leased to anybody. Beside a producer that is still at work,
say with --empty-for how long that must have lasted.

With --forward a message is acked and published to the other queue in one atomic
step, one message at a time: it is in one queue or in the other, never in both and
never in neither, whatever is lost or repeated on the way. It keeps its body, headers,
biz-id, ordering key and priority, and gets a new id.

Format: ` + format.Verbs + `

Examples:
  onceq sub hello
  onceq sub orders -n 1 -f '%i %a %b\n'
  onceq sub orders.dead -f '%i %r %b\n'
  onceq sub orders --until-empty > rows.jsonl
  onceq sub orders --until-empty --empty-for 15s > rows.jsonl
  onceq sub orders -o jsonl | jq .biz_id
  onceq sub orders.in --forward orders --until-empty`
}

// errEnough ends a subscription that has what it wanted.
var errEnough = errors.New("enough")

// subscription is one run of `onceq sub`.
type subscription struct {
	cmd    *subCmd
	a      *app
	c      *client.Client
	format format.Format
	end    context.CancelCauseFunc

	failed  error  // why the handler could not go on: it ended the subscription, or would have
	buf     []byte // the handler's alone: it runs once at a time
	written atomic.Uint64
	last    atomic.Int64 // when the handler ended last, unix ns
	busy    atomic.Bool  // a handler runs
}

// Run consumes until there is a reason to end.
func (s *subCmd) Run(ctx context.Context, a *app, g *globals) error {
	f, err := format.Parse(s.Format)
	if err != nil {
		return &exit.Error{Code: exit.Usage, Err: err}
	}
	if s.Prefetch < 1 || s.Prefetch > prefetchMax {
		return exit.Errorf(exit.Usage, "--prefetch %d: from 1 to %d", s.Prefetch, prefetchMax)
	}
	if s.N != nil && *s.N == 0 {
		return exit.Errorf(exit.Usage, "-n 0: from 1 on; to consume without an end leave it away")
	}
	if s.N != nil && *s.N < uint64(s.Prefetch) {
		s.Prefetch = int(*s.N) // what is held and not wanted goes back, but has counted an attempt
	}
	if s.EmptyFor != 0 && !s.UntilEmpty {
		return exit.Errorf(exit.Usage, "--empty-for belongs to --until-empty")
	}
	if s.Forward == s.Queue {
		return exit.Errorf(exit.Usage, "--forward %s: that is the queue that is consumed", s.Forward)
	}
	dialing, cancel := g.within(ctx)
	defer cancel()
	c, err := a.dial(dialing, g)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, queue := range []string{s.Queue, s.Forward} {
		if queue == "" {
			continue
		}
		if _, err := c.Admin().Queue(dialing, queue); err != nil {
			return noQueue(dialing, c, err, queue)
		}
	}

	consuming, end := context.WithCancelCause(ctx)
	defer end(nil)
	sub := &subscription{cmd: s, a: a, c: c, format: f, end: end}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if s.UntilEmpty {
			sub.watchEmpty(consuming, c)
		}
	}()
	opts := []client.ConsumeOption{client.WithPrefetch(s.Prefetch), client.WithConcurrency(1)}
	if s.Label != "" {
		opts = append(opts, client.WithConsumerLabel(s.Label))
	}
	if s.Forward != "" {
		// Without a majority it cannot be found out whether a message has moved.
		opts = append(opts, client.WithDrainTimeout(forwardDrainTimeout))
	}
	err = c.Consume(consuming, s.Queue, sub.handle, opts...)
	cause := context.Cause(consuming)
	end(nil)
	<-watched
	a.Done()
	switch {
	case sub.failed != nil:
		return &lastWord{sub.failed} // whatever ended it
	case errors.Is(cause, errEnough):
		if err != nil {
			return fmt.Errorf("everything was written, but not everything could be acked: %w", err)
		}
		return nil
	case cause != nil && !errors.Is(cause, context.Canceled) && cause != errInterrupted:
		return cause // standard output failed, or the queue is gone
	case err != nil:
		return noQueue(context.WithoutCancel(ctx), c, err, s.Queue)
	}
	return ctx.Err()
}

// forwardDrainTimeout is how long a subscription that was interrupted waits to hear
// whether a message has moved.
const forwardDrainTimeout = 10 * time.Second

// prefetchMax is as many messages as a consumer may be granted.
const prefetchMax = 16_384

// handle writes one message with one write, and only then lets it be acked: an
// error gives it back. After end it is not called again.
func (s *subscription) handle(ctx context.Context, d *client.Delivery) error {
	s.busy.Store(true)
	defer func() {
		s.last.Store(time.Now().UnixNano())
		s.busy.Store(false)
	}()
	m := message(d)
	var err error
	if s.cmd.Output == "jsonl" {
		s.buf, err = format.AppendJSON(s.buf[:0], m)
	} else {
		s.buf = s.format.Append(s.buf[:0], m)
	}
	if err == nil {
		_, err = s.a.Out.Write(s.buf) // not buffered: written is written
	}
	if err != nil {
		// What follows must not be written after a hole. No handler has seen it, so it
		// goes back without counting as failed.
		s.fail(fmt.Errorf("standard output: %w; %s was not acked", err, m.ID))
		return client.RetryAfter(0, err)
	}
	if s.cmd.Forward != "" {
		if err := s.forward(ctx, d); err != nil {
			return err
		}
	}
	if n := s.written.Add(1); s.cmd.N != nil && n == *s.cmd.N {
		s.end(errEnough)
	}
	return nil
}

// lastWord is an error that is told also by a command that was interrupted: what became
// of a message, or of a node.
type lastWord struct{ error }

func (e *lastWord) Unwrap() error { return e.error }

// fail ends the subscription, unless that is so already, and says why.
func (s *subscription) fail(err error) {
	if s.failed == nil {
		s.failed = err
	}
	s.end(err)
}

// forward moves the message on. What was refused, as by a queue that is full, goes
// back, and the subscription ends. A lost lease is no reason to end: another consumer
// has the message, and nothing was published. Whether it moved may be unknown when ctx
// ends first; the client finds out, and the message is not settled otherwise.
func (s *subscription) forward(ctx context.Context, d *client.Delivery) error {
	_, err := s.c.AckAndPublish(ctx, d, client.Outgoing{Queue: s.cmd.Forward, Message: client.Message{
		Body: d.Body(), BizID: d.BizID(), Headers: d.Headers(), OrderingKey: d.OrderingKey(), Priority: d.Priority(),
	}})
	var unknown *client.OutcomeUnknownError
	switch {
	case err == nil || errors.Is(err, client.ErrLeaseLost):
		return err
	case errors.As(err, &unknown):
		s.fail(fmt.Errorf("%s was written, and whether it has moved to %s is not known: %w", d.ID(), s.cmd.Forward, err))
		return err
	}
	s.fail(fmt.Errorf("%s was written and stays in its queue: forward to %s: %w", d.ID(), s.cmd.Forward, err))
	return client.RetryAfter(0, err)
}

func message(d *client.Delivery) *format.Message {
	m := &format.Message{ID: d.ID().String(), Queue: d.Queue(), Attempt: d.Attempt(), BizID: d.BizID(), Body: d.Body(), PublishedAt: d.PublishedAt(),
		Failures: d.Failures(), OrderingKey: d.OrderingKey(), Priority: d.Priority()}
	if dead, is := d.DeadLetter(); is {
		m.Dead = &format.Dead{Reason: dead.Reason, FirstError: dead.FirstError, LastError: dead.LastError, Origin: dead.Origin, Attempts: dead.Attempts}
	}
	for _, h := range d.Headers() {
		m.Headers = append(m.Headers, format.Header{Name: h.Name, Value: h.Value})
	}
	return m
}

// How often to ask whether the queue is empty, and how long the handler must
// have been idle before asking is worth a round.
const (
	emptyPoll  = 250 * time.Millisecond
	emptyIdle  = 150 * time.Millisecond
	emptyTries = 5 * time.Second // one look-up
)

// watchEmpty ends the subscription when the queue holds nothing any more, by
// the leader's own word, verified with a majority. What this or another
// consumer has taken and not acked counts as leased, so an ack that is lost
// with a leader keeps the queue from being empty. No answer means: not yet.
func (s *subscription) watchEmpty(ctx context.Context, c *client.Client) {
	tick := time.NewTicker(emptyPoll)
	defer tick.Stop()
	var since time.Time // empty since then, with as many stored as now; zero: not empty
	var stored uint64
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		n := s.written.Load()
		s.a.Progress("%s consumed", console.Count(n))
		if s.busy.Load() || time.Since(time.Unix(0, s.last.Load())) < emptyIdle {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, emptyTries)
		q, err := c.Admin().Queue(asking, s.cmd.Queue)
		cancel()
		if errors.Is(err, client.ErrNoQueue) {
			s.end(&exit.Error{Code: exit.NotFound, Err: fmt.Errorf("the queue was deleted: %w", err)})
			return
		}
		if err != nil {
			continue
		}
		if q.Counts.Ready+q.Counts.Leased+q.Counts.Delayed > 0 || q.Counts.Stored != stored {
			since, stored = time.Time{}, q.Counts.Stored
		}
		if q.Counts.Ready+q.Counts.Leased+q.Counts.Delayed == 0 {
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) < s.cmd.EmptyFor {
				continue
			}
			if q.Counts.Parked > 0 {
				s.a.Note("%s parked and not delivered", plural(q.Counts.Parked, "message is"))
			}
			s.end(errEnough)
			return
		}
	}
}
