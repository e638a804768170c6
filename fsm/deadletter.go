package fsm

// deadLetter moves a message to its queue's dead-letter queue, in the same
// entry. Where that is impossible it is parked in place and never dropped: no
// such queue is set, it is missing, full, or cannot take records any more.
func (m *Machine) deadLetter(msg *message, reason string) {
	q := msg.q
	target := m.queuesByName[q.settings.DeadLetter]
	switch {
	case q.settings.DeadLetter == "":
		m.park(msg, reason)
	case target == nil:
		m.park(msg, reason+"; dead-letter queue "+q.settings.DeadLetter+" does not exist")
	case target == q:
		m.park(msg, reason+"; the queue is its own dead-letter queue")
	case m.room(target, 1, uint64(msg.size)) != StatusOK:
		m.park(msg, reason+"; dead-letter queue "+target.name+" is full")
	default:
		m.moveTo(msg, target, reason, &q.counts.DeadLettered)
	}
}

// park keeps a message in its queue, out of delivery, until somebody requeues,
// moves or deletes it. It holds up nobody: its key is released.
func (m *Machine) park(msg *message, reason string) {
	if msg.notes == nil {
		msg.notes = &notes{}
	}
	msg.notes.reason = reason
	m.note(msg, event{at: m.now, kind: EventParked, attempt: msg.attempts, text: reason})
	m.setState(msg, stateParked)
	if msg.key != nil {
		msg.notes.key = msg.key.key
		m.leaveKey(msg)
	}
}

// moveTo moves a message to the end of a lane of another queue of the group. Its body is
// not read: the store is told where it is now. What it had behind it goes along
// in its notes: with a reason it is a dead letter, without one it was sent on by
// command.
func (m *Machine) moveTo(msg *message, target *queue, reason string, counter *uint64) {
	q, from := msg.q, msg.place
	l := m.laneOf(msg, target, reason)
	moved := &message{
		place: place{l.number, l.tail}, size: msg.size, stored: m.now,
		expires: target.expiry(m.now, 0), notes: msg.notes,
		// Attempt 1 proves that nobody saw a message before, also after a move.
		attempts: msg.attempts,
		restored: q.fromBefore(msg.place, msg),
	}
	if moved.notes == nil {
		moved.notes = &notes{}
	}
	if msg.key != nil {
		moved.notes.key = msg.key.key
	}
	if reason != "" {
		moved.notes.reason = reason
		moved.notes.origin = origin{
			queue: q.name, number: q.number, place: from,
			attempts: msg.attempts, failures: msg.failures, stored: msg.stored,
		}
		m.note(moved, event{at: m.now, kind: EventDead, attempt: msg.attempts, text: reason})
	} else {
		moved.notes.reason, moved.notes.origin = "", origin{}
		m.note(moved, event{at: m.now, kind: EventRequeued, attempt: msg.attempts, text: "from " + q.name})
	}
	m.bodies.Move(q.number, from.lane, from.offset, target.number, l.number, l.tail)
	m.leaveQueue(msg, counter, false)
	l.tail++
	target.counts.Stored++
	target.bytes += uint64(moved.size)
	m.messages++
	m.addRecord(target, moved)
	l.passOwn(moved.offset)
	if reason == "" && moved.notes.key != "" {
		m.rejoinKey(moved)
	}
	m.ready(moved)
	m.skip(target, l)
	m.retimeQueue(target)
	m.dirty(target)
}

// laneOf returns the lane that a message is moved to. A dead letter that goes back to
// where it came from has the priority that it had there; anywhere else it has none, and
// what has an ordering key never has one.
func (m *Machine) laneOf(msg *message, target *queue, reason string) *lane {
	n := msg.notes
	switch {
	case reason != "" || n == nil || n.origin.number != target.number || m.version < versionRedriveKeepsLane:
	case msg.key != nil || n.key != "" || n.origin.place.lane >= Priorities:
	default:
		return target.laneFor(n.origin.place.lane)
	}
	return target.laneFor(0)
}

// dead returns what a dead letter has behind it, nil for any other message.
func (n *notes) dead() *DeadLetter {
	if n == nil || n.origin.number == 0 {
		return nil
	}
	return &DeadLetter{
		Reason: n.reason, FirstError: n.first, LastError: n.last,
		OriginQueue: n.origin.queue, OriginLane: n.origin.place.lane, OriginOffset: n.origin.place.offset,
		OriginAttempts: n.origin.attempts,
	}
}
