package fsm

import (
	"cmp"
	"slices"
)

// EditVerb is what a command does with messages named by place. Values are in
// the log.
type EditVerb uint8

const (
	EditDelete  EditVerb = 1 // gone for good; not while leased
	EditRequeue EditVerb = 2 // parked or delayed: ready now
	EditRelease EditVerb = 3 // leased: taken from its consumer and ready
	EditMove    EditVerb = 4 // to the end of another queue, or of the lane where a dead letter came from; not while leased
)

// EditState is what became of one place. An edit names the message as its sender has
// seen it, by its turn: one that was handed out since, or has come back, is left
// alone, so a late copy of a release takes nothing from a new holder.
type EditState uint8

const (
	EditDone      EditState = 1
	EditNotHere   EditState = 2 // never stored, gone, or moved already
	EditLeased    EditState = 3 // release it first, or wait
	EditUnchanged EditState = 4 // the verb does not apply to its state
	EditRefused   EditState = 5 // the target does not exist, is full or unknown
	EditChanged   EditState = 6 // handed out, or come back, since it was looked at
	EditCapped    EditState = 7 // it would need a record, and there are as many as may be
)

// edit runs a verb on each place.
func (m *Machine) edit(c *edit, r *Result, eff *Effects) Status {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st
	}
	q := m.queues[c.number]
	if q == nil {
		return StatusNoQueue
	}
	if q.edited.nonce == c.nonce && c.nonce != (Nonce{}) {
		r.Edits, r.Queue = q.edited.states, m.info(q)
		return StatusOK
	}
	var target *queue
	if len(c.target) > 0 {
		if target = m.queuesByName[string(c.target)]; target == nil || target == q {
			return StatusNoQueue
		}
	}
	var held map[place]seen
	if slices.ContainsFunc(c.places, func(p seenPlace) bool { return q.maybeLeased(p.place) }) {
		if !m.mayAnswer(q.slots) {
			return StatusBusy
		}
		held = q.holders(c.places)
	}
	r.Edits = make([]EditState, 0, len(c.places))
	for _, p := range c.places {
		r.Edits = append(r.Edits, m.editOne(q, target, p, held[p.place], c.verb, eff))
	}
	m.retimeQueue(q)
	if slices.Contains(r.Edits, EditDone) {
		q.edited.nonce, q.edited.states = c.nonce, r.Edits
		m.dirty(q)
	}
	r.Queue = m.info(q)
	return StatusOK
}

// turn counts how often a message was handed out and has come back, given its
// attempts: it is odd while the message is leased.
func turn(attempts uint32, leased bool) uint64 {
	if leased {
		return 2*uint64(attempts) - 1
	}
	return 2 * uint64(attempts)
}

// maybeLeased says that a place may be leased: only a slot knows.
func (q *queue) maybeLeased(p place) bool {
	l := q.lanes[p.lane]
	if l == nil || p.offset >= l.tail || p.offset < l.purgedBelow {
		return false
	}
	msg := q.records.rows[p]
	return msg == nil && p.offset < l.head || msg != nil && msg.state == stateLeased
}

func (m *Machine) editOne(q, target *queue, at seenPlace, holder seen, verb EditVerb, eff *Effects) EditState {
	p := at.place
	l := q.lanes[p.lane]
	if l == nil || p.offset >= l.tail || p.offset < l.purgedBelow {
		return EditNotHere
	}
	if q.maybeLeased(p) {
		return m.editLeased(q, at, holder, verb, eff)
	}
	msg := q.records.rows[p]
	if msg != nil && msg.state == stateGone || msg == nil && l.isGone(p.offset) {
		return EditNotHere
	}
	if msg == nil && at.turn != 0 || msg != nil && at.turn != turn(msg.attempts, false) {
		return EditChanged
	}
	if msg == nil {
		return m.editPlain(q, target, p, verb)
	}
	switch verb {
	case EditDelete:
		m.leaveQueue(msg, &q.counts.Deleted, true)
		return EditDone
	case EditRequeue:
		return m.requeue(msg)
	case EditMove:
		return m.moveOn(msg, target)
	}
	return EditUnchanged
}

func (m *Machine) editLeased(q *queue, at seenPlace, holder seen, verb EditVerb, eff *Effects) EditState {
	c := m.consumersByOrdinal.get(holder.ordinal)
	if c == nil {
		return EditNotHere
	}
	s := c.slot(holder.number)
	switch {
	case s.state != LeaseHeld:
		return EditNotHere
	case verb != EditRelease:
		return EditLeased
	case at.turn != turn(s.attempt, true):
		return EditChanged
	}
	msg := m.recordOf(c, s)
	m.drop(c, s, LeaseReturned)
	s.msg = nil
	m.note(msg, event{at: m.now, kind: EventReleased, attempt: s.attempt, consumer: c.ordinal})
	m.comeBack(msg, 0)
	m.feed(c)
	if c.attached {
		eff.Lost = append(eff.Lost, Loss{Consumer: c.id, N: c.n, Lost: []DeliveryState{{From: holder.number, To: holder.number, State: LeaseReturned}}})
	}
	return EditDone
}

// holders says who holds the places of an edit, in one pass over what its queue's
// consumers have in their books, whatever the number of places. A table by place would
// make every lease dearer for something that people do by hand; so a pass counts
// against what an entry may answer, and the longest there can be, over 8 million, takes
// some tens of milliseconds.
func (q *queue) holders(places []seenPlace) map[place]seen {
	wanted := make(map[place]bool, len(places))
	first, last := never64, uint64(0)
	for _, p := range places {
		wanted[p.place] = true
		first, last = min(first, p.offset), max(last, p.offset)
	}
	held := map[place]seen{}
	for c := range q.consumers.each {
		for i := range c.slots {
			if s := &c.slots[i]; s.state == LeaseHeld && first <= s.place.offset && s.place.offset <= last && wanted[s.place] {
				held[s.place] = seen{s.place, c.ordinal, c.done + uint64(i)}
			}
		}
	}
	return held
}

// editPlain edits a message that only the range tells of.
func (m *Machine) editPlain(q, target *queue, p place, verb EditVerb) EditState {
	switch verb {
	case EditDelete:
		if p.offset != q.lanes[p.lane].head && !m.mayEndAhead() {
			return EditCapped
		}
		if !m.dropPlain(q, p) {
			return EditNotHere
		}
		q.counts.Deleted++
		m.messages--
		m.bodies.Delete(q.number, p.lane, p.offset)
		return EditDone
	case EditMove:
		if target == nil || m.room(target, 1, 0) != StatusOK {
			return EditRefused
		}
		l := q.lanes[p.lane]
		records := 1 // in the target, and before versionGoneRanges here while the head is not there
		if p.offset != l.head && m.version < versionGoneRanges {
			records++
		}
		if !m.mayIndex(records) {
			return EditCapped
		}
		msg := &message{place: p, stored: l.storedAt(p.offset), expires: never}
		l.plain--
		q.eligible--
		q.counts.Ready--
		m.addRecord(q, msg)
		m.setState(msg, stateReady) // so that it leaves like any other
		m.moveTo(msg, target, "", &q.counts.Moved)
		m.skip(q, l)
		return EditDone
	}
	return EditUnchanged
}

// storedAt returns when a plain message of the range was stored.
func (l *lane) storedAt(offset uint64) Time {
	after, _ := slices.BinarySearchFunc(l.milestones, offset+1, func(ms milestone, o uint64) int { return cmp.Compare(ms.first, o) })
	if after == 0 {
		return 0
	}
	return l.milestones[after-1].stored
}

// requeue makes a parked or delayed message ready now, with a time to live that
// begins anew: whoever asks wants it delivered.
func (m *Machine) requeue(msg *message) EditState {
	q := msg.q
	switch msg.state {
	case stateParked:
		msg.failures = 0
		msg.notes.reason = ""
		m.rejoinKey(msg)
		m.expireAt(msg, q.expiry(m.now, 0))
	case stateDelayed:
	default:
		return EditUnchanged
	}
	m.note(msg, event{at: m.now, kind: EventRequeued, attempt: msg.attempts})
	m.ready(msg)
	return EditDone
}

// moveOn moves a message to target or, without one, to where it came from.
func (m *Machine) moveOn(msg *message, target *queue) EditState {
	if target == nil {
		if msg.notes == nil || msg.notes.origin.number == 0 {
			return EditRefused
		}
		// By number: a queue that was created again under the name is another.
		target = m.queues[msg.notes.origin.number]
	}
	if target == nil || target == msg.q || m.room(target, 1, uint64(msg.size)) != StatusOK {
		return EditRefused
	}
	if msg.offset >= msg.q.lanes[msg.lane].head && !m.mayEndAhead() {
		return EditCapped
	}
	m.moveTo(msg, target, "", &msg.q.counts.Moved)
	return EditDone
}
