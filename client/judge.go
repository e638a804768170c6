package client

import (
	"onceq/transport/wire"
)

func (p *Producer) stored(f *Future, r wire.PublishResult) {
	p.hold.reset()
	if p.given != nil {
		p.given.probing = false
	}
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
	if p.given != nil && err.passing() {
		f.refusal = err
		p.given.probing = true
		p.again()
		p.holdOff()
		return
	}
	switch err.Code {
	case wire.CodeQueueFull, wire.CodeNoQueue, wire.CodeOutcomeCap, wire.CodeIndexCap:
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
