package workload

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

// consumer consumes through the client library and settles each message by
// itself, a little later. Now and then it leaves, or dies without a word, and
// another takes its place.
type consumer struct {
	w        *World
	queue    string
	lease    time.Duration
	prefetch int
	nacks    int    // per cent
	slow     int    // per cent that are held for a while
	stays    bool   // it never ends before the run does
	rejects  int    // per cent
	buries   bool   // it consumes dead letters
	chain    string // queue to which each message is passed on, "" to ack it
}

const (
	slowMost         = time.Second
	nackDelayMost    = 300 * time.Millisecond
	ackPatience      = 20 * time.Second
	consumerLifeMin  = 5 * time.Second
	consumerLifeMost = 15 * time.Second
	diePercent       = 40
	lifeGap          = 50 * time.Millisecond
)

// run consumes until ctx ends.
func (s *consumer) run(ctx context.Context, name string) {
	r := s.w.rng(name)
	for life := 1; ctx.Err() == nil; life++ {
		proc := name + "." + strconv.Itoa(life)
		c := s.w.connect(ctx, proc)
		if c == nil {
			return
		}
		s.live(ctx, c, proc, r)
		_ = c.Close()
		pause(ctx, lifeGap)
	}
}

func (s *consumer) live(ctx context.Context, c *client.Client, proc string, r *rand.Rand) {
	consuming, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	var settles, consume sync.WaitGroup
	defer settles.Wait()
	chance := rand.New(rand.NewPCG(r.Uint64(), 1)) // of the handler, which is called by one goroutine
	ended := make(chan struct{})
	consume.Go(func() {
		defer close(ended)
		err := c.Consume(consuming, s.queue, func(_ context.Context, d *client.Delivery) error {
			s.handle(c, proc, d, chance, &settles)
			return nil
		}, client.WithManualSettle(), client.WithPrefetch(s.prefetch), client.WithConsumerLabel(proc))
		deleted := s.w.Numbers && errors.Is(err, client.ErrNoQueue)
		if err != nil && !deleted && !errors.Is(err, client.ErrClosed) {
			s.w.Report("%s: consume: %v", proc, err)
		}
	})
	life := time.NewTimer(between(r, consumerLifeMin, consumerLifeMost))
	defer life.Stop()
	over := life.C
	if s.stays {
		over = nil
	}
	select {
	case <-over:
		if r.IntN(100) < diePercent {
			now := s.w.H.Now()
			s.w.H.Add(history.Event{Proc: proc, Client: proc, F: history.Die, Type: history.OK, T0: now, T1: now, Of: -1, Key: s.queue})
			_ = c.Close()
			consume.Wait()
			return
		}
	case <-s.w.Draining:
		select {
		case <-ctx.Done():
		case <-ended:
		}
	case <-ctx.Done():
	case <-ended:
	}
	op := s.w.H.Invoke(history.Event{Proc: proc, Client: proc, F: history.Leave, Key: s.queue})
	leave()
	consume.Wait()
	s.w.H.Complete(op, history.OK)
}

// handle is one delivery. It is called by one goroutine, so deliveries are
// written in the order in which they came.
func (s *consumer) handle(c *client.Client, proc string, d *client.Delivery, r *rand.Rand, settles *sync.WaitGroup) {
	id, bad := idOf(d.Body(), d.BizID())
	if s.buries {
		settles.Go(func() { s.bury(proc, d, id, bad) })
		return
	}
	now := s.w.H.Now()
	e := history.Event{
		Proc: proc, Client: proc, F: history.Deliver, Type: history.OK, T0: now, T1: now, Of: -1,
		Key: s.queue, ID: id, Seq: d.ID().Offset, Lane: int(d.ID().Lane), Lease: proc, Attempt: d.Attempt(),
		// The library renews leases when a third of them is gone.
		Hold: int64(s.lease) * 2 / 3, Carried: carriedTo(d),
	}
	if s.w.Numbers {
		e.Number = d.ID().QueueNumber
	}
	if bad != nil {
		e.Err = bad.Error()
	}
	s.w.H.Add(e)
	s.w.Count.Delivered.Add(1)
	kind, wait := r.IntN(100), time.Duration(0)
	nack, reject := kind < s.nacks, kind >= s.nacks && kind < s.nacks+s.rejects
	if r.IntN(100) < s.slow {
		wait = between(r, 0, slowMost)
	}
	delay := between(r, 0, nackDelayMost)
	settles.Go(func() {
		time.Sleep(wait) // the work that it is about
		op := history.Event{Proc: proc, Client: proc, F: history.Ack, Key: s.queue, ID: id, Seq: e.Seq, Lane: e.Lane, Number: e.Number, Lease: proc, Attempt: e.Attempt}
		ctx, cancel := context.WithTimeout(context.Background(), ackPatience)
		defer cancel()
		var err error
		if s.chain != "" && !nack {
			s.passOn(ctx, c, op, d)
			return
		}
		if reject {
			op.F, op.Text = history.Nack, history.Rejected
			op = s.w.H.Invoke(op)
			s.w.settled(op, d.Reject(ctx, "the workload has had enough"))
			return
		}
		if nack {
			op.F, op.Delay = history.Nack, int64(delay)
			op = s.w.H.Invoke(op)
			err = d.NackAfter(ctx, delay, nil)
		} else {
			op = s.w.H.Invoke(op)
			err = d.Ack(ctx)
		}
		s.w.settled(op, err)
	})
}

// settled writes what became of an ack or a nack.
func (w *World) settled(op history.Event, err error) {
	if err != nil {
		op.Err = err.Error()
	}
	switch {
	case err == nil:
		w.H.Complete(op, history.OK)
		if op.F == history.Ack {
			w.Count.Acked.Add(1)
		}
	case errors.Is(err, client.ErrLeaseLost):
		w.Count.Lost.Add(1)
		w.H.Complete(op, history.Fail)
	default:
		w.H.Complete(op, history.Info)
	}
}
