package fsm

import "time"

// settle acks, nacks or extends. A lease is lost only when a timer has taken
// it: until then it is accepted, also past its deadline, since nobody else has
// the message. The answer is what became of the delivery, also when repeated.
func (m *Machine) settle(s *settle, dst []DeliveryState) (Status, []DeliveryState) {
	if st := m.own(s.incarnation, s.group); st != StatusOK {
		return st, nil
	}
	c := m.consumers[s.consumer]
	if c == nil {
		return StatusConsumerGone, nil
	}
	for _, it := range s.items {
		for number := it.from; number <= it.to; number++ {
			m.settleOne(c, number, it.verb, it.time)
			dst = appendState(dst, number, c.state(number))
		}
	}
	// After the items: an item may name a number below done only by mistake,
	// and then it hears that the number is unknown.
	m.raiseDone(c, s.done)
	m.dirty(c)
	m.feed(c)
	return StatusOK, dst
}

func (m *Machine) settleOne(c *consumer, number uint64, verb uint8, d time.Duration) {
	m.resolve(c, number)
	s := c.slot(number)
	if s == nil || s.state != LeaseHeld {
		return
	}
	switch verb {
	case verbAck:
		m.ack(c, s)
	case verbNack:
		s.failures++
		c.queue.counts.RedeliveredNacked++
		m.release(c, s, LeaseNacked, d)
	case verbExtend:
		if d == 0 {
			d = c.queue.settings.LeaseTime
		}
		s.deadline = m.now + Time(d)
		if c.attached && s.deadline < c.timer.at {
			m.timers.set(&c.timer, s.deadline)
		}
	}
}

func (m *Machine) ack(c *consumer, s *slot) {
	q := c.queue
	s.state = LeaseAcked
	c.held--
	m.leases--
	q.counts.Leased--
	q.counts.Acked++
	m.messages--
	m.bodies.Delete(q.number, 0, s.offset)
	m.dirty(q)
}

// release ends a lease other than by ack and gives the message back.
func (m *Machine) release(c *consumer, s *slot, state LeaseState, delay time.Duration) {
	s.state = state
	c.held--
	m.leases--
	m.giveBack(c.queue, returned{offset: s.offset, attempts: s.attempt, failures: s.failures, stored: s.stored}, delay)
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
		s.state = LeaseDeleted
	case s.offset < c.queue.lane.purgedBelow:
		s.state = LeasePurged
	default:
		return false
	}
	c.held--
	m.leases--
	return true
}

// retime sets the consumer's timer to the earliest moment that matters.
func (m *Machine) retime(c *consumer) {
	switch {
	case c.gone != goneNot || c.queue.deleted:
		m.timers.set(&c.timer, m.now)
	case !c.attached:
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
	if c.gone == goneNot && !c.attached {
		if end := max(c.graceEnd, m.graceFloor); end > m.now {
			m.timers.set(&c.timer, end)
			return
		}
		c.gone = goneDead
	}
	var lost []DeliveryState
	for i := range c.slots {
		if m.spent >= m.limits.TimerBudget {
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
		case c.gone == goneLeft:
			if !s.notHandled {
				s.failures++
			}
			c.queue.counts.RedeliveredLeft++
			m.release(c, s, LeaseReturned, 0)
		case c.gone == goneDead:
			s.failures++
			c.queue.counts.RedeliveredGone++
			m.release(c, s, LeaseGone, 0)
		case max(s.deadline, c.resumeBase) <= m.now:
			s.failures++
			c.queue.counts.RedeliveredExpired++
			m.release(c, s, LeaseExpired, 0)
			lost = appendState(lost, number, LeaseExpired)
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
	case m.spent >= m.limits.TimerBudget:
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
	for i := range c.slots {
		m.resolve(c, c.done+uint64(i))
	}
	m.removeConsumer(c)
	m.spent++
}

// appendState appends the state of the next number, joining equal neighbours.
func appendState(dst []DeliveryState, number uint64, st LeaseState) []DeliveryState {
	if n := len(dst); n > 0 && dst[n-1].State == st && dst[n-1].To+1 == number {
		dst[n-1].To = number
		return dst
	}
	return append(dst, DeliveryState{From: number, To: number, State: st})
}
