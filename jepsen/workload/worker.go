package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	workPrefetch  = 128
	workAtOnce    = 64
	workFew       = 3 // take a tick for each message at least, so that others wait
	workSlow      = 6 // per cent
	workSlowAlone = 2
	workTick      = 100 * time.Millisecond
	workLeast     = 3 // ticks
	workMost      = 30
	// toldTicks is for how long a handler waits to hear that its lease is lost: more than
	// anything may take that has to happen at some time.
	toldTicks = int(patientMost / workTick)
)

// worker is a consumer whose handlers do the work themselves: some take a while, look
// at their context meanwhile, and settle before they return. Its process may be
// stopped at any time.
type worker struct {
	w      *World
	queue  string
	lease  time.Duration
	name   string
	atOnce int // handlers
	taken  *overtakings
	hands  hands
}

// run consumes until ctx ends.
func (s *worker) run(ctx context.Context, c *client.Client) {
	consuming, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := c.Consume(consuming, s.queue, s.handle, client.WithManualSettle(), client.WithPrefetch(workPrefetch),
			client.WithConcurrency(s.atOnce), client.WithConsumerLabel(s.name)); err != nil {
			s.w.Report("%s: consume: %v", s.name, err)
		}
	}()
	select {
	case <-ctx.Done():
	case <-ended:
	}
	op := s.w.H.Invoke(history.Event{Proc: s.name, Client: s.name, F: history.Leave, Key: s.queue})
	leave()
	<-ended
	s.w.H.Complete(op, history.OK)
}

// handle is one delivery.
func (s *worker) handle(ctx context.Context, d *client.Delivery) error {
	id, bad := idOf(d.Body(), d.BizID())
	overtaken, forget := s.taken.watch(id, d.Attempt())
	defer forget()
	now := s.w.H.Now()
	e := history.Event{
		Proc: s.name, Client: s.name, F: history.Deliver, Type: history.OK, T0: now, T1: now, Of: -1,
		Key: s.queue, ID: id, Seq: d.ID().Offset, Lane: int(d.ID().Lane), Lease: s.name, Attempt: d.Attempt(),
		// The library renews leases when a third of them is gone.
		Hold: int64(s.lease) * 2 / 3, Alive: true, Alone: s.atOnce == 1, Hand: s.hands.mine(), Carried: carriedTo(d),
	}
	if bad != nil {
		e.Err = bad.Error()
	}
	s.w.H.Add(e)
	e.Hold, e.Alive, e.Alone, e.Hand, e.Carried = 0, false, false, 0, "" // what follows is about the same delivery
	heard := false
	if r := s.w.rng(fmt.Sprintf("%s %d", id, d.Attempt())); r.IntN(100) < s.slow() {
		ticks := workLeast + r.IntN(workMost-workLeast+1)
		if r.IntN(2) == 0 {
			s.work(ctx, ticks)
		} else {
			pause(ctx, time.Duration(ticks)*workTick) // its ack goes out as soon as the process goes on
		}
		select {
		case <-overtaken:
			heard = s.hears(ctx, e)
		default:
		}
	} else if s.atOnce == workFew {
		pause(ctx, workTick)
	}
	if !heard && ctx.Err() != nil {
		heard = s.hears(ctx, e)
	}
	op := e
	op.F = history.Ack
	op = s.w.H.Invoke(op)
	settling, cancel := context.WithTimeout(context.Background(), ackPatience)
	defer cancel()
	err := d.Ack(settling)
	s.w.settled(op, err)
	if errors.Is(err, client.ErrLeaseLost) && !heard {
		s.hears(ctx, e)
	}
	return nil
}

// slow is how many per cent of the messages take a while: one that holds up all behind it
// must be rare, or the consumer is always behind.
func (s *worker) slow() int {
	if s.atOnce == 1 {
		return workSlowAlone
	}
	return workSlow
}

// work is counted in ticks: what is left of it when the process was stopped is done
// when it goes on. It ends with the lease.
func (s *worker) work(ctx context.Context, ticks int) {
	tick := time.NewTicker(workTick)
	defer tick.Stop()
	for range ticks {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hears waits until the library says that a lease is lost that is known to be.
func (s *worker) hears(ctx context.Context, e history.Event) bool {
	e.F = history.Told
	op := s.w.H.Invoke(e)
	tick := time.NewTicker(workTick)
	defer tick.Stop()
	waits := true
	for n := 0; n < toldTicks && waits; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			waits = false
		case <-s.w.Draining:
			waits = false
		}
	}
	switch {
	case ctx.Err() != nil:
		op.Err = context.Cause(ctx).Error()
		s.w.H.Complete(op, history.OK)
	case waits:
		s.w.H.Complete(op, history.Fail)
	default:
		s.w.H.Complete(op, history.Info)
	}
	return ctx.Err() != nil
}

// overtakings tell handlers that others have a newer attempt of their message.
type overtakings struct {
	mu sync.Mutex // guards what follows
	of map[string]chan struct{}
}

func newOvertakings() *overtakings { return &overtakings{of: map[string]chan struct{}{}} }

func overtakingOf(id string, attempt int) string { return fmt.Sprintf("%s %d", id, attempt) }

// watch is closed when somebody has a newer attempt. It is to be forgotten.
func (o *overtakings) watch(id string, attempt int) (overtaken <-chan struct{}, forget func()) {
	key, c := overtakingOf(id, attempt), make(chan struct{})
	o.mu.Lock()
	defer o.mu.Unlock()
	o.of[key] = c
	return c, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.of, key)
	}
}

func (o *overtakings) tell(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.of[key]; c != nil {
		close(c)
		delete(o.of, key)
	}
}
