package client

import (
	"errors"

	"onceq/transport/wire"
)

const (
	frameBytesMax     = 512 << 10 // of a frame with several publishes
	framePublishesMax = 4096
	pipelineMax       = 8 // publish frames without an answer
	// With fewer frames in flight than this, what is published goes at once. The
	// leader collects too, while an entry is under way: what is held back here first
	// waits twice.
	eagerFrames = 4
	// With as many, a batch collects until an answer comes or it has grown to one of
	// these.
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
	if p.over && p.open.n == 0 && p.session != nil {
		p.sessionLost(statusError(wire.StatusRestored, "session"))
	}
	for {
		switch {
		case p.conn == nil, p.session == nil, p.held, p.waitingRoom, p.frames >= pipelineMax:
			return
		case p.rewind && (p.frames > 0 || p.sealing > 0):
			// While a sequence is being sealed, what names it in After would be
			// refused once more: the run loop pumps when the seal is done.
			return
		case p.given != nil && p.given.probing && p.frames > 0:
			return
		}
		if p.rewind {
			p.rewind = false
			p.contagion = contagion{}
			p.send = p.open.head
		}
		if p.frames >= eagerFrames && p.send == nil && p.fresh.n < collectPublishes && p.fresh.bytes < collectBytes {
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
	most := framePublishesMax
	if p.given != nil && p.given.probing {
		most = 1
	}
	for len(batch) < most {
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
	err := p.conn.publish(size, fr.append, fr.answer, &p.window)
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
	if f == nil || p.over {
		return nil
	}
	if p.given != nil {
		p.next = f.sequence
	}
	if p.next-p.floor() >= windowMax {
		return nil
	}
	p.fresh.remove(f)
	f.sequence = p.next
	p.next++
	p.open.pushBack(f)
	p.chain(f)
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
	if p.given != nil {
		return p.given.floor
	}
	if p.open.head != nil {
		return p.open.head.sequence
	}
	return p.next
}
