package fsm

import "slices"

// wake notes that a queue may have something to assign. Every queue in busy is
// looked at in the fourth step of the entry.
func (m *Machine) wake(q *queue) {
	if !q.listed && !q.deleted {
		q.listed = true
		m.busy = append(m.busy, q)
	}
}

// assign hands ready messages to consumers with credit, by queue number; within
// a queue the oldest message goes to the consumer that holds the fewest, of those
// to the one that was given the fewest so far. The decision comes from the tables
// alone and costs no entry of its own.
//
// The budget bounds one entry's work. What it cuts off stays in busy, and the
// next entry begins with the queue after the last one served, so that one queue
// with a long backlog cannot starve the others. What a cap holds back stays in busy
// as well, without a word: it goes on in the entry that makes room.
func (m *Machine) assign(eff *Effects) {
	m.beginPulls()
	if len(m.busy) > 0 && m.detaching == 0 {
		m.assignBusy(eff)
	}
	m.endPulls()
	m.assigned = len(eff.Deliveries)
	// Only now: whoever pulls is hungry for as long as its entry lasts, and what is left
	// for it is left for nobody. A restored replica sees the same in its tables.
	if !slices.ContainsFunc(m.busy, func(q *queue) bool { return !q.deleted && q.assignable() }) {
		m.assignFrom = 0
	}
}

func (m *Machine) assignBusy(eff *Effects) {
	slices.SortFunc(m.busy, func(a, b *queue) int {
		// Queues from assignFrom on come first, then the lower ones.
		if x, y := a.number < m.assignFrom, b.number < m.assignFrom; x != y {
			if y {
				return -1
			}
			return 1
		}
		if a.number < b.number {
			return -1
		}
		return 1
	})
	budget := m.limits.AssignmentBudget
	left := m.busy[:0]
	for _, q := range m.busy {
		if q.deleted {
			q.listed = false
			continue
		}
		m.catchUp(q)
		for budget > 0 && q.assignable() && !q.next().stuck() && !m.heldBack(q) {
			m.assignOne(q, eff)
			budget--
			m.assignFrom = q.number + 1
		}
		held, lags := m.heldBack(q), !m.catchUp(q)
		if !held && !lags && !q.assignable() {
			q.listed = false
			q.tell(eff)
			continue
		}
		left = append(left, q)
		eff.More = eff.More || lags || !held
	}
	clear(m.busy[len(left):])
	m.busy = left
}

// heldBack says that a queue has something ready and that there is no room for its
// lease, or for its return.
func (m *Machine) heldBack(q *queue) bool {
	switch {
	case q.eligible == 0 || q.paused:
		return false
	case m.slots >= m.limits.LeasesMax:
		return true
	}
	return !m.mayReturn(1) && q.next().nextIsPlain()
}

// freshen notes that waiting receives may find something they did not find before.
// It is not for what a receive itself brings about, or one that finds nothing
// would wake itself for ever.
func (m *Machine) freshen(q *queue) {
	q.fresh = true
	m.wake(q)
}

// tell tells of messages that nobody took.
func (q *queue) tell(eff *Effects) {
	if q.fresh && q.eligible > 0 && !q.paused {
		eff.Ready = append(eff.Ready, ReadyQueue{q.name, q.eligible})
	}
	q.fresh = false
}

func (q *queue) assignable() bool { return q.eligible > 0 && !q.paused && q.eater() != nil }

func (m *Machine) assignOne(q *queue, eff *Effects) {
	c := q.eater()
	msg, p, stored := m.take(q, q.next())
	number := c.next
	c.next++
	m.addSlots(q, 1)
	c.slots = append(c.slots, slot{
		state: LeaseHeld, attempt: 1, place: p, stored: stored, msg: msg, recorded: msg != nil,
		deadline: m.now + Time(q.settings.LeaseTime),
	})
	s := &c.slots[len(c.slots)-1]
	if msg != nil {
		msg.attempts++
		s.attempt = msg.attempts
		if msg.notes != nil {
			m.note(msg, event{at: m.now, kind: EventLeased, attempt: msg.attempts, consumer: c.ordinal})
		}
	}
	c.held++
	m.leases++
	q.counts.Delivered++
	if s.deadline < c.timer.at {
		m.timers.set(&c.timer, s.deadline)
	}
	m.dirty(q)
	m.dirty(c)
	if c.want > 0 {
		c.want--
	}
	m.feed(c)
	if !c.pulls() {
		if eff.Deliveries == nil {
			// As many as the last time, mostly: growing takes it several times over.
			eff.Deliveries = make([]Delivery, 0, 1+min(uint64(m.assigned), q.eligible))
		}
		eff.Deliveries = append(eff.Deliveries, c.delivery(number, s))
	}
}
