package fsm

// A puller is a consumer that asks: receive(first) leases messages under the
// numbers from first on, which must be the next that it can be given. So a receive
// is named by its consumer and its first number, and no table of requests is
// needed to make it idempotent:
//
//   - the first copy makes leases, if there is something to lease; one that finds
//     nothing leaves nothing, not even the puller;
//   - a repeat gets what it still holds of them;
//   - a late copy, after the puller has gone on, is stale and makes no leases that
//     nobody would hear of;
//   - release(first) ends a receive whose answer nobody waits for any more: what it
//     leased goes back, and its number is used up, so that a copy that arrives
//     later is stale as well.
//
// A puller's leases end by their deadline alone, whoever leads. It is gone when it
// has held nothing for one lease time.

// pulls says whether the consumer is a puller.
func (c *consumer) pulls() bool { return c.pulled > 0 }

// idleEnd is when a puller that holds nothing is gone.
func (c *consumer) idleEnd() Time { return c.idleSince + Time(c.queue.settings.LeaseTime) }

// pull is one receive of the entry that is applied. Receives take part in the
// fourth step, the assignment: what came back by a timer of this entry is handed
// out before what is younger.
type pull struct {
	receive
	r *Result
	c *consumer // nil: refused
	// makes: it is the one that makes leases; the others ask for what it made.
	makes bool
}

// beginPulls lets the entry's receives take part in the assignment.
func (m *Machine) beginPulls() {
	for i := range m.pulls {
		p := &m.pulls[i]
		p.r.Status = m.beginPull(p)
	}
}

func (m *Machine) beginPull(p *pull) Status {
	if st := m.own(p.incarnation, p.group); st != StatusOK {
		return st
	}
	c, st := m.puller(p.consumer, p.queue, p.first)
	if st != StatusOK {
		return st
	}
	if c.next == 1 {
		c.label = p.label
	}
	m.raiseDone(c, p.done)
	if p.first == c.next && c.next-c.done+uint64(p.limit) > PullNumbersMax {
		return StatusWindowFull
	}
	p.c = c
	if p.first == c.next && c.want == 0 {
		c.want, p.makes = p.limit, true
		m.feed(c)
	}
	return StatusOK
}

// puller returns the puller of a request, making it when it begins.
func (m *Machine) puller(id ConsumerID, queue []byte, first uint64) (*consumer, Status) {
	q, c := m.queuesByName[string(queue)], m.consumers[id]
	switch {
	case q == nil:
		return nil, StatusNoQueue
	case c != nil && (!c.pulls() || c.queue != q || c.gone != goneNot), c == nil && first != 1:
		return nil, StatusConsumerGone
	case c == nil && len(m.consumers) >= m.limits.ConsumersMax:
		return nil, StatusConsumerCap
	case c == nil:
		c = m.newConsumer(id, q)
		c.pulled = 1
		m.dirty(c)
	}
	return c, StatusOK
}

// endPulls answers the entry's receives. The last comes first: pullers that were
// made for nothing go in the opposite order, so that they use up no ordinals.
func (m *Machine) endPulls() {
	for i := len(m.pulls) - 1; i >= 0; i-- {
		if m.pulls[i].c != nil {
			m.endPull(&m.pulls[i])
		}
	}
	clear(m.pulls)
	m.pulls = m.pulls[:0]
}

func (m *Machine) endPull(p *pull) {
	c, q := p.c, p.c.queue
	if c.want > 0 {
		if c.hungry >= 0 && q.assignable() && (q.eater() == c || !q.settings.SingleActive) {
			q.fresh = true // cut off by the budget
		}
		c.want = 0
		m.feed(c)
	}
	if p.first > c.pulled && p.first < c.next {
		c.pulled = p.first
	}
	p.r.Receive = ReceiveResult{Queue: q.number, LeaseTime: q.settings.LeaseTime, Next: c.next}
	switch {
	case p.first != c.pulled:
	case !p.makes && !m.mayAnswer(int(c.next-p.first)):
		p.r.Status = StatusBusy
	default:
		for number := max(p.first, c.done); number < c.next; number++ {
			m.resolve(c, number)
			if s := c.slot(number); s.state == LeaseHeld {
				p.r.Receive.Deliveries = append(p.r.Receive.Deliveries, c.delivery(number, s))
			}
		}
	}
	if p.first < c.next && p.r.Receive.Deliveries == nil && p.r.Status == StatusOK {
		p.r.Status = StatusStale
	}
	if m.consumers[c.id] != c {
		return // another copy in this entry has ended it
	}
	m.dirty(c)
	m.dropUnused(c)
}

// dropUnused forgets a puller that was made for nothing.
func (m *Machine) dropUnused(c *consumer) {
	if c.next != 1 {
		return
	}
	m.removeConsumer(c)
	if c.ordinal == m.nextConsumer {
		m.nextConsumer--
	}
}

// release ends a receive. An older one than the newest is answered and has no
// effect.
func (m *Machine) release(l release, r *Result) Status {
	if st := m.own(l.incarnation, l.group); st != StatusOK {
		return st
	}
	c, st := m.puller(l.consumer, l.queue, l.first)
	if st != StatusOK {
		return st
	}
	m.raiseDone(c, l.done)
	switch {
	case l.first == c.next && c.next-c.done >= PullNumbersMax:
		st = StatusWindowFull
	case l.first == c.next && m.slots >= m.limits.LeasesMax:
		m.dropUnused(c)
		return StatusLeaseCap
	case l.first == c.next:
		// The receive has not come yet. When it does, its number is used up.
		c.slots = append(c.slots, slot{state: LeaseReturned})
		m.addSlots(c.queue, 1)
		c.pulled = c.next
		c.next++
		if c.held == 0 {
			c.idleSince = m.now
			m.retime(c)
		}
	case l.first == c.pulled && !m.mayAnswer(int(c.next-l.first)):
		st = StatusBusy
	case l.first == c.pulled:
		for number := max(l.first, c.done); number < c.next; number++ {
			m.resolve(c, number)
			if s := c.slot(number); s.state == LeaseHeld {
				m.unhandled(c, s)
			}
		}
	}
	r.Receive = ReceiveResult{Queue: c.queue.number, LeaseTime: c.queue.settings.LeaseTime, Next: c.next}
	m.dirty(c)
	return st
}

// Barren says that a receive would find nothing: there is nothing ready in its queue,
// and nothing that the puller holds of an earlier copy.
func (m *Machine) Barren(queue string, id ConsumerID, first uint64) bool {
	q, c := m.queuesByName[queue], m.consumers[id]
	if q == nil || q.eligible > 0 && !q.paused {
		return false
	}
	if c == nil {
		return first == 1
	}
	return c.pulls() && c.queue == q && c.gone == goneNot && c.next == first
}
