package client

import (
	"errors"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// up is called by the link with a connection to the leader.
func (s *consumer) up(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.attached, s.attaching = c, false, false
	s.attach()
}

// down is called when the connection has ended. The machine may have detached the
// consumer at any moment since we heard from it last, and from that on leases
// last for the grace time alone. When that was is not known of a connection that ended
// while the process stood still: then the cluster is asked first, about all of them.
func (s *consumer) down(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return
	}
	s.conn, s.attached, s.attaching = nil, false, false
	if s.pulls {
		return // there is nothing to detach
	}
	heard, known := c.heardUntil()
	grace := heard.Add(graceTime)
	if !known {
		grace = time.Now()
	}
	for _, d := range s.life.open {
		if d.deadline.After(grace) {
			d.deadline = grace
		}
	}
}

// attach makes the consumer known on its connection, or resumes it there: the
// answer says what became of each delivery that is open here.
func (s *consumer) attach() {
	if s.conn == nil || s.attached || s.attaching || s.leaving || s.hung || s.err != nil {
		return
	}
	if s.pulls {
		s.resume()
		return
	}
	l := s.life
	if !l.clean {
		// Each attempt that may have arrived has a number of its own, so that a
		// late copy has no effect.
		l.n++
	}
	l.clean = false
	asked := l.ranges(func(*Delivery) bool { return true })
	request := wire.Attach{
		Incarnation: l.incarnation, Group: l.group, Consumer: l.id, N: l.n, Queue: s.queue,
		Credit: uint32(s.o.prefetch), Label: s.o.label, Done: l.done(), Unsettled: asked,
	}
	at, cn, n := time.Now(), s.conn, l.n
	err := cn.send(wire.OpAttach, func(w *pack.Writer) { request.Append(w) }, func(op wire.Op, payload []byte, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.conn != cn || s.life != l || l.n != n {
			return
		}
		s.attaching = false
		s.attachAnswer(cn, asked, at, op, payload, err)
		if s.attached {
			s.heard(l, request.Done)
		}
	})
	if err != nil {
		// The connection has ended and up comes with another, or it has too many
		// open requests.
		l.clean = true
		s.later()
		return
	}
	s.attaching = true
}

// attachAnswer runs on the reader, before any delivery that the answer announces.
func (s *consumer) attachAnswer(cn *conn, asked []wire.Range, at time.Time, op wire.Op, payload []byte, err error) {
	if err != nil {
		s.life.clean = errors.Is(err, errUnsent)
		return // up comes with another connection
	}
	var reply wire.Attached
	if op == wire.OpError {
		e := replyError(payload)
		switch {
		case e.transient():
			s.life.clean = true
			if e.Code == wire.CodeNotLeader || e.Code == wire.CodeNoLeader {
				s.c.consume.misdirected(cn, wire.ErrorReply{Code: e.Code, Leader: e.leader})
			}
			s.later()
			return
		case e.unclear():
			s.later()
			return
		case e.Code == wire.CodeConsumerGone, e.Code == wire.CodeWrongCluster && s.outlived():
			reply.Status = wire.StatusConsumerGone
		case e.Code == wire.CodeStale:
			reply.Status = wire.StatusStale
		case e.Retriable && e.Code != wire.CodeConsumerCap:
			s.life.clean = true // refused for now, as by a full disk
			s.later()
			return
		default:
			s.fail(e)
			return
		}
	} else if reply, err = wire.DecodeAttached(payload); err != nil {
		cn.fail(err)
		return
	}
	l := s.life
	switch reply.Status {
	case wire.StatusOK:
	case wire.StatusStale:
		s.later()
		return
	case wire.StatusConsumerGone, wire.StatusWrongIncarnation:
		s.gone()
		return
	default:
		s.fail(statusError(reply.Status, "queue "+s.queue))
		return
	}
	if reply.Next < l.next {
		// The machine counts anew: it does not know what we hold.
		s.gone()
		return
	}
	cn.refused.Store(0)
	s.retry.reset()
	s.attached, s.retrying = true, false
	s.c.learnQueueOnce(reply.QueueNumber, s.queue)
	l.leaseTime = reply.LeaseTime
	s.states(reply.States, asked, at)
	s.settleAgain()
	s.kick()
}

// settleAgain settles on a new connection what has no definite answer.
func (s *consumer) settleAgain() {
	l := s.life
	s.toSettle = s.toSettle[:0]
	for n := l.done(); n < l.next; n++ {
		if d := l.open[n]; d != nil && d.verb != 0 && !d.chained {
			s.toSettle = append(s.toSettle, d)
		}
	}
	s.pumpSettles()
}

// fail ends Consume with an error, as soon as the handlers that run have returned.
func (s *consumer) fail(err error) {
	s.err = err
	s.loseAll(func(d *Delivery) error { return overError(d, wire.LeaseGone) })
	s.interrupt(err)
	s.kick()
}

// states takes what became of the deliveries asked about; at is when it was asked.
func (s *consumer) states(states []wire.DeliveryState, asked []wire.Range, at time.Time) {
	l := s.life
	for _, st := range states {
		for n := max(st.From, l.low); n <= st.To && n < l.next; n++ {
			d := l.open[n]
			if d == nil || !contains(asked, n) {
				continue
			}
			switch {
			case st.State == wire.LeaseHeld:
				// It was prolonged after we asked, so the lease lasts at least that long.
				d.deadline, d.sure = at.Add(l.leaseTime), at
			case d.chained:
				// Its ack-and-publish has its answer from elsewhere.
			case settledAs(d.verb) == st.State:
				s.resolve(d, nil)
			default:
				s.lose(d, st.State)
			}
		}
	}
	s.more.Broadcast()
}

func contains(rs []wire.Range, n uint64) bool {
	lo, hi := 0, len(rs)
	for lo < hi {
		if mid := (lo + hi) / 2; rs[mid].To < n {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(rs) && rs[lo].From <= n
}
