package client

import (
	"context"
	"fmt"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// extendHeld keeps alive what is held: all that is buffered, and what has a handler
// for at most as long as the program has said.
func (s *consumer) extendHeld() {
	if s.conn == nil || !s.attached || s.extending {
		return
	}
	now := time.Now()
	asked := s.life.ranges(func(d *Delivery) bool {
		return (d.verb == 0 || d.chained) && (d.phase == buffered || d.phase == aside || now.Sub(d.started) < s.o.autoExtend)
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
			if d == nil || d.verb != 0 && !d.chained || !contains(asked, n) {
				continue
			}
			if st.State != wire.LeaseHeld {
				if d.chained {
					continue // its ack-and-publish has its answer from elsewhere
				}
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
		return fmt.Errorf("delivery %s: extend after %s: %w", d.place, verbName(d.verb), ErrAlreadySettled)
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
