package client

import (
	"errors"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const (
	frameBytesMax     = 512 << 10 // of a frame with several publishes
	framePublishesMax = 4096
	pipelineMax       = 8 // publish frames without an answer
	// With a frame in flight, a batch collects until its answer comes or it has
	// grown to one of these.
	collectBytes     = 64 << 10
	collectPublishes = 256
)

// up is called by the link with a connection to the leader.
func (p *Producer) up(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn = c
	p.waitingRoom = false
	p.held = false
	p.hold.reset()
	p.again()
	p.kick()
	p.pump()
}

// down is called when the connection has ended; every frame has its answer.
func (p *Producer) down(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == c {
		p.conn = nil
	}
}

// again makes everything open be sent once more, in order and before anything
// new, as soon as no frame is in flight.
func (p *Producer) again() {
	if p.open.n > 0 {
		p.rewind = true
	}
}

// pump sends what may be sent. Whoever changes what that depends on calls it.
func (p *Producer) pump() {
	for {
		switch {
		case p.conn == nil, p.session == nil, p.held, p.waitingRoom, p.frames >= pipelineMax:
			return
		case p.rewind && (p.frames > 0 || p.sealing > 0):
			// While a sequence is being sealed, what names it in After would be
			// refused once more: the run loop pumps when the seal is done.
			return
		}
		if p.rewind {
			p.rewind = false
			p.contagion = contagion{}
			p.send = p.open.head
		}
		if p.frames > 0 && p.send == nil && p.fresh.n < collectPublishes && p.fresh.bytes < collectBytes {
			return
		}
		if !p.sendFrame() {
			return
		}
	}
}

func (p *Producer) frameOverhead() int { return 64 + len(p.queue) }

// sendFrame sends one frame; false when there is nothing to send or no room.
func (p *Producer) sendFrame() bool {
	batch := p.batch[:0]
	size := p.frameOverhead()
	f := p.send
	for len(batch) < framePublishesMax {
		if f == nil {
			if f = p.admit(); f == nil {
				break
			}
		}
		if f.sealing || f.inFlight {
			f = f.next
			continue
		}
		if len(batch) > 0 && (f.alone || size+f.size() > frameBytesMax) {
			break
		}
		size += f.size()
		batch = append(batch, f)
		f = f.next
		if batch[len(batch)-1].alone {
			break
		}
	}
	p.batch = batch
	if len(batch) == 0 {
		p.send = nil
		return false
	}
	fr := &frame{p: p, session: p.session, futures: append(make([]*Future, 0, len(batch)), batch...)}
	err := p.conn.publish(size, fr.append, fr.answer, p.room)
	tooLarge := (*Error)(nil)
	switch {
	case err == nil:
	case errors.Is(err, errWindow):
		p.waitingRoom = true
		return false
	case errors.As(err, &tooLarge) && len(batch) > 1:
		for _, f := range fr.futures {
			f.alone = true
		}
		return true
	case tooLarge != nil:
		p.refused(fr.futures[0], tooLarge)
		return true
	default:
		// The connection has ended: up comes with another. Or it has too many open
		// requests: their answers pump.
		return false
	}
	clear(batch)
	p.send = f
	p.frames++
	for _, f := range fr.futures {
		f.inFlight = true
		if f.copies++; f.copies > 1 {
			p.stats.Retransmitted++
		}
	}
	return true
}

// admit gives the oldest fresh publish its sequence.
func (p *Producer) admit() *Future {
	f := p.fresh.head
	if f == nil || p.open.n > 0 && p.next-p.open.head.sequence >= windowMax {
		return nil
	}
	p.fresh.remove(f)
	f.sequence = p.next
	p.next++
	p.open.pushBack(f)
	if p.send == nil {
		p.send = f
	}
	return f
}

// room is called when the connection's publish window has grown.
func (p *Producer) room() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waitingRoom = false
	p.pump()
}

// floor is the lowest sequence without a final outcome.
func (p *Producer) floor() uint64 {
	if p.open.head != nil {
		return p.open.head.sequence
	}
	return p.next
}

// frame is a number of publishes under way together. The grouping means nothing.
type frame struct {
	p       *Producer
	session *session
	futures []*Future
}

// append writes the frame; p.mu is held.
func (fr *frame) append(w *pack.Writer) {
	p := fr.p
	wire.PublishFrame{
		Incarnation: p.session.id.Incarnation, Group: p.session.id.Group, Session: p.session.id.Number,
		Epoch: p.session.epoch, Floor: p.floor(), Queue: p.queue,
	}.AppendHead(w, len(fr.futures))
	for _, f := range fr.futures {
		after := uint64(0)
		if f.prev != nil {
			after = f.prev.sequence
		}
		f.append(w, after)
	}
}

// answer is called on the reader with what became of the frame.
func (fr *frame) answer(op wire.Op, payload []byte, err error) {
	p := fr.p
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frames--
	if fr.session != p.session {
		// The session was lost meanwhile; its publishes have been dealt with.
		p.pump()
		return
	}
	switch {
	case errors.Is(err, errUnsent):
		for _, f := range fr.futures {
			f.inFlight = false
			if f.copies--; f.copies > 0 {
				p.stats.Retransmitted--
			}
		}
		p.again()
	case err != nil:
		fr.unclear()
	case op == wire.OpError:
		fr.failed(replyError(payload))
	default:
		fr.judge(payload)
	}
	p.pump()
}

// unclear: the frame may have arrived.
func (fr *frame) unclear() {
	for _, f := range fr.futures {
		f.inFlight, f.written, f.unknown = false, true, true
	}
	fr.p.again()
}

// failed: the frame was refused whole.
func (fr *frame) failed(e *Error) {
	p := fr.p
	if e.unclear() {
		fr.unclear()
		p.holdOff()
		return
	}
	for _, f := range fr.futures {
		f.inFlight, f.written = false, true
	}
	switch {
	case e.transient():
		if e.Code == wire.CodeNotLeader || e.Code == wire.CodeNoLeader {
			if p.conn != nil {
				p.c.produce.misdirected(p.conn, wire.ErrorReply{Code: e.Code, Leader: e.leader})
			}
		}
		for _, f := range fr.futures {
			f.refusal = e
		}
		p.again()
		p.holdOff()
	case e.Code == wire.CodeSessionExpired:
		p.sessionLost(e)
	case e.Code == wire.CodeFenced, e.Code == wire.CodeEpochMismatch:
		p.fenced()
	case len(fr.futures) == 0:
		p.holdOff()
	case len(fr.futures) > 1:
		// One of them is to blame. Each goes by itself, so that it is found and the
		// others are stored.
		for _, f := range fr.futures {
			f.alone = true
		}
		p.again()
	default:
		p.refuse(fr.futures[0], e)
		p.again()
	}
}

// judge takes the machine's decision about each copy.
func (fr *frame) judge(payload []byte) {
	p := fr.p
	reply, err := wire.DecodePublishReply(payload)
	if err == nil && len(reply.Results) != len(fr.futures) {
		err = errors.New("a publish reply of another length than the request")
	}
	for i := 0; err == nil && i < len(fr.futures); i++ {
		if reply.Results[i].Sequence != fr.futures[i].sequence {
			err = errors.New("a publish reply for another sequence")
		}
	}
	if err != nil {
		fr.unclear()
		if p.conn != nil {
			p.conn.fail(err)
		}
		return
	}
	if p.conn != nil {
		p.conn.refused.Store(0)
	}
	var lost, fenced wire.Status
	for i, f := range fr.futures {
		if f.list == nil {
			continue // final already, by a seal
		}
		f.inFlight, f.written = false, true
		switch r := reply.Results[i]; r.Status {
		case wire.StatusOK:
			p.stored(f, r)
		case wire.StatusOutOfOrder:
			p.outOfOrder(f)
		case wire.StatusWindowFull:
			f.refusal = statusError(r.Status, "publish")
			p.again()
			p.holdOff()
		case wire.StatusSessionExpired, wire.StatusWrongIncarnation:
			lost = r.Status
		case wire.StatusFenced, wire.StatusEpochMismatch:
			fenced = r.Status
		case wire.StatusSealed:
			p.never(f)
		case wire.StatusBodyDiffers:
			p.c.o.logger.Error("another message is stored under this id", "id", p.id(f), "queue", p.queue)
			p.finish(f, Receipt{}, statusError(r.Status, p.id(f).Short()))
		case wire.StatusBelowFloor:
			p.belowFloor(f)
		default:
			p.refuse(f, statusError(r.Status, "queue "+p.queue))
		}
	}
	switch {
	case lost != 0:
		p.sessionLost(statusError(lost, "queue "+p.queue))
	case fenced != 0:
		p.fenced()
	}
}

func (p *Producer) stored(f *Future, r wire.PublishResult) {
	p.hold.reset()
	p.c.learnQueueOnce(r.Queue, p.queue)
	receipt := Receipt{
		ID: p.id(f),
		Message: MessageID{
			Incarnation: p.session.id.Incarnation, QueueNumber: r.Queue, Queue: p.queue,
			Lane: r.Lane, Offset: r.Offset,
		},
		Duplicate: r.Duplicate,
		Attempts:  f.copies,
	}
	if f.reported {
		p.c.remember(Outcome{ID: receipt.ID, State: Stored, Message: receipt.Message, Count: f.count})
	}
	p.finish(f, receipt, nil)
}

// never: a seal says that f is not stored.
func (p *Producer) never(f *Future) {
	if f.reported {
		p.c.remember(Outcome{ID: p.id(f), State: Never})
	}
	err := f.refusal
	if err == nil {
		err = statusError(wire.StatusSealed, p.id(f).Short())
	}
	p.finish(f, Receipt{}, err)
}

// belowFloor: this copy was not stored, which says nothing of other copies. The
// floor does not pass what is open, so another process has raised it.
func (p *Producer) belowFloor(f *Future) {
	err := statusError(wire.StatusBelowFloor, p.id(f).Short())
	if f.unknown {
		p.finish(f, Receipt{}, &OutcomeUnknownError{ID: p.id(f), Final: true, Cause: err})
		return
	}
	p.finish(f, Receipt{}, err)
}

// contagion is a refusal for a reason that lasts (the queue is full, or gone).
// What was in flight behind the refused publish is refused as out of order; it
// gets the same error. Sending it all again, to have one publish refused and the
// rest out of order each time, would cost the square of what is in flight.
type contagion struct {
	err   error
	since uint64 // the refused sequence
	upTo  uint64 // the highest sequence when the refusal came
}

// refuse: the machine has refused this copy and recorded nothing.
func (p *Producer) refuse(f *Future, err *Error) {
	switch err.Code {
	case wire.CodeQueueFull, wire.CodeNoQueue, wire.CodeOutcomeCap:
		if p.contagion.err == nil || f.sequence > p.contagion.upTo {
			p.contagion = contagion{err: err, since: f.sequence, upTo: p.next - 1}
		}
	}
	p.refused(f, err)
}

// refused ends f with err if that is definite. If another copy may be on its way
// it is sealed first: then it is stored, or err is true. One that was reported as
// unknown waits for its seal too: its caller may ask, and only a seal says never.
func (p *Producer) refused(f *Future, err error) {
	if f.definite() && !f.reported {
		p.finish(f, Receipt{}, err)
		return
	}
	f.refusal = err
	p.seal(f)
}

func (p *Producer) outOfOrder(f *Future) {
	if c := p.contagion; c.err != nil && f.sequence > c.since && f.sequence <= c.upTo {
		p.refused(f, c.err)
		return
	}
	f.refusal = statusError(wire.StatusOutOfOrder, "publish")
	p.again()
}

// holdOff lets a moment pass before anything is sent again.
func (p *Producer) holdOff() {
	p.held = true
	p.kick()
}
