package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const (
	labelMax = 255
	// graceTime is how long the machine keeps a detached consumer's leases, whatever
	// was left of them. A connection that fails may be detached since we heard from
	// it last.
	graceTime = 10 * time.Second
	// copyAbove: of a larger frame a small message is copied, so that one slow
	// message does not keep a frame of megabytes in memory.
	copyAbove = 64 << 10
)

// consumer is one Consume call, or a puller's half that settles.
//
// Goroutines: one that attaches, extends and drains, which is the caller's in
// Consume; one for each handler at a time, which is the caller's in Messages; and
// the reader of the connection, which brings deliveries, losses and answers.
type consumer struct {
	c      *Client
	queue  string
	pulls  bool // it asks for messages, see puller
	handle Handler
	o      consumeOptions
	base   context.Context // of handlers: it does not end with Consume's
	spawn  func()          // starts a worker; set before the first one

	mu        sync.Mutex // guards what follows; nothing blocks under it
	more      *sync.Cond // ready or stopping has changed
	conn      *conn
	attached  bool // on conn
	attaching bool // an attach on conn has no answer yet
	life      *life
	lent      map[*Delivery]struct{} // the program is at them: settled by now or not
	ready     []*Delivery            // buffered, in the order of their numbers
	head      int                    // of ready
	workers   int
	resting   int       // workers that wait for a message
	taken     time.Time // when a worker took the newest
	stopping  bool
	err       error // why Consume cannot go on

	toSettle  []*Delivery // asked by the program, not under way
	settling  int         // settle frames without an answer
	asked     int         // deliveries in those
	busy      int         // of lent, without a verb or an answer: handlers are at them
	extending bool        // an extension of all that is held has no answer yet
	extend    bool        // extend now: something is in doubt
	retrying  bool        // the loop is to try again
	leaving   bool        // Leave is being said
	hung      bool        // it has left until a worker asks for a message
	abandoned bool        // nobody is going to settle what is not settled yet: Leave gives it back
	ended     bool        // nobody serves it any more

	retry backoff
	wake  chan struct{}
}

func newConsumer(c *Client, queue string, o consumeOptions, ctx context.Context) *consumer {
	s := &consumer{
		c: c, queue: queue, o: o, base: context.WithoutCancel(ctx), lent: map[*Delivery]struct{}{},
		retry: backoff{base: 20 * time.Millisecond, most: time.Second},
		wake:  make(chan struct{}, 1),
	}
	s.more = sync.NewCond(&s.mu)
	return s
}

func (s *consumer) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// begin makes the consumer known, with so many workers about to start.
func (s *consumer) begin(workers int) {
	s.mu.Lock()
	s.newLife()
	s.workers = workers
	s.mu.Unlock()
	s.c.consume.subscribe(s)
}

// run is Consume after its arguments were checked.
func (s *consumer) run(ctx context.Context) error {
	s.begin(s.o.concurrency)
	defer s.end()
	var workers sync.WaitGroup
	s.spawn = func() { workers.Go(func() { s.work(ctx) }) }
	for range s.o.concurrency {
		s.spawn()
	}
	err := s.loop(ctx)
	workers.Wait()
	return err
}

// loop does what takes time: it extends leases, tries again, and drains.
func (s *consumer) loop(ctx context.Context) error {
	interval := time.Hour // between extensions; nothing is held before the first attach
	extend := time.NewTimer(interval)
	defer extend.Stop()
	again := time.NewTimer(time.Hour)
	again.Stop()
	defer again.Stop()
	drained := time.NewTimer(time.Hour)
	drained.Stop()
	defer drained.Stop()
	hurry := time.NewTimer(time.Hour) // handlers, when the drain takes too long
	hurry.Stop()
	defer hurry.Stop()
	ctxDone, armed, bounded := ctx.Done(), false, false
	for {
		s.mu.Lock()
		if s.err != nil {
			s.stop()
		}
		if s.extend && !s.extending {
			s.extend = false
			s.extendHeld()
		}
		idle, err := s.stopping && s.workers == 0, s.err
		finished := idle && (err != nil || s.settledAll())
		if l := s.life.leaseTime / 3; l > 0 && l != interval {
			interval = l
			extend.Reset(interval)
		}
		if s.retrying && !armed {
			again.Reset(s.retry.next())
			armed = true
		}
		s.mu.Unlock()
		switch {
		case finished && err == nil:
			s.leave(drainTimeout)
			return nil
		case finished:
			return err
		case idle && !bounded:
			drained.Reset(drainTimeout)
			bounded = true
		}
		select {
		case <-s.wake:
		case <-extend.C:
			s.maybeStepBack()
			s.mu.Lock()
			s.extendHeld()
			s.mu.Unlock()
			extend.Reset(interval)
		case <-again.C:
			s.mu.Lock()
			armed, s.retrying = false, false
			s.attach()
			s.pumpSettles()
			s.tellDone()
			s.more.Broadcast() // what is still in doubt is asked about once more
			s.mu.Unlock()
		case <-ctxDone:
			ctxDone = nil
			s.mu.Lock()
			s.stop()
			s.mu.Unlock()
			if s.o.drain > 0 {
				hurry.Reset(s.o.drain)
			}
		case <-hurry.C:
			s.mu.Lock()
			s.interrupt(ErrDraining)
			s.mu.Unlock()
		case <-drained.C:
			s.mu.Lock()
			s.leaving = true
			request := s.leaveRequest() // of what is held, so before it is lost
			err := s.unsettled()
			s.mu.Unlock()
			s.sayLeave(request, time.Second)
			return err
		case <-s.c.ctx.Done():
			s.mu.Lock()
			s.err = ErrClosed
			s.loseAll(func(*Delivery) error { return ErrClosed })
			s.interrupt(ErrClosed)
			s.stop()
			s.mu.Unlock()
			return ErrClosed
		}
	}
}

// interrupt ends the contexts of all that the program is at. A handler that has settled
// its message goes on, and is waited for like any other.
func (s *consumer) interrupt(why error) {
	for d := range s.lent {
		d.cancel(why)
	}
}

// later makes the loop try again what is open, after a moment.
func (s *consumer) later() {
	s.retrying = true
	s.kick()
}

// stop ends the handing over of messages.
func (s *consumer) stop() {
	s.stopping = true
	s.more.Broadcast()
}

// settledAll says that nothing that a handler has seen waits for an answer.
func (s *consumer) settledAll() bool {
	for _, d := range s.life.open {
		if d.verb != 0 || !s.abandoned && (d.phase == returned || d.phase == running) {
			return false
		}
	}
	return true
}

// unsettled ends what could not be drained: settles without an answer, and what was
// handed out and nobody has settled.
func (s *consumer) unsettled() error {
	asked, left := 0, 0
	for _, d := range s.life.open {
		switch {
		case d.verb != 0:
			asked++
		case d.phase == returned || d.phase == running:
			left++
		}
	}
	unknown := newError(wire.CodeOutcomeUnknown, "consume %s: %d messages were handled, and the cluster did not answer their settling in %v", s.queue, asked, drainTimeout)
	s.loseAll(func(d *Delivery) error {
		if d.verb == 0 {
			return lostError(d, wire.LeaseReturned)
		}
		return unknown
	})
	if asked > 0 {
		return unknown
	}
	return fmt.Errorf("consume %s: %d messages were handed out and are not settled %v after its end: they go back to the queue", s.queue, left, drainTimeout)
}

// leave ends the consumer in order: what no handler has seen goes back at once.
func (s *consumer) leave(timeout time.Duration) {
	s.mu.Lock()
	s.leaving = true // attaching once more would make a consumer that nobody serves
	request := s.leaveRequest()
	s.mu.Unlock()
	s.sayLeave(request, timeout)
}

func (s *consumer) leaveRequest() wire.Leave {
	l := s.life
	return wire.Leave{
		Incarnation: l.incarnation, Group: l.group, Consumer: l.id, N: l.n, Done: l.done(),
		NotHandled: l.ranges(func(d *Delivery) bool { return d.phase == buffered }),
	}
}

func (s *consumer) sayLeave(request wire.Leave, timeout time.Duration) {
	if request.N == 0 {
		return // it was never attached
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, timeout)
	defer cancel()
	if _, err := s.c.consume.call(ctx, wire.OpLeave, func(w *pack.Writer) { request.Append(w) }); err != nil {
		s.c.o.logger.Info("leave", "queue", s.queue, "error", err)
	}
}

// maybeStepBack leaves when messages wait in the buffer behind handlers that have
// all had their time, and lost their leases: kept alive, they would be held back from
// other consumers for as long as the handlers hang. It attaches anew when a worker
// asks for a message.
func (s *consumer) maybeStepBack() {
	s.mu.Lock()
	waits := s.head < len(s.ready) && s.resting == 0 && !s.stopping
	if !waits || s.hung || !s.attached || time.Since(s.taken)-s.life.leaseTime < s.o.autoExtend || s.prolonged(time.Now()) {
		s.mu.Unlock()
		return
	}
	request := s.leaveRequest()
	s.c.o.logger.Warn("handlers hang: what waits for them goes back to the queue", "queue", s.queue, "messages", len(s.ready)-s.head, "since", time.Since(s.taken))
	s.hung = true
	s.loseAll(func(d *Delivery) error { return overError(d, wire.LeaseReturned) })
	s.newLife()
	s.mu.Unlock()
	s.sayLeave(request, drainTimeout)
}

// prolonged says that a handler has time by Extend, and does not hang, or that the program
// has, for a message that its handler has left to it; or that a settle is under way, whose
// answer stepping back would lose.
func (s *consumer) prolonged(now time.Time) bool {
	for _, d := range s.life.open {
		if d.verb != 0 && !d.chained || (d.phase == running || d.phase == returned) && (d.extends > 0 || now.Before(d.until)) {
			return true
		}
	}
	return false
}

// end forgets the consumer; deliveries that are still open get a last answer. Requests
// without one may be under way: what comes of them is nothing to go on with.
func (s *consumer) end() {
	s.c.consume.unsubscribe(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.conn, s.attached, s.attaching = nil, false, false
	s.forget()
	s.loseAll(func(d *Delivery) error { return overError(d, wire.LeaseReturned) })
}
