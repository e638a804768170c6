package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/exit"
)

// BacklogConfig says how large a backlog becomes.
type BacklogConfig struct {
	Messages  []uint64 // it is looked at with so many; ascending
	Size      int      // bytes of a body
	Drain     uint64   // messages that are taken out, from disk and from memory
	Producers int
	InFlight  int // of one producer
	Seed      uint64
}

// backlogMax bounds a backlog, in messages.
const backlogMax = 100_000_000

// Validate refuses nonsense before anything starts.
func (c BacklogConfig) Validate() error {
	last := uint64(0)
	for _, n := range c.Messages {
		if n <= last || n > backlogMax {
			return exit.Errorf(exit.Usage, "--messages %d: ascending, at most %d", n, backlogMax)
		}
		last = n
	}
	switch {
	case last == 0:
		return exit.Errorf(exit.Usage, "no --messages")
	case c.Size < bodyMin || c.Size > bodyMax:
		return exit.Errorf(exit.Usage, "--size %d: from %d to %d", c.Size, bodyMin, bodyMax)
	case c.Drain == 0 || c.Drain > last:
		return exit.Errorf(exit.Usage, "--drain %d: from 1 to %d", c.Drain, last)
	case c.Producers < 1 || c.Producers > clientsMax:
		return exit.Errorf(exit.Usage, "--producers %d: from 1 to %d", c.Producers, clientsMax)
	case c.InFlight < 1 || c.InFlight > inFlightMax:
		return exit.Errorf(exit.Usage, "--in-flight %d: from 1 to %d", c.InFlight, inFlightMax)
	}
	return nil
}

// BacklogTarget is a cluster of our own.
type BacklogTarget struct {
	Target
	// Resident is the memory of the node that has most.
	Resident func() (uint64, error)
	// Stored is how many bytes the nodes' directories have, all together; links
	// count once.
	Stored func() (uint64, error)
	// Restart kills all nodes, starts them, and returns what that took, from the
	// start of the processes until each has applied what was committed and one
	// leads.
	Restart func(ctx context.Context) (time.Duration, error)
}

// BacklogRow is the outcome of one step.
type BacklogRow struct {
	Step      string  `json:"step"`
	Messages  uint64  `json:"messages"` // in this step
	Backlog   uint64  `json:"backlog"`  // after it
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second,omitempty"`
	Resident  uint64  `json:"resident_bytes"`                // of the largest node, at most during the step
	Stored    uint64  `json:"stored_bytes"`                  // after it, on all nodes
	Written   float64 `json:"written_per_message,omitempty"` // bytes that reached the device, by whomever
}

// Backlog fills a queue, restarts the nodes, and takes messages out: from disk,
// and from another queue whose messages are young. A row is shown as soon as it
// is there.
func Backlog(ctx context.Context, cfg BacklogConfig, t BacklogTarget, show func(BacklogRow)) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	b := &backlog{cfg: cfg, t: t, show: show}
	for _, q := range []string{backlogOld, backlogYoung} {
		if err := b.create(ctx, q); err != nil {
			return err
		}
	}
	for _, n := range cfg.Messages {
		if err := b.step(ctx, fmt.Sprintf("fill to %d", n), n-b.held, func() error { return b.fill(ctx, backlogOld, b.held, n) }); err != nil {
			return err
		}
		if err := b.step(ctx, "restart", 0, func() (err error) { b.took, err = t.Restart(ctx); return err }); err != nil {
			return err
		}
	}
	if err := b.step(ctx, "drain from disk", cfg.Drain, func() error { return b.drain(ctx, backlogOld) }); err != nil {
		return err
	}
	if err := b.step(ctx, "fill, young", cfg.Drain, func() error { return b.fill(ctx, backlogYoung, 0, cfg.Drain) }); err != nil {
		return err
	}
	return b.step(ctx, "drain from memory", cfg.Drain, func() error { return b.drain(ctx, backlogYoung) })
}

const backlogOld, backlogYoung = "bench-backlog", "bench-young"

type backlog struct {
	cfg  BacklogConfig
	t    BacklogTarget
	show func(BacklogRow)
	held uint64
	took time.Duration // what a step says it took; 0: all of it
}

func (b *backlog) create(ctx context.Context, queue string) error {
	c, err := client.Dial(ctx, b.t.URL, client.WithLabel("onceq bench"))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Admin().CreateQueue(ctx, queue, client.QueueSettings{})
	return err
}

// step measures one step.
func (b *backlog) step(ctx context.Context, name string, messages uint64, run func() error) error {
	b.t.Say("%s", name)
	before, err := b.t.spent()
	if err != nil {
		return err
	}
	var most atomic.Uint64
	sampling, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			if n, err := b.t.Resident(); err == nil {
				most.Store(max(most.Load(), n))
			}
			select {
			case <-tick.C:
			case <-sampling.Done():
				tick.Stop()
				return
			}
		}
	})
	began := time.Now()
	b.took = 0
	err = run()
	took := time.Since(began)
	if b.took > 0 {
		took = b.took
	}
	stop()
	wg.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	row := BacklogRow{Step: name, Messages: messages, Backlog: b.held, Seconds: took.Seconds(), Resident: most.Load()}
	if row.Stored, err = b.t.Stored(); err != nil {
		return err
	}
	if messages > 0 {
		after, err := b.t.spent()
		if err != nil {
			return err
		}
		row.PerSecond, row.Written = float64(messages)/took.Seconds(), float64(after.Disk-before.Disk)/float64(messages)
	}
	b.show(row)
	return nil
}

// fill publishes messages from to to-1 and returns when they are confirmed.
func (b *backlog) fill(ctx context.Context, queue string, from, to uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Uint64
	next.Store(from)
	var wg sync.WaitGroup
	for i := range b.cfg.Producers {
		wg.Go(func() {
			if err := b.publish(ctx, queue, uint64(i), &next, to); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if queue == backlogOld {
		b.held = to
	}
	return context.Cause(ctx)
}

func (b *backlog) publish(ctx context.Context, queue string, i uint64, next *atomic.Uint64, to uint64) error {
	c, err := client.Dial(ctx, b.t.URL, client.WithLabel("onceq bench backlog"))
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := c.NewProducer(queue, client.WithMaxInFlight(b.cfg.InFlight))
	if err != nil {
		return err
	}
	bodies := newBodies(b.cfg.Size, b.cfg.Seed+i)
	flights := make(chan *client.Future, b.cfg.InFlight)
	failed := make(chan error, 1)
	go func() {
		var first error
		for f := range flights {
			if _, err := f.Wait(ctx); err != nil && first == nil {
				first = err
			}
		}
		failed <- first
	}()
	for n := next.Add(1) - 1; n < to && ctx.Err() == nil; n = next.Add(1) - 1 {
		flights <- p.PublishAsync(ctx, client.Message{Body: bodies.next(n, 0)})
	}
	close(flights)
	err = <-failed
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	p.Close(closing) // everything has its outcome
	return err
}

// drain takes the first messages out of a queue, each once.
func (b *backlog) drain(ctx context.Context, queue string) error {
	c, err := client.Dial(ctx, b.t.URL, client.WithLabel("onceq bench backlog"))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	var got seen
	var strange, twice uint64
	err = c.Consume(ctx, queue, func(_ context.Context, d *client.Delivery) error {
		n, _, ok := label(d.Body())
		mu.Lock()
		defer mu.Unlock()
		switch {
		case !ok || len(d.Body()) != b.cfg.Size:
			strange++
		case !got.add(n):
			twice++
		}
		if got.count == b.cfg.Drain {
			stop()
		}
		return nil
	}, client.WithPrefetch(1024))
	mu.Lock()
	defer mu.Unlock()
	if queue == backlogOld {
		b.held -= min(b.held, got.count)
	}
	switch {
	case strange > 0 || twice > 0:
		return exit.Errorf(exit.CheckFailed, "%d messages came twice, %d as nobody published them", twice, strange)
	case got.count >= b.cfg.Drain:
		return nil
	case err == nil:
		err = ctx.Err()
	}
	return err
}
