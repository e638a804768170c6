package client

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
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
	// How long ago it was sent nobody knows when the process has stood still: others may
	// have these messages by now. The cluster is asked, as for what waited here for long.
	old := cn.mayBeOld(now)
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
		if old {
			d.deadline = now
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
		s.keep(d)
		added++
		// The queue's lease time may be shorter than when we attached: then the next
		// extension comes too late for this one.
		s.extend = s.extend || w.Remaining <= l.leaseTime/3
	}
	if s.extend {
		s.kick()
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
		if r.From <= l.next && l.next <= r.To && s.life == l {
			// Taken before they were sent. The machine counts them until it hears that
			// they have their answer here, and hands out nothing above so many.
			l.next = r.To + 1
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
	for !s.stopping && ctx.Err() == nil {
		d := s.first()
		now := time.Now()
		if d != nil && !s.doubts(d, now) {
			s.removeFirst()
			d.phase, d.started, s.taken = running, now, now
			return d
		}
		// None behind it is handed over meanwhile: that would be out of order.
		if d != nil {
			s.extend = true
			s.kick()
		}
		s.resting++
		s.more.Wait()
		s.resting--
	}
	return nil
}

// first is the next message that is buffered and has no answer yet, nil for none.
func (s *consumer) first() *Delivery {
	for s.head < len(s.ready) {
		if d := s.ready[s.head]; !d.answered {
			return d
		}
		s.removeFirst()
	}
	return nil
}

func (s *consumer) removeFirst() {
	s.ready[s.head] = nil
	if s.head++; s.head == len(s.ready) {
		s.clearReady()
	}
}

// doubts says that the lease may have run out, or been taken: the cluster is to be asked
// before somebody begins with the message. It is the last look, by our own clock and by
// what the cluster has pushed. A process that stood still has heard nothing of what
// happened meanwhile: whoever is silent for long is given up, however long its leases are.
func (s *consumer) doubts(d *Delivery, now time.Time) bool {
	if since(d.deadline, now) >= 0 {
		return true
	}
	return s.conn != nil && s.conn.mayBeOld(now) && since(d.sure, now) >= stoodLeast
}

// since is how long ago a moment was, by the clock that says longer: of a machine that was
// suspended only that on the wall has gone on.
func since(at, now time.Time) time.Duration {
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}

// keep puts a message behind those that are buffered. What was taken makes room, also
// when the buffer is never empty.
func (s *consumer) keep(d *Delivery) {
	if left := len(s.ready) - s.head; len(s.ready) == cap(s.ready) && s.head >= left {
		copy(s.ready, s.ready[s.head:])
		clear(s.ready[left:])
		s.ready, s.head = s.ready[:left], 0
	}
	s.ready = append(s.ready, d)
}

func (s *consumer) clearReady() {
	clear(s.ready)
	s.ready, s.head = s.ready[:0], 0
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
		delete(s.lent, d)
		s.idle(d)
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
	s.lent[d] = struct{}{}
	d.busy = true
	s.busy++
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
