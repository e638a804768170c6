package fsm

import (
	"container/heap"

	"github.com/google/btree"
)

// consumer is one Consume call of one process. The machine numbers what it
// hands to it 1, 2, 3; the client tells with done what it has definite answers
// for. Numbers from done to next-1 have a slot each, so every settle, also a
// repeated one, gets the truth.
//
// A consumer that attaches is handed messages over its connection. A puller asks
// for them, see receive.go: it has no attachment, no credit and no grace.
//
// Invariant: len(slots) = next - done, at most twice the credit and DoneSlack, of a
// puller PullNumbersMax; held is the number of slots in state held, which is at most the credit unless the credit
// was lowered by a later attach.
type consumer struct {
	record
	id       ConsumerID
	ordinal  uint64 // in the order of first attach
	label    string
	queue    *queue
	n        uint64 // newest attachment
	attached bool
	// attachedAt is the entry in which it attached last, and attaches how often. It
	// counts in that entry alone, so it is in no snapshot.
	attachedAt uint64
	attaches   int
	credit     uint32
	next       uint64 // next delivery number
	done       uint64
	slots      []slot
	held       int
	// resumeBase: since a resume, no lease ends before it.
	resumeBase Time
	// graceEnd is set while detached: all its leases last until then, whatever
	// was left of them.
	graceEnd Time
	// pulled is the first number of a puller's newest receive; 0: it attaches.
	pulled uint64
	// idleSince is when a puller's last lease went.
	idleSince Time
	want      uint32 // of a receive in this entry
	gone      goneState
	timer     timer
	hungry    int // position in the queue's hungry heap, -1 when not in it
}

// attachesPerEntryMax: each attachment is sent all that the consumer holds, and
// thousands of them in one entry would be more than fits the memory. One beyond is
// stale: the client asks again, with the next number.
const attachesPerEntryMax = 4

type goneState uint8

const (
	goneNot  goneState = 0
	goneDead goneState = 1 // its grace is over: leases go back as budget allows
	goneLeft goneState = 2 // it left in order
)

// slot is one delivery that has not been settled for good. While held it is the
// lease.
type slot struct {
	state      LeaseState
	notHandled bool // said by leave: no handler has seen it
	// recorded: its message has a record, or had one until the lease ended or a purge
	// dropped it. It is in the consumer's row, where msg cannot be: a purge drops all records at
	// once and touches no row.
	recorded bool
	attempt  uint32
	place    place
	deadline Time
	stored   Time
	msg      *message // the message's record, nil while it has none
}

func (c *consumer) slot(number uint64) *slot {
	if number < c.done || number >= c.next {
		return nil
	}
	return &c.slots[number-c.done]
}

// addSlots counts the slots of a queue's consumers.
func (m *Machine) addSlots(q *queue, n int) {
	q.slots += n
	m.slots += n
}

// raiseDone forgets outcomes that the client has definite answers for. What is
// held has none yet, whatever the client says.
func (m *Machine) raiseDone(c *consumer, done uint64) {
	drop := 0
	for c.done+uint64(drop) < done && drop < len(c.slots) {
		m.resolve(c, c.done+uint64(drop))
		if c.slots[drop].state == LeaseHeld {
			break
		}
		drop++
	}
	if drop == 0 {
		return
	}
	c.done += uint64(drop)
	m.dirty(c)
	m.addSlots(c.queue, -drop)
	c.slots = c.slots[drop:] // append moves the rest to a new array in time
	m.feed(c)
}

// attach makes a consumer known or resumes it. See wire.Attach.
func (m *Machine) attach(a attach, r *Result, eff *Effects) Status {
	if st := m.own(a.incarnation, a.group); st != StatusOK {
		return st
	}
	if m.detaching > 0 {
		return StatusBusy
	}
	q := m.queuesByName[string(a.queue)]
	c := m.consumers[a.consumer]
	if c == nil {
		switch {
		case a.n != 1:
			// It was given up, and what it held with it.
			return StatusConsumerGone
		case q == nil:
			return StatusNoQueue
		case len(m.consumers) >= m.limits.ConsumersMax:
			return StatusConsumerCap
		}
		c = m.newConsumer(a.consumer, q)
	}
	switch {
	case c.gone != goneNot || c.queue != q || c.pulls():
		return StatusConsumerGone
	case a.n < c.n || a.n == c.n && !c.attached:
		// Equal and detached: the connection that made this attachment is gone.
		return StatusStale
	case a.n > c.n && c.attachedAt == m.index && c.attaches == attachesPerEntryMax:
		return StatusStale
	}
	repeated := a.n == c.n
	numbers := 0
	for _, x := range a.unsettled {
		numbers += c.slotsIn(x)
	}
	if !repeated {
		numbers += len(c.slots)
	}
	if !m.mayAnswer(numbers) {
		return StatusBusy
	}
	if !repeated {
		if c.attachedAt != m.index {
			c.attachedAt, c.attaches = m.index, 0
		}
		c.attaches++
		c.n, c.attached, c.credit, c.label = a.n, true, min(a.credit, m.limits.CreditMax), a.label
		c.resumeBase = m.now + Time(q.settings.LeaseTime)
		m.retime(c)
	}
	m.raiseDone(c, a.done)
	r.Attach = AttachResult{Queue: q.number, LeaseTime: q.settings.LeaseTime, Next: c.next}
	listed := map[uint64]bool{}
	for _, x := range a.unsettled {
		r.Attach.States = c.eachState(r.Attach.States, x, func(number uint64) {
			m.resolve(c, number)
			listed[number] = true
		})
	}
	if !repeated {
		for i := range c.slots {
			number := c.done + uint64(i)
			m.resolve(c, number)
			if s := &c.slots[i]; s.state == LeaseHeld && !listed[number] {
				eff.Deliveries = append(eff.Deliveries, c.delivery(number, s))
			}
		}
	}
	m.dirty(c)
	m.feed(c)
	m.wake(q)
	return StatusOK
}

func (m *Machine) newConsumer(id ConsumerID, q *queue) *consumer {
	m.nextConsumer++
	c := &consumer{id: id, ordinal: m.nextConsumer, queue: q, next: 1, done: 1, hungry: -1}
	c.timer = timer{at: never, kind: timerConsumer, id: c.ordinal, pos: -1}
	m.addConsumer(c)
	return c
}

func (m *Machine) addConsumer(c *consumer) {
	m.consumers[c.id] = c
	m.consumersByOrdinal.add(c)
	c.queue.consumers.add(c)
}

// detach is proposed by the leader when the consumer's connection ended. A late
// one, of an older attachment, has no effect.
func (m *Machine) detach(d detach) Status {
	c := m.consumers[d.consumer]
	switch {
	case c == nil:
		return StatusConsumerGone
	case c.n != d.n || !c.attached:
		return StatusStale
	}
	m.detachConsumer(c)
	return StatusOK
}

func (m *Machine) detachConsumer(c *consumer) {
	c.attached = false
	c.graceEnd = m.now + Time(GraceTime)
	m.dirty(c)
	m.feed(c)
	m.retime(c)
}

// leave ends a consumer in order: what it holds goes back without waiting for
// anything.
func (m *Machine) leave(l leave) Status {
	if st := m.own(l.incarnation, l.group); st != StatusOK {
		return st
	}
	c := m.consumers[l.consumer]
	switch {
	case c == nil || c.gone != goneNot:
		return StatusConsumerGone
	case l.n < c.n:
		return StatusStale
	}
	m.raiseDone(c, l.done)
	for _, x := range l.notHandled {
		for number := max(x.from, c.done); number <= x.to && number < c.next; number++ {
			c.slot(number).notHandled = true
		}
	}
	c.gone, c.attached = goneLeft, false
	m.dirty(c)
	m.feed(c)
	m.timers.set(&c.timer, m.now)
	return StatusOK
}

// state returns what became of a delivery.
func (c *consumer) state(number uint64) LeaseState {
	if s := c.slot(number); s != nil {
		return s.state
	}
	return LeaseUnknown
}

func (c *consumer) delivery(number uint64, s *slot) Delivery {
	d := Delivery{
		Consumer: c.id, N: c.n, Number: number, Queue: c.queue.number,
		Lane: s.place.lane, Offset: s.place.offset, Attempt: s.attempt, Deadline: max(s.deadline, c.resumeBase),
	}
	d.Restored = c.queue.fromBefore(s.place, s.msg)
	if s.msg != nil {
		d.Failures = s.msg.failures
		d.Dead = s.msg.notes.dead()
	}
	return d
}

func (m *Machine) removeConsumer(c *consumer) {
	m.forget(c)
	m.timers.set(&c.timer, never)
	c.queue.hungry.remove(c)
	c.queue.consumers.remove(c)
	if next := c.queue.consumers.first(); c.queue.settings.SingleActive && next != nil && c.ordinal < next.ordinal {
		m.freshen(c.queue) // it takes over
	}
	if c.queue.deleted && c.queue.consumers.len() == 0 {
		m.timers.set(&c.queue.timer, never)
		delete(m.ending, c.queue.number)
	}
	m.addSlots(c.queue, -len(c.slots))
	delete(m.consumers, c.id)
	m.consumersByOrdinal.remove(c)
}

// feed keeps the consumer's place among those that have room for a message.
func (m *Machine) feed(c *consumer) {
	// The second condition bounds the table of outcomes for a client that acks
	// but never says that it knows.
	eats := c.attached && c.held < int(c.credit) && c.next-c.done < 2*uint64(c.credit)+DoneSlack || c.want > 0
	eats = eats && c.gone == goneNot
	h := &c.queue.hungry
	switch {
	case eats && c.hungry < 0:
		heap.Push(h, c)
		m.wake(c.queue)
	case eats:
		heap.Fix(h, c.hungry)
	case c.hungry >= 0:
		h.remove(c)
	}
}

// eater returns whose turn it is to be given a message, nil for nobody's. With a single
// active consumer it is the one that attached first: while that one is cut off and in
// grace nobody else takes over, or two could work at once. All are hungry there as
// well, so that neither a takeover nor a change of the setting has to look at each.
func (q *queue) eater() *consumer {
	switch {
	case len(q.hungry) == 0:
		return nil
	case !q.settings.SingleActive:
		return q.hungry[0]
	}
	if c := q.consumers.first(); c.hungry >= 0 {
		return c
	}
	return nil
}

// consumerOrder holds consumers by ordinal. The zero value is empty.
type consumerOrder struct{ tree *btree.BTreeG[*consumer] }

func (o *consumerOrder) add(c *consumer) {
	if o.tree == nil {
		o.tree = btree.NewG(16, func(a, b *consumer) bool { return a.ordinal < b.ordinal })
	}
	o.tree.ReplaceOrInsert(c)
}

func (o *consumerOrder) remove(c *consumer) {
	if o.tree == nil {
		return
	}
	o.tree.Delete(c)
	if o.tree.Len() == 0 {
		o.tree = nil
	}
}

func (o *consumerOrder) len() int {
	if o.tree == nil {
		return 0
	}
	return o.tree.Len()
}

// first returns the consumer with the lowest ordinal, nil for none.
func (o *consumerOrder) first() *consumer {
	if o.tree == nil {
		return nil
	}
	c, _ := o.tree.Min()
	return c
}

// next returns the consumer with the lowest ordinal from one on, nil for none.
func (o *consumerOrder) next(ordinal uint64) (found *consumer) {
	o.from(ordinal, func(c *consumer) bool { found = c; return false })
	return found
}

func (o *consumerOrder) get(ordinal uint64) *consumer {
	if o.tree == nil {
		return nil
	}
	c, _ := o.tree.Get(&consumer{ordinal: ordinal})
	return c
}

// each calls f in order until it says no. f must not add or remove any.
func (o *consumerOrder) each(f func(c *consumer) bool) { o.from(0, f) }

// from is each, from an ordinal on.
func (o *consumerOrder) from(ordinal uint64, f func(c *consumer) bool) {
	if o.tree != nil {
		o.tree.AscendGreaterOrEqual(&consumer{ordinal: ordinal}, f)
	}
}

// hungryHeap orders consumers by what they hold, then by how much they were ever
// given, then by their ordinal. The second keeps one that takes messages and lets
// their leases run out from being given the same ones again and again, while
// others that hold as few wait.
type hungryHeap []*consumer

func (h hungryHeap) Len() int { return len(h) }
func (h hungryHeap) Less(i, j int) bool {
	if h[i].held != h[j].held {
		return h[i].held < h[j].held
	}
	if h[i].next != h[j].next {
		return h[i].next < h[j].next
	}
	return h[i].ordinal < h[j].ordinal
}
func (h hungryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].hungry, h[j].hungry = i, j
}
func (h *hungryHeap) Push(x any) {
	c := x.(*consumer)
	c.hungry = len(*h)
	*h = append(*h, c)
}
func (h *hungryHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	c.hungry = -1
	return c
}
func (h *hungryHeap) remove(c *consumer) {
	if c.hungry >= 0 {
		heap.Remove(h, c.hungry)
	}
}
