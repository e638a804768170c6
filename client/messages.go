package client

import (
	"context"
	"errors"
	"iter"
	"sync"

	"onceq/transport/wire"
)

// Messages is Consume for programs that would rather loop than hand in a
// function:
//
//	for d, err := range c.Messages(ctx, "orders") {
//		if err != nil {
//			return err // why it could not go on; the loop ends after it
//		}
//		...
//		if err := d.Ack(ctx); err != nil {
//			...
//		}
//	}
//
// It consumes while the loop runs. The body settles each delivery (Ack, Nack,
// Reject), at once or later, from any goroutine; leases are kept alive until
// then, see WithAutoExtend. An Ack waits for the cluster: where that is too slow,
// let it run beside the loop, or use Consume, which collects acks.
//
// The loop ends without an error when ctx ends. When it ends, also by break or a
// panic, what the body has seen and not settled is given back at once as failed,
// and what it has not seen as not handled. Delivery.Context tells of a lost lease.
// Options that are about handlers are refused.
func (c *Client) Messages(ctx context.Context, queue string, opts ...ConsumeOption) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		s, err := c.newConsumer(ctx, queue, opts)
		if err != nil {
			yield(nil, err)
			return
		}
		defer c.wg.Done()
		if s.o.concurrency != 1 || len(s.o.middleware) > 0 || s.o.drain > 0 {
			yield(nil, errors.New("client: Messages has no handler: WithConcurrency, WithMiddleware and WithDrainTimeout are for Consume"))
			return
		}
		s.o.manual = true
		s.iterate(ctx, yield)
	}
}

func (s *consumer) iterate(ctx context.Context, yield func(*Delivery, error) bool) {
	s.begin(1)
	defer s.end()
	looping, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.loop(looping) }()
	finish := sync.OnceValue(func() error {
		stop()
		s.mu.Lock()
		s.abandoned = true
		s.stop()
		s.workers--
		s.kick()
		s.mu.Unlock()
		return <-ended
	})
	defer finish() // the body may panic
	if s.hand(ctx, yield) {
		if err := finish(); err != nil {
			yield(nil, err)
		}
	}
}

// hand gives the loop one message after the other. It returns false when the
// loop's body wants no more. No lock is held while the body runs: it may panic.
func (s *consumer) hand(ctx context.Context, yield func(*Delivery, error) bool) bool {
	for {
		d := s.take(ctx)
		if d == nil {
			return true
		}
		err := s.decode(d)
		more := err != nil || yield(d, nil)
		s.mu.Lock()
		d.phase = returned
		delete(s.lent, d)
		s.idle(d)
		if err != nil {
			s.settleLocked(d, verdict{verb: wire.VerbNack, reason: cut(err.Error())})
		}
		s.mu.Unlock()
		if !more {
			return false
		}
	}
}
