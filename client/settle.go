package client

import (
	"cmp"
	"errors"
	"slices"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const (
	settleFramesMax  = 4    // without an answer
	settleNumbersMax = 8192 // in a frame
	settleCollect    = 64   // with a frame in flight, a batch collects so many, see worthAFrame
)

// settleLocked asks for the verb, once. Acks and nacks are collected: a batch leaves
// at once when none is in flight.
func (s *consumer) settleLocked(d *Delivery, r verdict) {
	if d.verb != 0 {
		return
	}
	d.verb, d.delay, d.reason = r.verb, r.delay, r.reason
	s.idle(d)
	if d.answered {
		return
	}
	s.toSettle = append(s.toSettle, d)
	s.pumpSettles()
}

// idle: no handler is at d any more, or it has said what is to become of it.
func (s *consumer) idle(d *Delivery) {
	if d.busy {
		d.busy = false
		s.busy--
	}
}

func (s *consumer) pumpSettles() {
	for s.conn != nil && s.attached && len(s.toSettle) > 0 && s.settling < settleFramesMax && !s.retrying {
		if len(s.toSettle) < s.worthAFrame() && !s.spent() {
			return
		}
		n := s.inOneFrame()
		batch := append(make([]*Delivery, 0, n), s.toSettle[:n]...)
		rest := copy(s.toSettle, s.toSettle[n:])
		clear(s.toSettle[rest:])
		s.toSettle = s.toSettle[:rest]
		batch = slices.DeleteFunc(batch, func(d *Delivery) bool { return d.answered })
		if len(batch) > 0 && !s.sendSettle(batch) {
			return
		}
	}
}

// worthAFrame is how many settles a batch collects. The more frames are in flight the
// more it is, so that they hold most of the credit between them, of up to 9,281, if not
// all: what finds none left waits for an answer, that is for as long as a publish takes,
// and who produces as fast as he gets confirmations would leave the consumers behind.
func (s *consumer) worthAFrame() int {
	credit := min(s.o.prefetch, settleNumbersMax)
	switch s.settling {
	case 0:
		return 1
	case 1:
		return settleCollect
	case 2:
		return max(settleCollect, credit/8)
	}
	return credit
}

// spent says that collecting leads to little: of what the consumer holds, which is so
// much of its credit that the cluster has little to give it meanwhile, nothing is left
// but what handlers are at, and that is no more than what was collected. A handler that
// waits for the answer to its settle is at nothing. What was collected is a
// quarter of all at least: a thousand small credits would cost a frame for each message.
func (s *consumer) spent() bool {
	held, at, settled := len(s.life.open), s.busy, len(s.toSettle)
	return held >= s.o.prefetch/2 && settled >= max(at, held/4) && held <= s.asked+settled+at
}

// inOneFrame is how many of those to settle go into the next frame.
func (s *consumer) inOneFrame() int {
	if s.toSettle[0].alone {
		return 1
	}
	n := min(len(s.toSettle), settleNumbersMax)
	if i := slices.IndexFunc(s.toSettle[:n], func(d *Delivery) bool { return d.alone }); i > 0 {
		return i
	}
	return n
}

// sendSettle sends one frame. What has no definite answer is settled again, which
// is harmless: the machine answers repeats with the truth.
func (s *consumer) sendSettle(batch []*Delivery) bool {
	slices.SortFunc(batch, func(a, b *Delivery) int { return cmp.Compare(a.number, b.number) })
	l, cn := s.life, s.conn
	request := s.settleRequest(nil)
	for _, d := range batch {
		if last := len(request.Items) - 1; last >= 0 {
			it := &request.Items[last]
			if it.To+1 == d.number && it.Verb == d.verb && it.Time == d.delay && it.Reason == d.reason {
				it.To++
				continue
			}
		}
		request.Items = append(request.Items, wire.SettleItem{From: d.number, To: d.number, Verb: d.verb, Time: d.delay, Reason: d.reason})
	}
	err := cn.send(wire.OpSettle, func(w *pack.Writer) { request.Append(w) }, func(op wire.Op, payload []byte, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settling--
		s.asked -= len(batch)
		for _, d := range batch {
			d.asking = false
			d.unsure = d.unsure || errors.Is(err, errLost)
		}
		states, err := s.settleAnswer(l, cn, op, payload, err)
		if err == nil {
			s.heard(l, request.Done)
			s.retry.reset()
		}
		switch {
		case s.life != l:
			// It was given up: every delivery has its answer.
		case err != nil:
			s.unanswered(cn, batch, err)
		default:
			s.settledBatch(batch, states)
		}
		s.pumpSettles()
		s.tellDone()
		if s.stopping {
			s.kick()
		}
	})
	if err != nil {
		// The connection has ended and attaching on the next one collects them, or
		// it has too many open requests.
		s.toSettle = append(s.toSettle, batch...)
		s.later()
		return false
	}
	for _, d := range batch {
		d.asking = true
	}
	s.settling++
	s.asked += len(batch)
	return true
}

// heard notes what the machine has been told of done.
func (s *consumer) heard(l *life, done uint64) { l.told = max(l.told, done) }

// tellDone tells the machine by itself that deliveries have their answer, when it
// holds back further ones until it hears of that, and nothing else is about to
// say so. A settle carries the done of before its own answer: after the last one
// the machine may know of twice the credit of outcomes that nobody waits for any
// more, and give nothing out for ever.
func (s *consumer) tellDone() {
	l := s.life
	held := l.next-l.told >= 2*uint64(s.o.prefetch) && len(l.open) < s.o.prefetch
	if s.conn == nil || !s.attached || s.retrying || s.settling > 0 || len(s.toSettle) > 0 || l.telling || !held || l.done() == l.told {
		return
	}
	cn := s.conn
	request := s.settleRequest(nil)
	err := cn.send(wire.OpSettle, func(w *pack.Writer) { request.Append(w) }, func(op wire.Op, payload []byte, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.telling = false
		switch _, err := s.settleAnswer(l, cn, op, payload, err); {
		case err == nil:
			s.heard(l, request.Done)
			s.tellDone()
		case s.conn == cn && s.life == l:
			s.later()
		}
	})
	l.telling = err == nil
	if err != nil {
		s.later()
	}
}

func (s *consumer) settleRequest(items []wire.SettleItem) wire.Settle {
	l := s.life
	return wire.Settle{Incarnation: l.incarnation, Group: l.group, Consumer: l.id, Done: l.done(), Items: items}
}

// settleAnswer reads an answer. An error means that nothing definite was said. A
// consumer that is gone is dealt with here.
func (s *consumer) settleAnswer(l *life, cn *conn, op wire.Op, payload []byte, err error) ([]wire.DeliveryState, error) {
	if err != nil {
		return nil, err
	}
	if op == wire.OpError {
		e := replyError(payload)
		if e.Code == wire.CodeNotLeader || e.Code == wire.CodeNoLeader {
			s.c.consume.misdirected(cn, wire.ErrorReply{Code: e.Code, Leader: e.leader})
		}
		if (e.Code == wire.CodeConsumerGone || e.Code == wire.CodeWrongCluster && s.outlived()) && s.life == l {
			s.gone()
		}
		return nil, e
	}
	reply, err := wire.DecodeSettleReply(payload)
	if err != nil {
		cn.fail(err)
		return nil, err
	}
	switch reply.Status {
	case wire.StatusOK:
		return reply.Results, nil
	case wire.StatusConsumerGone, wire.StatusWrongIncarnation:
		if s.life == l {
			s.gone()
		}
	}
	return nil, statusError(reply.Status, "settle")
}

// unanswered: the settles go out again, unless the server refuses them for good. What
// it cannot read may be one of many: each goes out by itself then.
func (s *consumer) unanswered(cn *conn, batch []*Delivery, err error) {
	e := (*Error)(nil)
	definite := errors.As(err, &e) && !e.transient() && !e.unclear() && !e.Retriable
	if definite && e.Code == wire.CodeMalformed && len(batch) > 1 {
		definite = false
		for _, d := range batch {
			d.alone = true
		}
	}
	for _, d := range batch {
		d.unsure = d.unsure || e != nil && e.unclear()
		switch {
		case d.answered:
		case definite:
			s.resolve(d, err)
		case s.conn == cn && s.attached:
			s.toSettle = append(s.toSettle, d)
		}
	}
	if !definite && s.conn == cn {
		s.later()
	}
}

// settledAs is what became of a delivery when its verb counted.
func settledAs(v wire.SettleVerb) wire.LeaseState {
	switch v {
	case wire.VerbAck:
		return wire.LeaseAcked
	case wire.VerbNack:
		return wire.LeaseNacked
	case wire.VerbReject:
		return wire.LeaseRejected
	}
	return 0
}

func (s *consumer) settledBatch(batch []*Delivery, states []wire.DeliveryState) {
	i := 0
	for _, d := range batch {
		for i < len(states) && states[i].To < d.number {
			i++
		}
		switch {
		case d.answered:
		case i == len(states) || states[i].From > d.number:
			s.resolve(d, newError(wire.CodeInternal, "delivery %s: the server's answer leaves it out", d.place))
		case settledAs(d.verb) == states[i].State:
			s.resolve(d, nil)
		default:
			s.lose(d, states[i].State)
		}
	}
}
