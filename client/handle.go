package client

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"onceq/transport/wire"
)

// deliver takes a push. It runs on the connection's reader.
func (s *consumer) deliver(cn *conn, m wire.Deliver, frameBytes int) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.life
	if m.Consumer != l.id || m.N != l.n {
		return // of an older attachment
	}
	added := 0
	for i := range m.Deliveries {
		w := &m.Deliveries[i]
		if w.Number < l.next {
			continue // known: a repeat
		}
		// Beside what it holds, the machine has settled so much at most whose
		// answer has not come yet.
		if len(l.open) >= 2*s.o.prefetch+wire.DoneSlack {
			cn.fail(fmt.Errorf("read: more deliveries than the credit of %d allows", s.o.prefetch))
			return
		}
		d := &Delivery{
			s: s, life: l, number: w.Number, attempt: w.Attempt, restored: w.Restored, at: w.PublishedAt, raw: w.Message,
			place:    MessageID{Incarnation: l.incarnation, QueueNumber: w.Queue, Queue: s.queue, Lane: w.Lane, Offset: w.Offset},
			deadline: now.Add(w.Remaining), failures: w.Failures,
		}
		if len(w.Dead) > 0 {
			d.dead = &w.Dead[0]
		}
		if frameBytes > copyAbove && len(w.Message) < frameBytes/4 {
			d.raw = append([]byte(nil), w.Message...)
		}
		if len(l.open) == 0 {
			l.low = d.number
		}
		l.next = d.number + 1
		l.open[d.number] = d
		s.ready = append(s.ready, d)
		added++
	}
	s.tellDone()
	s.wakeWorkers(added)
}

func (s *consumer) wakeWorkers(n int) {
	if n >= s.o.concurrency {
		s.more.Broadcast()
		return
	}
	for range n {
		s.more.Signal()
	}
}

// lost takes a push: timers have taken leases. It runs on the reader.
func (s *consumer) lost(m wire.Lost) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.life
	if m.Consumer != l.id || m.N != l.n {
		return
	}
	if m.Gone {
		s.gone()
		return
	}
	for _, r := range m.Lost {
		for n := max(r.From, l.done()); n <= r.To && n < l.next; n++ {
			// One that is being settled gets its answer from that.
			if d := l.open[n]; d != nil && !d.asking {
				s.lose(d, r.State)
			}
		}
	}
	s.tellDone()
	s.kick()
}

// pop takes the next message that may be handled; nil to stop. It waits. That ctx
// has ended is seen here and not only in the loop, which learns of it later: who
// ends it in a handler or a loop's body is handed nothing more.
func (s *consumer) pop(ctx context.Context) *Delivery {
	if s.hung {
		s.hung = false
		s.attach()
	}
	for {
		for s.head == len(s.ready) && !s.stopping {
			s.resting++
			s.more.Wait()
			s.resting--
		}
		if s.stopping || ctx.Err() != nil {
			return nil
		}
		d := s.ready[s.head]
		s.ready[s.head] = nil
		if s.head++; s.head == len(s.ready) {
			s.clearReady()
		}
		if d.answered {
			continue
		}
		// The last look before the handler: by our own clock, and by what the
		// cluster has pushed.
		if now := time.Now(); now.Before(d.deadline) {
			d.phase, d.started, s.taken = running, now, now
			return d
		}
		d.phase = aside
		s.extend = true
		s.kick()
	}
}

func (s *consumer) clearReady() {
	clear(s.ready)
	s.ready, s.head = s.ready[:0], 0
}

// comeBack puts what was aside back into the buffer: the cluster says that the
// leases are held.
func (s *consumer) comeBack() {
	var back []*Delivery
	for _, d := range s.life.open {
		if d.phase == aside && time.Now().Before(d.deadline) {
			d.phase = buffered
			back = append(back, d)
		}
	}
	if len(back) == 0 {
		return
	}
	back = append(back, s.ready[s.head:]...)
	slices.SortFunc(back, func(a, b *Delivery) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	s.ready, s.head = back, 0
	s.more.Broadcast()
}

// errGoexit is what a handler's message is given back with when the handler has
// ended its goroutine, as t.FailNow does.
var errGoexit = errors.New("the handler ended its goroutine")

// work calls handlers until it is told to stop. No lock is held while one runs.
func (s *consumer) work(ctx context.Context) {
	ended := false
	defer func() {
		if !ended {
			s.spawn() // a handler took this goroutine with it
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.workers--
		s.kick()
	}()
	for d := s.take(ctx); d != nil; d = s.take(ctx) {
		s.returned(d, errGoexit, func() error { return s.call(d) })
	}
	ended = true
}

// take is pop, and gives the delivery its context.
func (s *consumer) take(ctx context.Context) *Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.pop(ctx)
	if d != nil {
		s.lend(d)
	}
	return d
}

// returned settles a message by what its handler returns: err when it never does.
func (s *consumer) returned(d *Delivery, err error, handle func() error) {
	defer func() {
		d.cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		d.phase = returned
		switch {
		case d.answered && d.verb == 0:
			s.c.o.logger.Warn("a handled message did not count", "message", d.place, "attempt", d.attempt, "error", d.answer)
		case d.answered, d.verb != 0, s.o.manual && err == nil:
		case err == nil:
			s.settleLocked(d, verdict{verb: wire.VerbAck})
		default:
			r := verdictFor(err)
			if r.verb == wire.VerbAck {
				s.c.o.logger.Warn("message dropped", "message", d.place, "attempt", d.attempt, "error", err)
			}
			s.settleLocked(d, r)
		}
	}()
	err = handle()
}

// lend gives a delivery its context, which ends with its lease.
func (s *consumer) lend(d *Delivery) {
	d.ctx, d.cancel = context.WithCancelCause(s.base)
}

// decode comes right before the program sees the message.
func (s *consumer) decode(d *Delivery) (err error) {
	if err = d.message.Decode(d.raw); err != nil {
		s.c.o.logger.Error("message does not decode", "message", d.place, "error", err)
		return err
	}
	d.raw = nil
	return nil
}

func (s *consumer) call(d *Delivery) (err error) {
	if err := s.decode(d); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			s.c.o.logger.Error("handler panicked", "message", d.place, "attempt", d.attempt, "panic", r, "stack", string(debug.Stack()))
			err = errors.New("handler panicked")
		}
	}()
	return s.handle(d.ctx, d)
}
