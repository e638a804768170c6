package client

import (
	"context"
	"fmt"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// extendHeld keeps alive what is held: all that is buffered, and what has a handler
// for at most as long as the program has said. It is also how the cluster is asked about
// what is in doubt: its answer wakes those that wait for that.
func (s *consumer) extendHeld() {
	if s.conn == nil || !s.attached || s.extending {
		return
	}
	l, cn, now := s.life, s.conn, time.Now()
	asked := l.ranges(func(d *Delivery) bool {
		switch {
		case d.verb != 0 && !d.chained, d.extends > 0:
			return false
		case d.phase == buffered && s.doubts(d, now):
			return true
		case d.deadline.After(now.Add(l.leaseTime * 5 / 6)):
			return false // just now, or by Extend: this would cut it short
		}
		return d.phase == buffered || now.Sub(d.started) < s.o.autoExtend || now.Before(d.until)
	})
	if len(asked) == 0 {
		s.more.Broadcast() // the doubt is over
		return
	}
	// The time is said, since that of the queue may be another by now, and shorter
	// than what passes until the next extension.
	request := s.extendRequest(asked, l.leaseTime)
	err := cn.send(wire.OpSettle, func(w *pack.Writer) { request.Append(w) }, func(op wire.Op, payload []byte, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.extending = false
		s.kick() // another may have been wanted meanwhile
		if states, err := s.settleAnswer(l, cn, op, payload, err); err == nil && s.life == l {
			s.heard(l, request.Done)
			s.extended(states, asked, now)
		} else {
			s.later() // who waits for the answer asks again
		}
	})
	if s.extending = err == nil; err != nil {
		s.later()
	}
}

func (s *consumer) extendRequest(rs []wire.Range, by time.Duration) wire.Settle {
	items := make([]wire.SettleItem, len(rs))
	for i, r := range rs {
		items[i] = wire.SettleItem{From: r.From, To: r.To, Verb: wire.VerbExtend, Time: by}
	}
	return s.settleRequest(items)
}

// extended takes the answer to an extension, which replaces what was left of a lease, also
// when that was more. What is being settled meanwhile gets its answer from that.
func (s *consumer) extended(states []wire.DeliveryState, asked []wire.Range, at time.Time) {
	l := s.life
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
			d.deadline, d.sure = at.Add(l.leaseTime), at
		}
	}
	s.more.Broadcast()
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
	// An extension replaces what is left, and one that is under way already.
	by = max(by, d.deadline.Sub(at), d.wanted.Sub(at))
	d.wanted = at.Add(by)
	request := s.settleRequest([]wire.SettleItem{{From: d.number, To: d.number, Verb: wire.VerbExtend, Time: by}})
	request.Consumer, request.Incarnation, request.Group = d.life.id, d.life.incarnation, d.life.group
	if d.life != s.life {
		request.Done = 0
	}
	d.extends++
	attached, n := s.attached, d.life.n
	s.mu.Unlock()
	payload, err := s.c.consume.call(ctx, wire.OpSettle, func(w *pack.Writer) { request.Append(w) })
	var reply wire.SettleReply
	if err == nil {
		reply, err = wire.DecodeSettleReply(payload)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.extends--
	// Later calls are to reach as far only beside one that may still count.
	if e := answerOf(err); d.extends == 0 || e != nil && !e.unclear() && d.wanted.Equal(at.Add(by)) {
		d.wanted = time.Time{}
	}
	if err != nil {
		return err
	}
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
		// An extension replaces the one before, by whoever that was. So does resuming, which
		// gives the queue's lease time anew: behind that the lease is kept alive until then.
		until := at.Add(by)
		if until.After(d.until) {
			d.until = until
		}
		if s.pulls || attached && d.life.n == n {
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
