package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
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

// consumer is one Consume call.
//
// Goroutines: the caller's, which attaches, extends and drains; one for each
// handler at a time; and the reader of the connection, which brings deliveries,
// losses and answers.
type consumer struct {
	c      *Client
	queue  string
	handle Handler
	o      consumeOptions
	base   context.Context // of handlers: it does not end with Consume's

	mu        sync.Mutex // guards what follows; nothing blocks under it
	more      *sync.Cond // ready or stopping has changed
	conn      *conn
	attached  bool // on conn
	attaching bool // an attach on conn has no answer yet
	life      *life
	ready     []*Delivery // buffered, in the order of their numbers
	head      int         // of ready
	workers   int
	stopping  bool
	err       error // why Consume cannot go on

	toSettle  []*Delivery // asked by the program, not under way
	settling  int         // settle frames without an answer
	extending bool        // an extension of all that is held has no answer yet
	extend    bool        // extend now: something is aside
	retrying  bool        // the loop is to try again
	leaving   bool        // Leave is being said

	retry backoff
	wake  chan struct{}
}

// life is one identity that the cluster knows the consumer by. When the cluster
// has given it up another begins, and what belonged to it is lost.
type life struct {
	id          wire.ConsumerID
	incarnation uint64
	group       uint32
	n           uint64 // attachments asked for
	clean       bool   // the newest attach was refused without effect, so n may be used again
	leaseTime   time.Duration
	open        map[uint64]*Delivery // without a definite answer
	low         uint64               // no number below is in open
	next        uint64               // the next number expected
	told        uint64               // the done that the machine has heard
	telling     bool
	over        bool
}

// done is the lowest number without a definite answer, or the next expected.
func (l *life) done() uint64 {
	for l.low < l.next && l.open[l.low] == nil {
		l.low++
	}
	return l.low
}

// ranges collects the open numbers that take says yes to.
func (l *life) ranges(take func(d *Delivery) bool) []wire.Range {
	var rs []wire.Range
	for n := l.done(); n < l.next; n++ {
		d := l.open[n]
		if d == nil || !take(d) {
			continue
		}
		if last := len(rs) - 1; last >= 0 && rs[last].To+1 == n {
			rs[last].To = n
		} else {
			rs = append(rs, wire.Range{From: n, To: n})
		}
	}
	return rs
}

func newConsumer(c *Client, queue string, h Handler, o consumeOptions, ctx context.Context) *consumer {
	s := &consumer{
		c: c, queue: queue, handle: h, o: o, base: context.WithoutCancel(ctx),
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

// run is Consume after its arguments were checked.
func (s *consumer) run(ctx context.Context) error {
	s.mu.Lock()
	s.newLife()
	s.mu.Unlock()
	s.c.consume.subscribe(s)
	defer s.end()
	var workers sync.WaitGroup
	s.workers = s.o.concurrency
	for range s.o.concurrency {
		workers.Go(s.work)
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
	ctxDone, armed, bounded := ctx.Done(), false, false
	for {
		s.mu.Lock()
		if s.err != nil {
			s.stop()
		}
		if s.extend {
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
			s.mu.Unlock()
		case <-ctxDone:
			ctxDone = nil
			s.mu.Lock()
			s.stop()
			s.mu.Unlock()
		case <-drained.C:
			err := s.unsettled()
			s.leave(time.Second)
			return err
		case <-s.c.ctx.Done():
			s.mu.Lock()
			s.err = ErrClosed
			s.loseAll(func(*Delivery) error { return ErrClosed })
			s.stop()
			s.mu.Unlock()
			return ErrClosed
		}
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
		if d.verb != 0 || d.phase == returned || d.phase == running {
			return false
		}
	}
	return true
}

func (s *consumer) unsettled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, d := range s.life.open {
		if d.phase == returned {
			n++
		}
	}
	err := newError(wire.CodeOutcomeUnknown, "consume %s: %d messages were handled, and the cluster did not answer their settling in %v", s.queue, n, drainTimeout)
	s.loseAll(func(d *Delivery) error { return err })
	return err
}

// leave ends the consumer in order: what no handler has seen goes back at once.
func (s *consumer) leave(timeout time.Duration) {
	s.mu.Lock()
	l := s.life
	s.leaving = true // attaching once more would make a consumer that nobody serves
	if l.n == 0 {
		s.mu.Unlock()
		return
	}
	request := wire.Leave{
		Incarnation: l.incarnation, Group: l.group, Consumer: l.id, N: l.n, Done: l.done(),
		NotHandled: l.ranges(func(d *Delivery) bool { return d.phase == buffered || d.phase == aside }),
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(s.c.ctx, timeout)
	defer cancel()
	if _, err := s.c.consume.call(ctx, wire.OpLeave, func(w *pack.Writer) { request.Append(w) }); err != nil {
		s.c.o.logger.Info("leave", "queue", s.queue, "error", err)
	}
}

// end forgets the consumer; deliveries that are still open get a last answer.
func (s *consumer) end() {
	s.c.consume.unsubscribe(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	s.loseAll(func(d *Delivery) error { return lostError(d, wire.LeaseReturned) })
}

// newLife begins another identity.
func (s *consumer) newLife() {
	s.forget()
	l := &life{open: map[uint64]*Delivery{}, low: 1, next: 1, told: 1}
	_, _ = rand.Read(l.id[:]) // never fails
	l.incarnation, l.group = s.c.topo.identity()
	s.life, s.attached, s.attaching = l, false, false
	s.c.mu.Lock()
	s.c.consumers[l.id] = s
	s.c.mu.Unlock()
}

func (s *consumer) forget() {
	if s.life == nil {
		return
	}
	s.life.over = true
	s.c.mu.Lock()
	delete(s.c.consumers, s.life.id)
	s.c.mu.Unlock()
}

// gone: the cluster has given this identity up.
func (s *consumer) gone() {
	if n := len(s.life.open); n > 0 {
		s.c.o.logger.Warn("consumer was given up by the cluster", "queue", s.queue, "lost", n)
	}
	s.loseAll(func(d *Delivery) error {
		if d.asking || d.unsure {
			return newError(wire.CodeConsumerGone, "delivery %s: the cluster has given this consumer up; whether the %s counted before cannot be told", d.place, verbName(d.verb))
		}
		return lostError(d, wire.LeaseGone)
	})
	s.newLife()
	s.later()
}

// loseAll answers everything open.
func (s *consumer) loseAll(why func(d *Delivery) error) {
	for _, d := range s.life.open {
		s.resolve(d, why(d))
	}
	s.toSettle = nil
	s.clearReady()
}

// resolve gives d its definite answer.
func (s *consumer) resolve(d *Delivery, err error) {
	if d.answered {
		return
	}
	d.answered, d.answer = true, err
	delete(d.life.open, d.number)
	if d.settled != nil {
		close(d.settled)
	}
	if d.cancel != nil && err != nil {
		d.cancel(err)
	}
	if err != nil && d.phase == returned && !s.o.manual {
		s.c.o.logger.Warn("a handled message did not count", "message", d.place, "attempt", d.attempt, "error", err)
	}
}

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
		if len(l.open) >= 2*s.o.prefetch {
			cn.fail(fmt.Errorf("read: more deliveries than the credit of %d allows", s.o.prefetch))
			return
		}
		d := &Delivery{
			s: s, life: l, number: w.Number, attempt: w.Attempt, at: w.PublishedAt, raw: w.Message,
			place:    MessageID{Incarnation: l.incarnation, QueueNumber: w.Queue, Queue: s.queue, Lane: w.Lane, Offset: w.Offset},
			deadline: now.Add(w.Remaining),
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

func (s *consumer) lose(d *Delivery, st wire.LeaseState) {
	s.resolve(d, lostError(d, st))
}

// pop takes the next message that may be handled; nil to stop. It waits.
func (s *consumer) pop() *Delivery {
	for {
		for s.head == len(s.ready) && !s.stopping {
			s.more.Wait()
		}
		if s.stopping {
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
			d.phase, d.started = running, now
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

// work calls handlers until it is told to stop.
func (s *consumer) work() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		d := s.pop()
		if d == nil {
			break
		}
		ctx, cancel := context.WithCancelCause(s.base)
		d.cancel = cancel
		s.mu.Unlock()
		err := s.call(ctx, d)
		cancel(nil)
		s.mu.Lock()
		d.phase, d.cancel = returned, nil
		switch {
		case d.answered && d.verb == 0:
			s.c.o.logger.Warn("a handled message did not count", "message", d.place, "attempt", d.attempt, "error", d.answer)
		case d.answered, d.verb != 0, s.o.manual && err == nil:
		case err == nil:
			s.settleLocked(d, wire.VerbAck, 0)
		default:
			s.settleLocked(d, wire.VerbNack, nackDelay(err, int(d.attempt)))
		}
	}
	s.workers--
	s.kick()
}

func (s *consumer) call(ctx context.Context, d *Delivery) (err error) {
	if d.message, err = wire.DecodeMessage(d.raw); err != nil {
		s.c.o.logger.Error("message does not decode", "message", d.place, "error", err)
		return err
	}
	d.raw = nil
	defer func() {
		if r := recover(); r != nil {
			s.c.o.logger.Error("handler panicked", "message", d.place, "attempt", d.attempt, "panic", r, "stack", string(debug.Stack()))
			err = errors.New("handler panicked")
		}
	}()
	return s.handle(ctx, d)
}
