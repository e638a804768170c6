package fsm

import "time"

// settle acks, nacks, extends or rejects. A lease is lost only when a timer has
// taken it: until then it is accepted, also past its deadline, since nobody else
// has the message. The answer is what became of the delivery, also when
// repeated.
func (m *Machine) settle(s *settle, dst []DeliveryState) (Status, []DeliveryState) {
	if st := m.own(s.incarnation, s.group); st != StatusOK {
		return st, nil
	}
	c := m.consumers[s.consumer]
	if c == nil {
		return StatusConsumerGone, nil
	}
	numbers := 0
	for i := range s.items {
		numbers += c.slotsIn(s.items[i].numberRange)
	}
	if !m.mayAnswer(numbers) {
		return StatusBusy, nil
	}
	for i := range s.items {
		it := &s.items[i]
		it.text = string(it.reason)
		dst = c.eachState(dst, it.numberRange, func(number uint64) { m.settleOne(c, number, it) })
	}
	// After the items: an item may name a number below done only by mistake,
	// and then it hears that the number is unknown.
	m.raiseDone(c, s.done)
	m.dirty(c)
	m.feed(c)
	return StatusOK, dst
}

func (m *Machine) settleOne(c *consumer, number uint64, it *settleItem) {
	m.resolve(c, number)
	s := c.slot(number)
	if s == nil || s.state != LeaseHeld {
		return
	}
	switch it.verb {
	case verbAck:
		m.ack(c, s)
	case verbNack:
		m.failed(c, s, LeaseNacked, EventNacked, it.text, it.time, &c.queue.counts.RedeliveredNacked)
	case verbReject:
		m.failed(c, s, LeaseRejected, EventRejected, it.text, 0, nil)
	case verbExtend:
		d := it.time
		if d == 0 {
			d = c.queue.settings.LeaseTime
		}
		s.deadline = m.now + Time(d)
		end := s.deadline
		if m.version >= versionExtendAfterResume {
			end = max(end, c.resumeBase)
		}
		if (c.attached || c.pulls()) && end < c.timer.at {
			m.timers.set(&c.timer, end)
		}
	}
}

// drop ends a lease in the consumer's books. Whoever calls it feeds the consumer once
// all is dropped that is to be.
func (m *Machine) drop(c *consumer, s *slot, state LeaseState) {
	m.dirty(c)
	s.state = state
	c.held--
	m.leases--
	if c.held == 0 && c.pulls() {
		c.idleSince = m.now
		m.retime(c)
	}
}

func (m *Machine) ack(c *consumer, s *slot) {
	m.drop(c, s, LeaseAcked)
	q := c.queue
	if s.msg != nil {
		m.leaveQueue(s.msg, &q.counts.Acked, true)
		s.msg = nil
		return
	}
	q.counts.Leased--
	q.counts.Acked++
	m.leasePlain(q, -1)
	m.messages--
	m.bodies.Delete(q.number, s.place.lane, s.place.offset)
	m.dirty(q)
}

// failed ends a lease whose attempt has failed, and gives the message back after
// its backoff, or makes it a dead letter. counter is nil when it does not come
// back.
func (m *Machine) failed(c *consumer, s *slot, state LeaseState, kind EventKind, text string, delay time.Duration, counter *uint64) {
	msg := m.recordOf(c, s)
	m.drop(c, s, state)
	s.msg = nil
	msg.failures++
	m.fail(msg, text)
	m.note(msg, event{at: m.now, kind: kind, attempt: s.attempt, consumer: c.ordinal, text: text})
	m.dirty(msg)
	q := c.queue
	switch limit := q.settings.DeliveryLimit; {
	case kind == EventRejected:
		m.deadLetter(msg, "rejected")
		return
	case limit > 0 && msg.failures >= limit:
		m.deadLetter(msg, "delivery limit reached")
		return
	}
	if msg.expires > m.now {
		*counter++
	}
	if kind == EventNacked && delay == 0 {
		delay = q.settings.backoff(q.number, msg.place, msg.failures)
	}
	m.comeBack(msg, delay)
}

// Holds says whether a delivery is still held by its consumer, and its message there.
// Then its body is in the BodyStore, as long as nothing is applied.
func (m *Machine) Holds(d *Delivery) bool {
	c := m.consumers[d.Consumer]
	if c == nil || c.queue.number != d.Queue {
		return false
	}
	s := c.slot(d.Number)
	return s != nil && s.state == LeaseHeld && s.place == (place{d.Lane, d.Offset}) && c.queue.holds(s)
}

// unhandled ends a lease that no handler has seen: the attempt counts, a failure
// it is not.
func (m *Machine) unhandled(c *consumer, s *slot) {
	msg := m.recordOf(c, s)
	m.drop(c, s, LeaseReturned)
	s.msg = nil
	c.queue.counts.RedeliveredLeft++
	m.comeBack(msg, 0)
}

// resolve finds out whether a held message was purged or its queue deleted
// since, and says so the first time. The queue's counts have moved already.
func (m *Machine) resolve(c *consumer, number uint64) (foundLost bool) {
	s := c.slot(number)
	if s == nil || s.state != LeaseHeld {
		return false
	}
	switch {
	case c.queue.deleted:
		m.drop(c, s, LeaseDeleted)
	case s.place.offset < c.queue.lanes[s.place.lane].purgedBelow:
		m.drop(c, s, LeasePurged)
	default:
		return false
	}
	s.msg = nil
	return true
}

// retime sets the consumer's timer to the earliest moment that matters.
func (m *Machine) retime(c *consumer) {
	switch {
	case c.gone != goneNot || c.queue.deleted:
		m.timers.set(&c.timer, m.now)
	case c.pulls() && c.held == 0:
		m.timers.set(&c.timer, c.idleEnd())
	case !c.attached && !c.pulls():
		m.timers.set(&c.timer, max(c.graceEnd, m.graceFloor))
	default:
		at := never
		for i := range c.slots {
			if s := &c.slots[i]; s.state == LeaseHeld {
				at = min(at, max(s.deadline, c.resumeBase))
			}
		}
		m.timers.set(&c.timer, at)
	}
}

// fireConsumer takes leases that ran out, or gives a consumer up whose grace is
// over. What the budget does not allow stays due.
func (m *Machine) fireConsumer(c *consumer, eff *Effects) {
	m.dirty(c)
	if c.queue.deleted {
		m.fireDeleted(c, eff)
		return
	}
	if c.gone == goneNot && c.pulls() && c.held == 0 && c.idleEnd() <= m.now {
		c.gone = goneDead
	}
	if c.gone == goneNot && !c.attached && !c.pulls() {
		if end := max(c.graceEnd, m.graceFloor); end > m.now {
			m.timers.set(&c.timer, end)
			return
		}
		c.gone = goneDead
	}
	var lost []DeliveryState
	counts := &c.queue.counts
	for i := range c.slots {
		if m.spent >= m.share {
			break
		}
		number := c.done + uint64(i)
		if m.resolve(c, number) {
			m.spent++
			if c.attached {
				lost = appendState(lost, number, LeasePurged)
			}
		}
		s := &c.slots[i]
		if s.state != LeaseHeld {
			continue
		}
		switch {
		case c.gone == goneLeft && s.notHandled:
			m.unhandled(c, s)
		case c.gone == goneLeft:
			m.failed(c, s, LeaseReturned, EventLeft, "", 0, &counts.RedeliveredLeft)
		case c.gone == goneDead:
			m.failed(c, s, LeaseGone, EventGone, "", 0, &counts.RedeliveredGone)
		case max(s.deadline, c.resumeBase) <= m.now:
			m.failed(c, s, LeaseExpired, EventExpired, "", 0, &counts.RedeliveredExpired)
			if c.attached {
				lost = appendState(lost, number, LeaseExpired)
			}
		default:
			continue
		}
		m.spent++
	}
	if len(lost) > 0 {
		eff.Lost = append(eff.Lost, Loss{Consumer: c.id, N: c.n, Lost: lost})
	}
	m.feed(c)
	switch {
	case m.spent >= m.share:
		// The timer stays due: the next entry goes on here.
	case c.gone != goneNot:
		m.removeConsumer(c)
		m.spent++
	default:
		m.retime(c)
	}
}

// fireDeleted removes a consumer whose queue was deleted.
func (m *Machine) fireDeleted(c *consumer, eff *Effects) {
	if c.attached {
		eff.Lost = append(eff.Lost, Loss{Consumer: c.id, N: c.n, Gone: true})
	}
	m.leases -= c.held
	m.removeConsumer(c)
	m.spent++
}

// slotsIn counts the numbers of a range that have a slot.
func (c *consumer) slotsIn(x numberRange) int {
	from, end := max(x.from, c.done), min(x.to+1, c.next)
	if from >= end {
		return 0
	}
	return int(end - from)
}

// eachState calls f for each number of a range that has a slot and appends its
// state. What has none is unknown, and costs nothing, however much it is: a small
// request names many numbers.
func (c *consumer) eachState(dst []DeliveryState, x numberRange, f func(number uint64)) []DeliveryState {
	from, end := max(x.from, c.done), min(x.to+1, c.next)
	if from >= end {
		return appendStates(dst, x.from, x.to, LeaseUnknown)
	}
	if x.from < from {
		dst = appendStates(dst, x.from, from-1, LeaseUnknown)
	}
	for number := from; number < end; number++ {
		f(number)
		dst = appendState(dst, number, c.state(number))
	}
	if end <= x.to {
		dst = appendStates(dst, end, x.to, LeaseUnknown)
	}
	return dst
}

// appendState appends the state of the next number, joining equal neighbours.
func appendState(dst []DeliveryState, number uint64, st LeaseState) []DeliveryState {
	return appendStates(dst, number, number, st)
}

func appendStates(dst []DeliveryState, from, to uint64, st LeaseState) []DeliveryState {
	if n := len(dst); n > 0 && dst[n-1].State == st && dst[n-1].To+1 == from {
		dst[n-1].To = to
		return dst
	}
	return append(dst, DeliveryState{From: from, To: to, State: st})
}
