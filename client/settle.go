package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const (
	settleFramesMax  = 4    // without an answer
	settleNumbersMax = 8192 // in a frame
	settleCollect    = 64   // with a frame in flight, a batch collects until it has so many
)

// settleLocked asks for the verb, once. Acks and nacks are collected like
// publishes: a batch leaves at once when none is in flight.
func (s *consumer) settleLocked(d *Delivery, verb wire.SettleVerb, delay time.Duration) {
	if d.verb != 0 {
		return
	}
	d.verb, d.delay = verb, delay
	if d.answered {
		return
	}
	s.toSettle = append(s.toSettle, d)
	s.pumpSettles()
}

func (s *consumer) pumpSettles() {
	for s.conn != nil && s.attached && len(s.toSettle) > 0 && s.settling < settleFramesMax && !s.retrying {
		if s.settling > 0 && len(s.toSettle) < settleCollect {
			return
		}
		n := min(len(s.toSettle), settleNumbersMax)
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

// sendSettle sends one frame. What has no definite answer is settled again, which
// is harmless: the machine answers repeats with the truth.
func (s *consumer) sendSettle(batch []*Delivery) bool {
	slices.SortFunc(batch, func(a, b *Delivery) int { return cmp.Compare(a.number, b.number) })
	l, cn := s.life, s.conn
	request := s.settleRequest(nil)
	for _, d := range batch {
		if last := len(request.Items) - 1; last >= 0 {
			it := &request.Items[last]
			if it.To+1 == d.number && it.Verb == d.verb && it.Time == d.delay {
				it.To++
				continue
			}
		}
		request.Items = append(request.Items, wire.SettleItem{From: d.number, To: d.number, Verb: d.verb, Time: d.delay})
	}
	err := cn.send(wire.OpSettle, func(w *pack.Writer) { request.Append(w) }, func(op wire.Op, payload []byte, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settling--
		for _, d := range batch {
			d.asking = false
			d.unsure = d.unsure || errors.Is(err, errLost)
		}
		states, err := s.settleAnswer(l, cn, op, payload, err)
		if err == nil {
			s.heard(l, request.Done)
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
		if e.Code == wire.CodeConsumerGone && s.life == l {
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

// unanswered: the settles go out again, unless the server refuses them for good.
func (s *consumer) unanswered(cn *conn, batch []*Delivery, err error) {
	e := (*Error)(nil)
	definite := errors.As(err, &e) && !e.transient() && !e.unclear() && !e.Retriable
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
		case states[i].State == wire.LeaseAcked && d.verb == wire.VerbAck,
			states[i].State == wire.LeaseNacked && d.verb == wire.VerbNack:
			s.resolve(d, nil)
		default:
			s.lose(d, states[i].State)
		}
	}
}

// extendHeld keeps alive what is held: all that is buffered, and what has a handler
// for at most as long as the program has said.
func (s *consumer) extendHeld() {
	if s.conn == nil || !s.attached || s.extending {
		return
	}
	now := time.Now()
	asked := s.life.ranges(func(d *Delivery) bool {
		return d.verb == 0 && (d.phase == buffered || d.phase == aside || now.Sub(d.started) < s.o.autoExtend)
	})
	if len(asked) == 0 {
		return
	}
	items := make([]wire.SettleItem, len(asked))
	for i, r := range asked {
		items[i] = wire.SettleItem{From: r.From, To: r.To, Verb: wire.VerbExtend}
	}
	l, cn := s.life, s.conn
	request := s.settleRequest(items)
	err := cn.send(wire.OpSettle, func(w *pack.Writer) { request.Append(w) }, func(op wire.Op, payload []byte, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.extending = false
		if states, err := s.settleAnswer(l, cn, op, payload, err); err == nil && s.life == l {
			s.heard(l, request.Done)
			s.extended(states, asked, now)
		}
	})
	s.extending = err == nil
}

// extended takes the answer to an extension. What is being settled meanwhile gets
// its answer from that.
func (s *consumer) extended(states []wire.DeliveryState, asked []wire.Range, at time.Time) {
	l := s.life
	held := false
	for _, st := range states {
		for n := max(st.From, l.low); n <= st.To && n < l.next; n++ {
			d := l.open[n]
			if d == nil || d.verb != 0 || !contains(asked, n) {
				continue
			}
			if st.State != wire.LeaseHeld {
				s.lose(d, st.State)
				continue
			}
			if until := at.Add(l.leaseTime); until.After(d.deadline) {
				d.deadline = until
			}
			held = held || d.phase == aside
		}
	}
	if held {
		s.comeBack()
	}
}

// extendOne is Delivery.Extend. It tries until it has an answer or ctx ends.
func (s *consumer) extendOne(ctx context.Context, d *Delivery, by time.Duration) error {
	s.mu.Lock()
	if d.answered || d.verb != 0 {
		defer s.mu.Unlock()
		if d.answer != nil {
			return d.answer
		}
		return fmt.Errorf("delivery %s: extend after %s", d.place, verbName(d.verb))
	}
	at := time.Now()
	request := s.settleRequest([]wire.SettleItem{{From: d.number, To: d.number, Verb: wire.VerbExtend, Time: by}})
	request.Consumer, request.Incarnation, request.Group = d.life.id, d.life.incarnation, d.life.group
	if d.life != s.life {
		request.Done = 0
	}
	s.mu.Unlock()
	payload, err := s.c.consume.call(ctx, wire.OpSettle, func(w *pack.Writer) { request.Append(w) })
	if err != nil {
		return err
	}
	reply, err := wire.DecodeSettleReply(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	state := wire.LeaseUnknown
	switch {
	case reply.Status == wire.StatusConsumerGone || reply.Status == wire.StatusWrongIncarnation:
		state = wire.LeaseGone
	case reply.Status != wire.StatusOK:
		return statusError(reply.Status, "extend")
	case len(reply.Results) == 1:
		state = reply.Results[0].State
	}
	if state == wire.LeaseHeld {
		if until := at.Add(by); until.After(d.deadline) {
			d.deadline = until
		}
		return nil
	}
	if !d.answered && d.verb == 0 {
		s.lose(d, state)
	}
	if d.answer != nil {
		return d.answer
	}
	return lostError(d, state)
}
