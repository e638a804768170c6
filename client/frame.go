package client

import (
	"errors"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

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
		if f.before != nil {
			after = f.before.sequence
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
	case e.Code == wire.CodeSessionExpired, e.Code == wire.CodeWrongCluster, e.Code == wire.CodeRestored:
		p.sessionLost(e)
	case e.Code == wire.CodeFenced, e.Code == wire.CodeEpochMismatch:
		p.fenced()
	case len(fr.futures) == 0:
		p.holdOff()
	case e.Retriable || e.Code == wire.CodeNoQueue:
		// The reason is not in one of them: no room, no queue.
		for _, f := range fr.futures {
			if f.list != nil {
				p.refuse(f, e)
			}
		}
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
	var lost, fenced, restored wire.Status
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
		case wire.StatusRestored:
			restored = r.Status
			p.unjudged(f)
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
	case restored != 0:
		p.lifeOver()
	}
}
