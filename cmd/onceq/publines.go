package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/latency"
	"onceq/cmd/onceq/internal/lines"
)

// How often the progress line is drawn, and a plain line written where nobody
// watches.
const (
	progressEvery = 200 * time.Millisecond
	plainEvery    = 10 * time.Second
)

// drainTimeout is how long an interrupted stream waits for what is in flight.
const drainTimeout = 10 * time.Second

// flightBytesMax bounds the bodies without an outcome. One body is let through
// whatever its size.
const flightBytesMax = 64 << 20

// flight is a publish whose outcome is awaited.
type flight struct {
	future *client.Future
	line   int
	bytes  int
	began  time.Time
}

// budget counts the bytes in flight.
type budget struct {
	mu   sync.Mutex // guards used
	room *sync.Cond // used has gone down
	used int
}

func newBudget() *budget {
	b := &budget{}
	b.room = sync.NewCond(&b.mu)
	return b
}

func (b *budget) take(n int) {
	b.mu.Lock()
	for b.used > 0 && b.used+n > flightBytesMax {
		b.room.Wait()
	}
	b.used += n
	b.mu.Unlock()
}

func (b *budget) give(n int) {
	b.mu.Lock()
	b.used -= n
	b.room.Signal()
	b.mu.Unlock()
}

// stream publishes lines, pipelined. The channel between the goroutine that
// reads and the one that collects outcomes bounds what is held in memory.
type stream struct {
	p     *pubCmd
	a     *app
	c     *client.Client
	prod  *client.Producer
	began time.Time

	flights chan flight
	budget  *budget
	stop    context.CancelFunc // stops the reading

	// The collector's, read when it has ended.
	sum   summary
	hist  *latency.Histogram
	first error // the first line that was not stored, and why
}

func (p *pubCmd) lines(ctx context.Context, a *app, g *globals, options client.Message) error {
	dialing, cancel := g.within(ctx)
	defer cancel()
	c, err := a.dial(dialing, g)
	if err != nil {
		return err
	}
	defer c.Close()
	prod, err := p.producer(dialing, c)
	if err != nil {
		return err
	}
	// Found out now, a wrong name costs no line.
	if _, err := c.Admin().Queue(dialing, p.Queue); err != nil {
		return noQueue(dialing, c, err, p.Queue)
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	s := &stream{p: p, a: a, c: c, prod: prod, began: time.Now(), stop: stop,
		flights: make(chan flight, p.InFlight), hist: latency.New(), budget: newBudget()}

	// What is in flight when the user interrupts gets its outcome all the same,
	// within a bound.
	publishing, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(drainTimeout, func() { giveUp(errInterrupted) })
	})()

	collected := make(chan struct{})
	go func() {
		defer close(collected)
		s.collect(publishing)
	}()
	readErr := s.read(reading, publishing, options)
	close(s.flights)
	<-collected
	s.close()
	return s.report(ctx, readErr)
}

// read publishes lines until they end, something fails, or ctx ends. Reading
// standard input cannot be called off, so it has a goroutine of its own, which
// may outlast this function until the process ends.
func (s *stream) read(ctx, publishing context.Context, m client.Message) error {
	type read struct {
		line int
		body []byte
		err  error
	}
	input := make(chan read, 64)
	go func() {
		r := lines.NewReader(s.a.In, bodyBytesMax)
		for {
			body, err := r.Next()
			select {
			case input <- read{r.Line(), body, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		var in read
		select {
		case in = <-input:
		case <-ctx.Done():
			return nil // the collector or the user knows why
		}
		if errors.Is(in.err, io.EOF) {
			return nil
		}
		if in.err != nil {
			return fmt.Errorf("standard input: %w", in.err)
		}
		s.budget.take(len(in.body)) // the collector gives back, without waiting for this goroutine
		began := time.Now()
		m.Body = in.body
		f := s.prod.PublishAsync(publishing, m)
		s.flights <- flight{f, in.line, len(in.body), began}
	}
}

// collect takes the outcomes in the order of the lines.
func (s *stream) collect(ctx context.Context) {
	draw, plain := time.Now(), time.Now()
	for f := range s.flights {
		// The publish's own context bounds it; an outcome comes always.
		r, err := f.future.Wait(context.WithoutCancel(ctx))
		s.budget.give(f.bytes)
		var unknown *client.OutcomeUnknownError
		switch {
		case err == nil:
			s.sum.Published++
			if r.Duplicate {
				s.sum.Duplicates++
			}
			s.hist.Record(time.Since(f.began))
		case errors.As(err, &unknown):
			s.sum.Unknown++
			s.a.Note("line %d: outcome unknown: %s", f.line, unknown.ID)
			s.stop()
		default:
			// What is behind one of these may be stored, so each is named. The error at the
			// end is the first of them.
			s.sum.Failed++
			if s.first == nil {
				s.first = fmt.Errorf("line %d: %w", f.line, err)
			} else {
				s.a.Note("line %d: not stored: %s", f.line, err)
			}
			s.stop()
		}
		now := time.Now()
		if now.Sub(draw) >= progressEvery {
			draw = now
			s.a.Progress("%s published, %s/s", console.Count(s.sum.Published), console.Rate(s.sum.Published, now.Sub(s.began)))
		}
		if !s.a.Watched() && now.Sub(plain) >= plainEvery {
			plain = now
			s.a.Note("%s published, %s/s", console.Count(s.sum.Published), console.Rate(s.sum.Published, now.Sub(s.began)))
		}
	}
	s.a.Done()
}

// close ends the producer and the counting.
func (s *stream) close() {
	took := time.Since(s.began)
	ps, cs := s.prod.Stats(), s.c.Stats()
	s.sum.Retransmitted = ps.Retransmitted
	s.sum.LeaderChanges = cs.LeaderChanges
	s.sum.Seconds = took.Seconds()
	s.sum.PerSecond = float64(s.sum.Published) / max(took.Seconds(), 1e-9)
	s.sum.P50 = float64(s.hist.At(50)) / 1e6
	s.sum.P99 = float64(s.hist.At(99)) / 1e6
	closing, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := s.prod.Close(closing); err != nil {
		s.a.Note("the session could not be closed: %s", err)
	}
}

func (s *stream) report(ctx context.Context, readErr error) error {
	if s.p.table() {
		s.a.Note("%s", s.sum)
	} else if err := console.WriteJSON(s.a.Out, s.p.format(), s.sum); err != nil {
		return err
	}
	switch {
	case s.sum.Unknown > 0:
		if s.first != nil {
			s.a.Note("not stored: %s", s.first)
		}
		return &exit.Error{Code: exit.Unknown, Err: fmt.Errorf("the outcome of %s is unknown", plural(s.sum.Unknown, "message")),
			Hint: "the ids above tell with  onceq outcome ID  or for good with  onceq outcome --seal ID"}
	case s.first != nil:
		return publishError(ctx, s.c, s.first, s.p.Queue)
	case readErr != nil:
		return readErr
	}
	return ctx.Err()
}
