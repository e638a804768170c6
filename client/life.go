package client

import (
	"crypto/rand"
	"time"

	"onceq/transport/wire"
)

// life is one identity that the cluster knows the consumer by. When the cluster
// has given it up another begins, and what belonged to it is lost.
type life struct {
	id          wire.ConsumerID
	incarnation uint64
	group       uint32
	n           uint64 // attachments asked for
	clean       bool   // the newest attach was refused without effect, so n may be used again
	leaseTime   time.Duration
	open        map[uint64]*Delivery // without a definite answer
	low         uint64               // no number below is in open
	next        uint64               // the next number expected
	told        uint64               // the done that the machine has heard
	telling     bool
}

// done is the lowest number without a definite answer, or the next expected.
func (l *life) done() uint64 {
	for l.low < l.next && l.open[l.low] == nil {
		l.low++
	}
	return l.low
}

// ranges collects the open numbers that take says yes to.
func (l *life) ranges(take func(d *Delivery) bool) []wire.Range {
	var rs []wire.Range
	for n := l.done(); n < l.next; n++ {
		d := l.open[n]
		if d == nil || !take(d) {
			continue
		}
		if last := len(rs) - 1; last >= 0 && rs[last].To+1 == n {
			rs[last].To = n
		} else {
			rs = append(rs, wire.Range{From: n, To: n})
		}
	}
	return rs
}

// newLife begins another identity.
func (s *consumer) newLife() {
	s.forget()
	l := &life{open: map[uint64]*Delivery{}, low: 1, next: 1, told: 1}
	_, _ = rand.Read(l.id[:]) // never fails
	l.incarnation, l.group = s.c.topo.identity()
	s.life, s.attached, s.attaching = l, false, false
	s.c.mu.Lock()
	s.c.consumers[l.id] = s
	s.c.mu.Unlock()
}

func (s *consumer) forget() {
	if s.life == nil {
		return
	}
	s.c.mu.Lock()
	delete(s.c.consumers, s.life.id)
	s.c.mu.Unlock()
}

// gone: the cluster has given this identity up.
func (s *consumer) gone() {
	if n := len(s.life.open); n > 0 {
		s.c.o.logger.Warn("consumer was given up by the cluster", "queue", s.queue, "lost", n)
	}
	s.loseAll(func(d *Delivery) error { return overError(d, wire.LeaseGone) })
	if s.ended {
		return
	}
	s.newLife()
	s.later()
}

// overError is the answer to a delivery that ends with its consumer's identity.
func overError(d *Delivery, st wire.LeaseState) error {
	if d.asking || d.unsure {
		return newError(wire.CodeConsumerGone, "delivery %s: the cluster has given this consumer up; whether the %s counted before cannot be told", d.place, verbName(d.verb))
	}
	return lostError(d, st)
}

// outlived says that the cluster was restored since this identity began: a request
// for another cluster is from the life before, not sent to a wrong place.
func (s *consumer) outlived() bool {
	incarnation, _ := s.c.topo.identity()
	return incarnation != s.life.incarnation
}

// loseAll answers everything open.
func (s *consumer) loseAll(why func(d *Delivery) error) {
	for _, d := range s.life.open {
		// An ack-and-publish has its answer from its sequence, whoever holds the
		// lease by then.
		if !d.chained {
			s.resolve(d, why(d))
		}
	}
	s.toSettle = nil
	s.clearReady()
}

// resolve gives d its definite answer.
func (s *consumer) resolve(d *Delivery, err error) {
	if d.answered {
		return
	}
	d.answered, d.answer = true, err
	s.idle(d)
	delete(d.life.open, d.number)
	if d.settled != nil {
		close(d.settled)
	}
	if d.cancel != nil && err != nil {
		d.cancel(err)
	}
	if err != nil && d.phase == returned && !s.o.manual {
		s.c.o.logger.Warn("a handled message did not count", "message", d.place, "attempt", d.attempt, "error", err)
	}
}

func (s *consumer) lose(d *Delivery, st wire.LeaseState) {
	s.resolve(d, lostError(d, st))
}
