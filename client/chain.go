package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Outgoing is a message to publish to a queue.
type Outgoing struct {
	Queue   string
	Message Message
}

// AckAndPublish acks d and publishes outputs, in one atomic step: all of it
// happens or nothing. So a chain of queues processes each message once, whatever
// is retransmitted. The receipts stand in the order of outputs; messages to the
// same queue have the same priority.
//
// It retransmits until there is a definite answer or ctx ends; then the error is
// *OutcomeUnknownError if a copy may have arrived, which is resolved in the
// background. ErrLeaseLost means that somebody else has or had d, and that nothing
// was published. With any other error nothing has happened and d is still to be
// settled. After success a handler returns nil.
func (c *Client) AckAndPublish(ctx context.Context, d *Delivery, outputs ...Outgoing) ([]Receipt, error) {
	if len(outputs) == 0 {
		return nil, d.Ack(ctx)
	}
	j := &join{c: c, d: d, outputs: outputs}
	if err := j.group(); err != nil {
		return nil, err
	}
	if !c.enter() {
		return nil, ErrClosed
	}
	defer c.wg.Done()
	if err := j.claim(); err != nil {
		return nil, err
	}
	return j.run(ctx)
}

// join is one ack-and-publish.
type join struct {
	c       *Client
	d       *Delivery
	outputs []Outgoing
	grouped []wire.Output
	places  [][2]int // of each output: which of grouped, which message of it
	request wire.AckPublish
	session *chainSession
	copies  int
}

// group puts outputs to the same queue together, as they are stored.
func (j *join) group() error {
	index := map[string]int{}
	for i := range j.outputs {
		o := &j.outputs[i]
		if !wire.ValidQueueName(o.Queue) {
			return newError(wire.CodeBadName, "queue name %.300q: write 1 to %d letters, digits, dots, underscores and hyphens", o.Queue, wire.QueueNameBytesMax)
		}
		m, err := o.Message.wire()
		if err != nil {
			return err
		}
		k, known := index[o.Queue]
		if !known {
			k = len(j.grouped)
			index[o.Queue] = k
			j.grouped = append(j.grouped, wire.Output{Queue: o.Queue})
		}
		j.places = append(j.places, [2]int{k, len(j.grouped[k].Messages)})
		j.grouped[k].Messages = append(j.grouped[k].Messages, m)
	}
	if n := len(j.grouped); n > wire.AckPublishQueuesMax {
		return newError(wire.CodeTooLarge, "outputs to %d queues, at most %d are accepted", n, wire.AckPublishQueuesMax)
	}
	if n := len(j.outputs); n > wire.MessagesMax {
		return newError(wire.CodeTooLarge, "%d outputs, at most %d are accepted", n, wire.MessagesMax)
	}
	for _, g := range j.grouped {
		if err := checkMessages(g.Messages, j.c.topo.bodyBytesMax()); err != nil {
			return err
		}
	}
	return nil
}

// claim keeps every other settle off the delivery: an ack of its own would ack
// without publishing.
func (j *join) claim() error {
	d, s := j.d, j.d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case d.answered && d.answer != nil:
		return d.answer
	case d.verb != 0:
		return fmt.Errorf("delivery %s: ack-and-publish after %s: %w", d.place, verbName(d.verb), ErrAlreadySettled)
	}
	d.verb, d.chained, d.asking = wire.VerbAck, true, true
	j.request = wire.AckPublish{
		Incarnation: d.life.incarnation, Group: d.life.group, Consumer: d.life.id, Number: d.number, Outputs: j.grouped,
		Checksum: wire.AckPublishChecksum(d.life.id, d.number, j.grouped),
	}
	if d.life == s.life {
		j.request.Done = d.life.done()
	}
	return nil
}

// release gives the delivery back to whoever settles it: nothing has happened. If
// its handler has returned meanwhile, nobody else would.
func (j *join) release(why error) {
	d, s := j.d, j.d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	d.verb, d.chained, d.asking = 0, false, false
	if d.answered {
		return
	}
	switch {
	case d.life != s.life:
		s.lose(d, wire.LeaseGone)
	case s.ended:
		s.lose(d, wire.LeaseReturned) // it has left, and settles nothing any more
	case d.phase == returned && !s.o.manual:
		s.settleLocked(d, verdictFor(why))
	}
	s.kick()
}

// settle gives the delivery its answer.
func (j *join) settle(err error) {
	d, s := j.d, j.d.s
	s.mu.Lock()
	defer s.mu.Unlock()
	d.asking = false
	s.resolve(d, err)
	s.tellDone()
	s.kick()
}

func (j *join) run(ctx context.Context) ([]Receipt, error) {
	tries := backoff{base: holdBase, most: holdMost}
	unsure := false // a copy of an earlier turn may have arrived
	for {
		r, unknown, err := j.once(ctx)
		unknown = unknown || unsure
		switch {
		case err == nil && r.Status == wire.StatusOK:
			j.finish()
			j.settle(nil)
			return j.receipts(r), nil
		case err == nil && !unknown && r.Status == wire.StatusSessionExpired:
			// No copy was judged by the session that is gone: another will do.
			j.c.chain.lost(j.session)
			j.finish()
		case err == nil && !unknown && r.Status == wire.StatusRestored:
			// The lease is of the life before as well: there is nothing to try again.
			j.c.chain.lost(j.session)
			why := restoredError(j)
			j.finish()
			j.never(why)
			return nil, why
		case err == nil && r.Status == wire.StatusWindowFull:
			// An older one is stuck: the sequence stays, and comes again.
		case !unknown:
			why := j.reason(r, err)
			j.finish()
			j.never(why)
			return nil, why
		default:
			// A copy may be on its way: only a seal tells what became of all.
			return j.resolve(ctx, j.reason(r, err))
		}
		unsure = unsure || unknown
		if !pause(ctx, tries.next()) {
			why := &endedError{what: "ack and publish", cause: causeOf(ctx), why: j.reason(r, err)}
			if unsure && j.session != nil {
				return j.resolve(ctx, why)
			}
			j.finish()
			j.never(why)
			return nil, why
		}
	}
}

func restoredError(j *join) error {
	return newError(wire.CodeLeaseLost, "delivery %s: the cluster was restored from a backup: lease lost: nothing was acked and nothing published", j.d.place)
}

// once sends until there is an answer. unknown says that a copy may have arrived
// whose answer is not known.
func (j *join) once(ctx context.Context) (r wire.PublishResult, unknown bool, err error) {
	if j.session == nil {
		if err := j.c.chain.take(ctx, j); err != nil {
			return r, false, err
		}
	}
	j.request.Floor = j.c.chain.floor(j.session)
	payload, unknown, err := j.c.produce.tryInLine(ctx, wire.OpAckPublish, j.bytes(), func(w *pack.Writer) {
		j.copies++
		j.request.Append(w)
	})
	if err != nil {
		return r, unknown, err
	}
	reply, err := wire.DecodePublishReply(payload)
	if err == nil && (len(reply.Results) != 1 || reply.Results[0].Sequence != j.request.Sequence) {
		err = errors.New("an answer to another request")
	}
	if err != nil {
		return r, true, newError(wire.CodeInternal, "ack and publish").because(err)
	}
	return reply.Results[0], unknown, nil
}

// Of an ack-and-publish on the wire, at most: what it takes itself, each queue, each
// message, and each of a message's headers, beside the texts and bodies in them.
const (
	joinOverhead    = 192
	outputOverhead  = 16
	messageOverhead = 64
	headerOverhead  = 16
)

// bytes is at most what the request takes.
func (j *join) bytes() int {
	n := joinOverhead
	for i := range j.grouped {
		n += outputOverhead + len(j.grouped[i].Queue)
		for k := range j.grouped[i].Messages {
			m := &j.grouped[i].Messages[k]
			n += messageOverhead + len(m.Body) + len(m.BizID) + len(m.OrderingKey)
			for _, h := range m.Headers {
				n += headerOverhead + len(h.Name) + len(h.Value)
			}
		}
	}
	return n
}

// finish: the outcome is final, the floor may pass the sequence.
func (j *join) finish() {
	if j.session != nil {
		j.c.chain.done(j.session, j.request.Sequence)
		j.session = nil
	}
}

func (j *join) id() InnerMsgID {
	return InnerMsgID{Session: j.session.id, Sequence: j.request.Sequence}
}

// reason is why nothing was answered as stored.
func (j *join) reason(r wire.PublishResult, err error) error {
	switch {
	case err == nil && (r.Status == wire.StatusLeaseLost || r.Status == wire.StatusConsumerGone),
		answered(err, wire.CodeLeaseLost), answered(err, wire.CodeConsumerGone):
		return newError(wire.CodeLeaseLost, "delivery %s: lease lost: nothing was acked and nothing published", j.d.place)
	case err == nil:
		return statusError(r.Status, "ack and publish")
	}
	return err
}

// never: no copy was carried out, and none will be.
func (j *join) never(why error) {
	if answered(why, wire.CodeLeaseLost) {
		j.settle(why)
		return
	}
	j.release(why)
}

// resolve closes the sequence, so that a late copy has no effect, and finds out
// what became of it. It goes on in the background when ctx ends.
func (j *join) resolve(ctx context.Context, why error) ([]Receipt, error) {
	id := j.id()
	sealed := make(chan wire.PublishResult, 1)
	j.c.wg.Go(func() { // Close waits: the caller has entered
		r := j.c.chain.seal(j.c.ctx, j.session, j.request.Sequence)
		j.sealed(id, r, why)
		sealed <- r
	})
	select {
	case r := <-sealed:
		switch r.Status {
		case wire.StatusOK:
			return j.receipts(r), nil
		case wire.StatusSealed:
			return nil, why
		}
		return nil, &OutcomeUnknownError{ID: id, Final: r.Status != wire.StatusNotStored, Cause: why}
	case <-ctx.Done():
		return nil, &OutcomeUnknownError{ID: id, Cause: causeOf(ctx)}
	}
}

// sealed takes the last word on the sequence.
func (j *join) sealed(id InnerMsgID, r wire.PublishResult, why error) {
	for k, p := range r.Outputs {
		if k < len(j.grouped) {
			j.c.learnQueue(p.Queue, j.grouped[k].Queue)
		}
	}
	switch r.Status {
	case wire.StatusOK:
		j.c.remember(j.c.outcome(j.c.ctx, id, r))
		j.settle(nil)
	case wire.StatusSealed:
		j.c.remember(Outcome{ID: id, State: Never})
		j.never(why)
	default:
		j.settle(&OutcomeUnknownError{ID: id, Final: r.Status != wire.StatusNotStored, Cause: why})
	}
	if r.Status == wire.StatusSessionExpired || r.Status == wire.StatusRestored {
		j.c.chain.lost(j.session)
	}
	j.finish()
}

func (j *join) receipts(r wire.PublishResult) []Receipt {
	rs := make([]Receipt, len(j.outputs))
	for i := range rs {
		at := j.places[i]
		rs[i] = Receipt{ID: InnerMsgID{Session: wire.SessionID{Incarnation: j.request.Incarnation, Group: j.request.Group, Number: j.request.Session}, Sequence: r.Sequence},
			Duplicate: r.Duplicate, Attempts: j.copies}
		if at[0] < len(r.Outputs) {
			p := r.Outputs[at[0]]
			j.c.learnQueueOnce(p.Queue, j.outputs[i].Queue)
			rs[i].Message = MessageID{Incarnation: j.request.Incarnation, QueueNumber: p.Queue, Queue: j.outputs[i].Queue, Lane: p.Lane, Offset: p.Offset + uint64(at[1])}
		}
	}
	return rs
}

// chain is where a client's ack-and-publishes get their sequences. It holds one
// unnamed session, opened at first use.
type chain struct {
	c *Client

	mu      sync.Mutex // guards what follows
	session *chainSession
	opening chan struct{} // closed when an attempt to open a session has ended
}

type chainSession struct {
	id    wire.SessionID
	epoch uint64
	// Guarded by chain.mu.
	next, low uint64 // the next sequence; no sequence below low is open
	open      map[uint64]bool
}

// take gives j a session and its next sequence.
func (ch *chain) take(ctx context.Context, j *join) error {
	for {
		ch.mu.Lock()
		if s := ch.session; s != nil && s.id.Incarnation != j.request.Incarnation {
			// The cluster was restored. Its session numbers are given out again, so this
			// one means nothing there, or another's; a delivery of before is nobody's.
			if incarnation, _ := ch.c.topo.identity(); incarnation != j.request.Incarnation {
				ch.mu.Unlock()
				return restoredError(j)
			}
			ch.session = nil
		}
		if s := ch.session; s != nil && s.next-s.floor() < windowMax {
			j.session = s
			j.request.Session, j.request.Epoch, j.request.Sequence = s.id.Number, s.epoch, s.next
			s.open[s.next] = true
			s.next++
			ch.mu.Unlock()
			return nil
		}
		if ch.session != nil {
			ch.mu.Unlock()
			if !pause(ctx, holdBase) {
				return &endedError{what: "ack and publish", cause: causeOf(ctx), why: statusError(wire.StatusWindowFull, "ack and publish")}
			}
			continue
		}
		opening := ch.opening
		if opening == nil {
			opening = make(chan struct{})
			ch.opening = opening
			ch.mu.Unlock()
			s, err := ch.c.openChain(ctx)
			ch.mu.Lock()
			ch.session, ch.opening = s, nil
			close(opening)
			ch.mu.Unlock()
			if err != nil {
				return err
			}
			continue
		}
		ch.mu.Unlock()
		select {
		case <-opening:
		case <-ctx.Done():
			return &endedError{what: "open session", cause: causeOf(ctx), why: ch.c.produce.reason()}
		}
	}
}

func (s *chainSession) floor() uint64 {
	for s.low < s.next && !s.open[s.low] {
		s.low++
	}
	return s.low
}

func (ch *chain) floor(s *chainSession) uint64 {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return s.floor()
}

func (ch *chain) done(s *chainSession, sequence uint64) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	delete(s.open, sequence)
}

// lost: the cluster does not know the session any more.
func (ch *chain) lost(s *chainSession) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.session == s {
		ch.session = nil
	}
}

// openChain opens a session. The nonce stays the same over all copies, so that a
// lost answer is found again.
func (c *Client) openChain(ctx context.Context) (*chainSession, error) {
	incarnation, group := c.topo.identity()
	request := wire.OpenSession{Incarnation: incarnation, Group: group, Label: c.o.label}
	_, _ = rand.Read(request.Nonce[:]) // never fails
	payload, err := c.produce.call(ctx, wire.OpOpenSession, func(w *pack.Writer) { request.Append(w) })
	if err != nil {
		return nil, err
	}
	r, err := wire.DecodeSessionOpened(payload)
	if err != nil {
		return nil, err
	}
	if r.Status != wire.StatusOK {
		return nil, statusError(r.Status, "open session")
	}
	return &chainSession{id: r.Session, epoch: r.Epoch, next: r.Next, low: r.Next, open: map[uint64]bool{}}, nil
}

// seal closes a sequence for good, however long it takes. A status that is neither
// OK nor sealed means that the cluster cannot tell.
func (ch *chain) seal(ctx context.Context, s *chainSession, sequence uint64) wire.PublishResult {
	request := wire.Seal{Incarnation: s.id.Incarnation, Group: s.id.Group, Session: s.id.Number, Epoch: s.epoch, Sequences: []uint64{sequence}}
	tries := backoff{base: holdBase, most: holdMost}
	for {
		payload, err := ch.c.produce.call(ctx, wire.OpSeal, func(w *pack.Writer) { request.Append(w) })
		var reply wire.SealReply
		if err == nil {
			reply, err = wire.DecodeSealReply(payload)
		}
		switch {
		case ctx.Err() != nil:
			return wire.PublishResult{Sequence: sequence, Status: wire.StatusNotStored}
		case answered(err, wire.CodeSessionExpired), answered(err, wire.CodeWrongCluster):
			return wire.PublishResult{Sequence: sequence, Status: wire.StatusSessionExpired}
		case err == nil && reply.Status == wire.StatusOK && len(reply.Outcomes) == 1 && reply.Outcomes[0].Status != wire.StatusWindowFull && reply.Outcomes[0].Status != wire.StatusOutcomeCap:
			return reply.Outcomes[0]
		case err == nil && reply.Status != wire.StatusOK:
			return wire.PublishResult{Sequence: sequence, Status: reply.Status}
		case err == nil && len(reply.Outcomes) == 1 && reply.Outcomes[0].Status == wire.StatusWindowFull:
			ch.raiseFloor(s)
		}
		if !pause(ctx, tries.next()) {
			return wire.PublishResult{Sequence: sequence, Status: wire.StatusNotStored}
		}
	}
}

// raiseFloor tells the machine the floor with a frame that carries nothing: a sequence
// is only sealed within the window above the floor that the machine knows, and what was
// refused before it came to the log has not told it.
func (ch *chain) raiseFloor(s *chainSession) {
	cn, frame := ch.c.produce.current(), wire.PublishFrame{
		Incarnation: s.id.Incarnation, Group: s.id.Group, Session: s.id.Number, Epoch: s.epoch, Floor: ch.floor(s),
	}
	if cn == nil {
		return
	}
	// Whoever waits for the seal asks again, so it does not matter what becomes of it.
	_ = cn.publish(emptyFrameBytes, func(w *pack.Writer) { frame.AppendHead(w, 0) }, func(wire.Op, []byte, error) {}, nil)
}

// emptyFrameBytes is at least what a publish frame without publishes and without a
// queue takes.
const emptyFrameBytes = 64

// chainCloseTimeout bounds how long closing a client waits for its session of
// ack-and-publishes to be closed. One that is not closes by expiry.
const chainCloseTimeout = time.Second

// close ends the session in order, when a leader is connected and nothing is open.
func (ch *chain) close() {
	ch.mu.Lock()
	s := ch.session
	idle := s != nil && s.floor() == s.next
	ch.session = nil
	ch.mu.Unlock()
	if !idle || ch.c.produce.reason() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ch.c.ctx, chainCloseTimeout)
	defer cancel()
	request := wire.CloseSession{Incarnation: s.id.Incarnation, Group: s.id.Group, Session: s.id.Number, Epoch: s.epoch}
	if _, err := ch.c.produce.call(ctx, wire.OpCloseSession, func(w *pack.Writer) { request.Append(w) }); err != nil {
		ch.c.o.logger.Info("close session", "session", s.id, "error", err)
	}
}
