package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/latency"
)

// phase is one load under way. Messages are numbered over all producers, and
// their bodies carry number and the moment they were due, so that whoever sees
// the end of one knows its latency, and who measures costs little beside what
// is measured.
type phase struct {
	cfg   Config
	load  load
	url   string
	queue string
	size  int
	hist  *latency.Histogram

	start time.Time // of the load; what is due counts from it
	began time.Time // of the measuring, after the warm-up

	next      atomic.Uint64 // number of the next message
	confirmed atomic.Uint64
	failed    atomic.Uint64
	again     atomic.Uint64 // retransmitted copies

	mu       sync.Mutex // guards what follows
	received seen       // e2e only
	twice    uint64
	strange  uint64
	firstErr error
	all      chan struct{} // e2e: signalled on each receipt, capacity 1
	under    chan struct{} // e2e, full speed: a slot for each message under way
}

func (p *phase) run(ctx context.Context, t Target, row Row) (Row, error) {
	e2e := p.cfg.Workload == "e2e"
	p.all = make(chan struct{}, 1)
	if e2e && p.load.rate == 0 {
		p.under = make(chan struct{}, p.load.inFlight*p.load.producers)
	}
	consuming, stop := context.WithCancel(ctx)
	defer stop()
	var consumers sync.WaitGroup
	if e2e {
		for range p.cfg.Consumers {
			consumers.Go(func() { p.note(p.consume(consuming)) })
		}
	}
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	seen, err := t.watch(watching, p.cfg.WarmUp)
	if err != nil && !errors.Is(err, ErrMachine) {
		return row, err
	}
	before, err := t.spent()
	if err != nil {
		return row, err
	}
	p.start = time.Now()
	p.began = p.start.Add(p.cfg.WarmUp)
	publishing, cancel := context.WithDeadline(ctx, p.began.Add(p.cfg.Time))
	defer cancel()
	var producers sync.WaitGroup
	for i := range p.load.producers {
		producers.Go(func() { p.note(p.produce(ctx, publishing, i)) })
	}
	producers.Wait()
	if e2e {
		p.awaitAll(ctx)
	}
	took := time.Since(p.began)
	after, err := t.spent()
	if seen != nil {
		if machine, err := seen(); err == nil { // else it is told without
			row.Machine = &machine
		}
	}
	stop()
	consumers.Wait()
	if err == nil {
		err = p.firstError(ctx)
	}
	if err != nil {
		return row, err
	}
	p.fill(&row, took, e2e)
	if total := p.next.Load(); total > 0 { // the warm-up is in both
		row.CPUMicros = float64((after.CPU-before.CPU)/time.Microsecond) / float64(total)
		row.DiskBytes = float64(after.Disk-before.Disk) / float64(total)
	}
	return row, nil
}

func (p *phase) fill(row *Row, took time.Duration, e2e bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	row.Messages = uint64(p.hist.Count())
	row.Seconds = took.Seconds()
	row.PerSecond = float64(row.Messages) / took.Seconds()
	row.P50, row.P99, row.P999, row.Max = p.hist.Millis(50), p.hist.Millis(99), p.hist.Millis(99.9), p.hist.Millis(100)
	row.Retransmitted = p.again.Load()
	row.Missing = p.failed.Load()
	if e2e {
		row.Duplicates = p.twice
		row.Missing += p.confirmed.Load() - min(p.confirmed.Load(), p.received.count)
		row.Missing += p.strange
	}
}

// note keeps the first error of anybody.
func (p *phase) note(err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.firstErr == nil {
		p.firstErr = err
	}
}

func (p *phase) firstError(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.firstErr
}

// produce publishes until until ends; what is in flight then gets its outcome.
func (p *phase) produce(ctx, until context.Context, i int) error {
	c, err := client.Dial(ctx, p.url, client.WithLabel(fmt.Sprintf("onceq bench producer %d", i)))
	if err != nil {
		return err
	}
	defer c.Close()
	prod, err := c.NewProducer(p.queue, client.WithMaxInFlight(p.load.inFlight))
	if err != nil {
		return err
	}
	bodies := newBodies(p.size, p.cfg.Seed+uint64(i))
	type flight struct {
		due time.Time
		f   *client.Future
	}
	flights := make(chan flight, p.load.inFlight)
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for x := range flights {
			r, err := x.f.Wait(context.WithoutCancel(ctx)) // ctx bounds the publish itself
			p.outcome(x.due, r, err)
		}
	}()
	began := time.Now()
	var due time.Time
	for sent := uint64(0); p.wait(ctx, until, began, sent, due); sent++ {
		n := p.next.Add(1) - 1
		due = time.Now()
		if p.load.rate > 0 {
			due = dueAt(began, sent, p.load.rate)
		}
		if p.load.inFlight == 1 {
			r, err := prod.Publish(ctx, client.Message{Body: bodies.next(n, due.Sub(p.start))})
			p.outcome(due, r, err)
			continue
		}
		flights <- flight{due, prod.PublishAsync(ctx, client.Message{Body: bodies.next(n, due.Sub(p.start))})}
	}
	close(flights)
	<-collected
	p.again.Add(prod.Stats().Retransmitted)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	prod.Close(closing) // everything has its outcome; a session that stays open expires
	return nil
}

func dueAt(began time.Time, n uint64, rate float64) time.Time {
	return began.Add(time.Duration(float64(n) / rate * float64(time.Second)))
}

// wait waits for the moment of the next message. False: the time is up. It is not
// before a message after the warm-up was sent, the last of which was due at last: a
// slow machine is measured by one rather than by none.
func (p *phase) wait(ctx, until context.Context, began time.Time, sent uint64, last time.Time) bool {
	if last.Before(p.began) {
		until = ctx
	}
	if until.Err() != nil {
		return false
	}
	if p.under != nil {
		select {
		case p.under <- struct{}{}:
		case <-until.Done():
			return false
		}
	}
	if p.load.rate == 0 {
		return true
	}
	d := time.Until(dueAt(began, sent, p.load.rate))
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-until.Done():
		return false
	}
}

// outcome counts the outcome of a publish and, where that is the end of the
// message, its latency.
func (p *phase) outcome(due time.Time, r client.Receipt, err error) {
	if err != nil {
		p.failed.Add(1)
		if !errors.Is(err, context.Canceled) {
			p.note(err)
		}
		return
	}
	p.confirmed.Add(1)
	if p.cfg.Workload == "pub" {
		p.finish(due)
	}
}

// finish records the latency of a message, unless it belongs to the warm-up.
func (p *phase) finish(due time.Time) {
	if !due.Before(p.began) {
		p.hist.Record(time.Since(due))
	}
}

// consume receives and acks.
func (p *phase) consume(ctx context.Context) error {
	c, err := client.Dial(ctx, p.url, client.WithLabel("onceq bench consumer"))
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Consume(ctx, p.queue, func(_ context.Context, d *client.Delivery) error {
		p.receive(d.Body())
		return nil
	}, client.WithPrefetch(1024))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (p *phase) receive(body []byte) {
	n, due, ok := label(body)
	ok = ok && len(body) == p.size && n < p.next.Load()
	p.mu.Lock()
	first := ok && p.received.add(n)
	switch {
	case !ok:
		p.strange++
	case !first:
		p.twice++
	}
	p.mu.Unlock()
	if first {
		p.finish(p.start.Add(due))
		if p.under != nil {
			<-p.under
		}
	}
	select {
	case p.all <- struct{}{}:
	default:
	}
}

// awaitAll waits until everything confirmed is received; what does not come
// in the grace after the last receipt is counted as missing.
func (p *phase) awaitAll(ctx context.Context) {
	for {
		p.mu.Lock()
		done := p.received.count >= p.confirmed.Load() || p.firstErr != nil
		p.mu.Unlock()
		if done {
			return
		}
		t := time.NewTimer(receiveGrace)
		select {
		case <-p.all:
			t.Stop()
		case <-t.C:
			return
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}
