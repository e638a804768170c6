package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"onceq/transport/wire"
)

const (
	maxInFlightDefault      = 4096
	maxInFlightBytesDefault = 64 << 20
	// windowMax is how far sequences may be above the floor. The server allows
	// 65,536 above the floor it has heard of, which may lag behind by what is in
	// flight.
	windowMax       = 65_536 - 4096
	holdBase        = 10 * time.Millisecond
	holdMost        = time.Second
	sessionNamesMax = wire.SessionNameBytesMax
)

type producerOptions struct {
	name             string
	maxInFlight      int
	maxInFlightBytes int
	failFast         bool
}

// ProducerOption changes how NewProducer makes a Producer.
type ProducerOption func(*producerOptions)

// WithName names the producer's session, for a producer that outlives its
// process. Opening the same name again fences the older process: what it still
// sends is refused, and it gets ErrFenced.
func WithName(name string) ProducerOption { return func(o *producerOptions) { o.name = name } }

// WithMaxInFlight bounds the publishes without a final outcome; more wait.
// Default 4,096, at most 61,440.
func WithMaxInFlight(n int) ProducerOption { return func(o *producerOptions) { o.maxInFlight = n } }

// WithMaxInFlightBytes bounds the bytes of the publishes without a final outcome;
// more wait. A publish that is larger than that goes alone. Default 64 MiB.
func WithMaxInFlightBytes(n int) ProducerOption {
	return func(o *producerOptions) { o.maxInFlightBytes = n }
}

// WithFailFast makes a publish beyond the bounds fail at once with ErrWindowFull,
// before anything is sent, instead of waiting for room.
func WithFailFast() ProducerOption { return func(o *producerOptions) { o.failFast = true } }

// Producer publishes to one queue. It is safe for concurrent use; publishes are
// stored in the order in which they are handed in, those of each priority by
// themselves; delayed ones in any.
//
// It holds a session, opened at first use. Each publish takes the session's next
// sequence with its first copy and keeps it over every retransmission.
type Producer struct {
	c     *Client
	queue string
	o     producerOptions
	bound room   // taken by each publish without a final outcome
	given *given // nil unless somebody else keeps the sequences, see sequenced.go
	// window is its place among those who wait for the publish window of a connection.
	window waiter

	mu      sync.Mutex // guards what follows; nothing blocks under it
	conn    *conn
	session *session // nil while none is open
	// fresh are publishes without a sequence, open those with one, both in order.
	// Invariant: a publish is in one of them until its outcome is final, and the
	// head of open is the floor.
	fresh, open futures
	chains      [wire.PriorityMax + 1]*Future // the newest of open in each order, see orderOf
	next        uint64                        // the next sequence
	send        *Future                       // the first of open that is to be sent, nil for none
	frames      int                           // publish frames without an answer
	rewind      bool                          // when frames is 0 all of open is to be sent again, in order
	waitingRoom bool                          // the connection calls back when its window has room
	held        bool                          // nothing is sent before the run loop's timer
	hold        backoff
	sealing     int       // of open
	contagion   contagion // see refuse
	watches     map[<-chan struct{}]*watch
	batch       []*Future // scratch
	started     bool      // the run loop exists
	closing     bool      // no more publishes are taken
	finishing   bool      // Close has waited: what is open is sealed, then the loop ends
	over        bool      // the session is from before a restore: it takes nothing new
	fatal       error     // fenced, or refused for good
	stats       ProducerStats

	wake     chan struct{}
	finished chan struct{} // closed by the run loop
}

// session is what the machine knows the producer by.
type session struct {
	id    wire.SessionID
	epoch uint64
	// expiry is after how long without a word the cluster forgets it; 0: never.
	expiry time.Duration
}

// watch ends the publishes of one context, however many they are.
type watch struct {
	n    int
	stop func() bool
}

// NewProducer makes a producer for queue. Nothing is sent before its first use.
func (c *Client) NewProducer(queue string, opts ...ProducerOption) (*Producer, error) {
	o := producerOptions{maxInFlight: maxInFlightDefault, maxInFlightBytes: maxInFlightBytesDefault}
	for _, f := range opts {
		f(&o)
	}
	switch {
	case !wire.ValidQueueName(queue):
		return nil, newError(wire.CodeBadName, "queue name %.300q: write 1 to %d letters, digits, dots, underscores and hyphens", queue, wire.QueueNameBytesMax)
	case len(o.name) > sessionNamesMax:
		return nil, newError(wire.CodeBadName, "session name of %d bytes, at most %d are accepted", len(o.name), sessionNamesMax)
	case o.maxInFlight < 1 || o.maxInFlight > windowMax:
		return nil, fmt.Errorf("max in flight %d: 1 to %d is accepted", o.maxInFlight, windowMax)
	case o.maxInFlightBytes < 1:
		return nil, fmt.Errorf("max in flight bytes %d: 1 and more is accepted", o.maxInFlightBytes)
	}
	p := &Producer{
		c: c, queue: queue, o: o,
		bound:    room{messagesMax: o.maxInFlight, bytesMax: o.maxInFlightBytes},
		hold:     backoff{base: holdBase, most: holdMost},
		watches:  map[<-chan struct{}]*watch{},
		wake:     make(chan struct{}, 1),
		finished: make(chan struct{}),
	}
	p.window.room = p.room
	return p, nil
}

// Publish stores m once and returns where. It retransmits until there is a
// definite answer or ctx ends; then the error is *OutcomeUnknownError if a copy
// may have arrived. Any other error means that m is not stored and never will
// be by this call.
func (p *Producer) Publish(ctx context.Context, m Message) (Receipt, error) {
	f, err := p.startOne(ctx, &m, false)
	if err != nil {
		return Receipt{}, err
	}
	p.wait(ctx, f)
	return f.receipt, f.err
}

// PublishBatch stores all of ms or none, in one atomic step.
func (p *Producer) PublishBatch(ctx context.Context, ms ...Message) ([]Receipt, error) {
	f, err := p.start(ctx, ms, false)
	if err != nil {
		return nil, err
	}
	p.wait(ctx, f)
	if f.err != nil {
		return nil, f.err
	}
	return f.receipts(), nil
}

// PublishAsync starts a publish. It blocks only while there is no room, see
// WithMaxInFlight and WithMaxInFlightBytes.
// The publish lives under ctx: when that ends it is not retransmitted any more.
// m may be changed once PublishAsync has returned.
func (p *Producer) PublishAsync(ctx context.Context, m Message) *Future {
	f, err := p.startOne(ctx, &m, true)
	if err != nil {
		f = &Future{done: make(chan struct{})}
		f.report(Receipt{}, err)
	}
	return f
}

func (p *Producer) wait(ctx context.Context, f *Future) {
	select {
	case <-f.done:
	case <-ctx.Done():
		p.mu.Lock()
		p.giveUp(f, causeOf(ctx))
		p.pump()
		p.mu.Unlock()
		<-f.done
	}
}

func (p *Producer) start(ctx context.Context, messages []Message, async bool) (*Future, error) {
	ms, err := wireMessages(messages)
	if err != nil {
		return nil, err
	}
	return p.startWire(ctx, ms, async)
}

// startOne keeps the message on the stack until it is encoded.
func (p *Producer) startOne(ctx context.Context, m *Message, async bool) (*Future, error) {
	w, err := m.wire()
	if err != nil {
		return nil, err
	}
	one := [1]wire.Message{w}
	return p.startWire(ctx, one[:], async)
}

// startWire keeps nothing of ms.
func (p *Producer) startWire(ctx context.Context, ms []wire.Message, async bool) (*Future, error) {
	if err := checkMessages(ms, p.c.topo.bodyBytesMax()); err != nil {
		return nil, err
	}
	f := &Future{
		p: p, done: make(chan struct{}), count: len(ms),
		encoded: encode(ms), checksum: wire.PublishChecksum(p.queue, ms), order: orderOf(ms),
	}
	if f.size()+p.frameOverhead() > wire.PayloadBytesMax {
		return nil, newError(wire.CodeTooLarge, "a publish of %d bytes, at most %d fit a frame: publish several", f.size(), wire.PayloadBytesMax)
	}
	f.room = f.size()
	switch {
	case p.bound.try(f.room):
	case p.o.failFast:
		return nil, newError(wire.CodeWindowFull, "publish: %d publishes or %d bytes have no outcome yet: wait for some, or raise the bounds", p.o.maxInFlight, p.o.maxInFlightBytes)
	case !p.bound.take(ctx, f.room, p.finished):
		select {
		case <-p.finished:
			return nil, p.closedReason()
		default:
			return nil, &endedError{what: "publish", cause: causeOf(ctx), why: p.c.produce.reason()}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.fatal
	if p.closing {
		err = ErrClosed
	}
	if err == nil && ctx.Err() != nil {
		err = &endedError{what: "publish", cause: causeOf(ctx)}
	}
	if err == nil && !p.started {
		err = p.begin()
	}
	if err != nil {
		p.bound.give(f.room)
		return nil, err
	}
	p.stats.Published++
	p.fresh.pushBack(f)
	if async {
		p.watch(ctx, f)
	}
	if p.session == nil {
		p.kick()
	}
	p.pump()
	return f, nil
}

func (p *Producer) closedReason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fatal != nil {
		return p.fatal
	}
	return ErrClosed
}

// begin starts the run loop at first use.
func (p *Producer) begin() error {
	if !p.c.enter() {
		return ErrClosed
	}
	p.started = true
	go func() {
		defer p.c.wg.Done()
		p.run()
	}()
	return nil
}

func (p *Producer) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// watch ends f when ctx does. All publishes of one context share one watch.
func (p *Producer) watch(ctx context.Context, f *Future) {
	ended := ctx.Done()
	if ended == nil {
		return
	}
	f.ended = ended
	w := p.watches[ended]
	if w == nil {
		w = &watch{}
		w.stop = context.AfterFunc(ctx, func() { p.contextEnded(ended, causeOf(ctx)) })
		p.watches[ended] = w
	}
	w.n++
}

func (p *Producer) unwatch(f *Future) {
	if w := p.watches[f.ended]; f.ended != nil && w != nil {
		if w.n--; w.n == 0 {
			w.stop()
			delete(p.watches, f.ended)
		}
	}
	f.ended = nil
}

func (p *Producer) contextEnded(ended <-chan struct{}, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveUpAll(func(f *Future) bool { return f.ended == ended }, cause)
}

// giveUpAll collects before it gives up, since that may send what comes next.
func (p *Producer) giveUpAll(which func(f *Future) bool, cause error) {
	var all []*Future
	for _, l := range []*futures{&p.open, &p.fresh} {
		for f := l.head; f != nil; f = f.next {
			if !f.reported && which(f) {
				all = append(all, f)
			}
		}
	}
	for _, f := range all {
		p.giveUp(f, cause)
	}
	p.pump()
}

// giveUp ends the retransmission of f, because its caller waits no longer.
func (p *Producer) giveUp(f *Future, cause error) {
	switch {
	case f.reported:
	case f.definite():
		why := f.refusal
		if why == nil {
			why = p.c.produce.reason()
		}
		p.finish(f, Receipt{}, &endedError{what: "publish", cause: cause, why: why})
	default:
		p.tell(f, Receipt{}, &OutcomeUnknownError{ID: p.id(f), Cause: cause})
		p.seal(f)
	}
}

// seal takes f out of what is sent; the run loop seals it.
func (p *Producer) seal(f *Future) {
	if f.sealing || f.list == nil {
		return
	}
	f.sealing = true
	p.sealing++
	p.kick()
}

// tell reports to the caller, once.
func (p *Producer) tell(f *Future, r Receipt, err error) {
	if f.reported {
		return
	}
	p.unwatch(f)
	switch {
	case err == nil:
		p.stats.Confirmed++
		if r.Duplicate {
			p.stats.Duplicates++
		}
	case isUnknown(err):
		p.stats.Unknown++
	default:
		p.stats.Refused++
	}
	f.report(r, err)
}

func isUnknown(err error) bool {
	unknown := (*OutcomeUnknownError)(nil)
	return errors.As(err, &unknown)
}

// finish makes f's outcome final: the floor may pass it.
func (p *Producer) finish(f *Future, r Receipt, err error) {
	if f.list == nil {
		return
	}
	if p.send == f {
		p.send = f.next
	}
	if f.sealing {
		f.sealing = false
		p.sealing--
	}
	p.unchain(f)
	f.list.remove(f)
	f.encoded = nil
	p.bound.give(f.room) // before it is told: who has heard of it finds room for the next
	p.tell(f, r, err)
}

func (p *Producer) id(f *Future) InnerMsgID {
	return InnerMsgID{Session: p.session.id, Sequence: f.sequence}
}

// Flush waits until every publish handed in before has an answer, which may be
// an error, or until ctx ends.
func (p *Producer) Flush(ctx context.Context) error {
	p.mu.Lock()
	var waiting []*Future
	for _, l := range []*futures{&p.open, &p.fresh} {
		for f := l.head; f != nil; f = f.next {
			if !f.reported {
				waiting = append(waiting, f)
			}
		}
	}
	p.mu.Unlock()
	for _, f := range waiting {
		select {
		case <-f.done:
		case <-ctx.Done():
			return fmt.Errorf("flush: %w", causeOf(ctx))
		}
	}
	return nil
}

// Close takes no more publishes, waits like Flush, ends what has no answer by
// then, and closes an unnamed session. When ctx ends first, Close returns its
// error and what remains to be sealed is sealed in the background until the
// Client is closed.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closing = true
	started := p.started
	p.mu.Unlock()
	if !started {
		return nil
	}
	err := p.Flush(ctx)
	p.mu.Lock()
	p.giveUpAll(func(*Future) bool { return true }, ErrClosed)
	p.finishing = true
	p.kick()
	p.mu.Unlock()
	select {
	case <-p.finished:
	case <-ctx.Done():
		if err == nil {
			err = fmt.Errorf("close producer: %w", causeOf(ctx))
		}
	}
	return err
}

// Stats returns counters since NewProducer.
func (p *Producer) Stats() ProducerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.InFlight = p.fresh.n + p.open.n
	return s
}

// ProducerStats counts a producer's publishes.
type ProducerStats struct {
	Published     uint64 // taken from callers
	Confirmed     uint64 // stored, by an answer
	Duplicates    uint64 // of those, answered from the record of an earlier copy
	Retransmitted uint64 // copies sent beyond the first of each publish
	Refused       uint64 // ended with a definite error: not stored
	Unknown       uint64 // ended as OutcomeUnknownError
	InFlight      int    // without a final outcome
}
