package fsm

import (
	"container/heap"
	"time"

	"onceq/transport/wire/pack"
)

// The rows of the tables as they stand in digests and snapshots: msgpack arrays
// of all replicated fields, nested tables as sorted arrays (in a digest a queue's
// milestones by their sum). What can be derived
// (heaps, sums, indexes) is not in them and is rebuilt by Restore.

const (
	scalarFields   = 22
	sessionFields  = 12
	outcomeFields  = 8
	queueFields    = 14
	consumerFields = 16
	slotFields     = 8

	messageRowFields = 15
)

// rowItemsMax bounds what a row's nested array may hold, beside the bytes that
// remain.
const rowItemsMax = 1 << 31

func (m *Machine) appendScalars(w *pack.Writer) {
	w.Array(scalarFields)
	w.Uint(uint64(m.version))
	w.Int(int64(m.now))
	w.Uint(m.incarnation)
	w.Str(m.leader)
	w.Bin(m.leaderNonce[:])
	w.Int(int64(m.graceFloor))
	w.Uint(uint64(m.graceHolds))
	w.Uint(m.detaching)
	w.Uint(m.nextSession)
	w.Uint(m.nextQueue)
	w.Uint(m.nextConsumer)
	w.Uint(m.deletions)
	w.Uint(m.lastEpoch)
	w.Uint(m.duplicates)
	w.Uint(m.assignFrom)
	m.appendLives(w)
}

const versionUnknown = "machine version %d, %d is known here: start the node with the build that made it"

func (m *Machine) readScalars(r *pack.Reader) {
	r.ArrayExact(scalarFields)
	m.version = r.Uint32()
	if r.Err() == nil && (m.version > m.supports || m.version < machineVersionFirst) {
		r.Failf(versionUnknown, m.version, m.supports)
		return
	}
	m.now = Time(r.Int())
	m.incarnation = r.Uint()
	m.leader = r.Str(TermNodeBytesMax)
	r.BinExact(m.leaderNonce[:])
	m.graceFloor, m.graceHolds, m.detaching = Time(r.Int()), r.Uint8(), r.Uint()
	m.nextSession, m.nextQueue, m.nextConsumer = r.Uint(), r.Uint(), r.Uint()
	m.deletions, m.lastEpoch = r.Uint(), r.Uint()
	m.duplicates, m.assignFrom = r.Uint(), r.Uint()
	m.readLives(r)
}

func (s *session) appendRow(w *pack.Writer) {
	w.Array(sessionFields)
	w.Uint(s.number)
	w.Uint(s.incarnation)
	w.Bool(s.named)
	w.Str(s.name)
	w.Str(s.label)
	w.Uint(s.epoch)
	w.Bin(s.nonce[:])
	w.Uint(s.floor)
	w.Uint(s.highest)
	w.Int(int64(s.lastActive))
	s.timer.append(w)
	w.Array(len(s.outcomes))
	for _, seq := range s.sortedOutcomes() {
		o := s.outcomes[seq]
		w.Array(outcomeFields)
		w.Uint(seq)
		w.Bool(o.sealed)
		w.Uint(o.checksum)
		w.Uint(o.queue)
		w.Uint(uint64(o.lane))
		w.Uint(o.offset)
		w.Uint(uint64(o.count))
		w.Array(len(o.positions))
		for _, p := range o.positions {
			w.Array(4)
			w.Uint(p.Queue)
			w.Uint(uint64(p.Lane))
			w.Uint(p.Offset)
			w.Uint(uint64(p.Count))
		}
	}
}

func (m *Machine) readSession(r *pack.Reader, from *origins) {
	r.ArrayExact(sessionFields)
	s := &session{number: r.Uint(), incarnation: r.Uint(), named: r.Bool(), name: r.Str(SessionNameBytesMax), label: r.Str(LabelBytesMax), epoch: r.Uint()}
	r.BinExact(s.nonce[:])
	s.floor, s.highest, s.lastActive = r.Uint(), r.Uint(), Time(r.Int())
	at := Time(r.Int())
	n := r.Array(rowItemsMax)
	s.outcomes = make(map[uint64]outcome, min(n, r.Remaining()/outcomeFields))
	for range n {
		r.ArrayExact(outcomeFields)
		seq := r.Uint()
		o := outcome{
			sealed: r.Bool(), checksum: r.Uint(), queue: r.Uint(),
			lane: r.Uint8(), offset: r.Uint(), count: r.Uint32(),
		}
		for range r.Array(AckPublishQueuesMax) {
			r.ArrayExact(4)
			o.positions = append(o.positions, Position{r.Uint(), r.Uint8(), r.Uint(), r.Uint32()})
		}
		s.outcomes[seq] = o
		if seq > s.highest && !from.backup { // a session of a backup takes nothing new
			r.Failf("session %d has an outcome of %d, and %d is said to be its highest", s.number, seq, s.highest)
		}
	}
	if from.backup && r.Err() == nil && (s.number > m.nextSession || s.floor == 0) {
		r.Failf("session %d of %d with floor %d", s.number, m.nextSession, s.floor)
	}
	if r.Err() != nil {
		return
	}
	if m.sessions.rows[s.number] != nil {
		from.doubtf("session %d stands twice", s.number)
	}
	m.outcomes += len(s.outcomes)
	for _, o := range s.outcomes {
		m.count(s, o.bytes())
	}
	s.timer = timer{kind: timerSession, id: s.number, pos: -1}
	if from.backup {
		m.closeForGood(s, &at)
	}
	if s.named && at != never {
		from.doubtf("session %d has a name and expires", s.number)
	}
	m.timers.set(&s.timer, at)
	m.addSession(s)
	m.dirty(s)
}

func (q *queue) appendRow(w *pack.Writer) { q.append(w, (*lane).append) }

func (q *queue) appendDigest(w *pack.Writer) { q.append(w, (*lane).appendDigest) }

func (q *queue) append(w *pack.Writer, lane func(*lane, *pack.Writer)) {
	w.Array(queueFields)
	w.Uint(q.number)
	w.Str(q.name)
	w.Uint(q.revision)
	q.settings.append(w)
	w.Bool(q.paused)
	q.counts.append(w)
	w.Uint(q.bytes)
	w.Bin(q.admin.nonce[:])
	w.Uint(q.admin.removed)
	w.Bin(q.edited.nonce[:])
	states := make([]byte, len(q.edited.states))
	for i, s := range q.edited.states {
		states[i] = byte(s)
	}
	w.Bin(states)
	w.Uint(q.waking)
	q.timer.append(w)
	used := 0
	for _, l := range q.lanes {
		if l != nil {
			used++
		}
	}
	w.Array(used)
	for _, l := range q.lanes {
		if l != nil {
			lane(l, w)
		}
	}
}

func (m *Machine) readQueue(r *pack.Reader, from *origins) {
	r.ArrayExact(queueFields)
	q := newQueue(from.base+r.Uint(), r.Str(QueueNameBytesMax), QueueSettings{})
	q.revision, q.settings, q.paused = r.Uint(), readSettings(r), r.Bool()
	q.counts.read(r)
	q.bytes = r.Uint()
	r.BinExact(q.admin.nonce[:])
	q.admin.removed = r.Uint()
	r.BinExact(q.edited.nonce[:])
	for _, s := range r.Bin(EditPlacesMax) {
		q.edited.states = append(q.edited.states, EditState(s))
	}
	q.waking = r.Uint()
	at := Time(r.Int())
	if from.backup && r.Err() == nil && (q.number <= from.base || q.number-from.base > m.nextQueue) {
		r.Failf("queue %d, numbers go to %d", q.number-from.base, m.nextQueue)
	}
	for range r.Array(Priorities) {
		l := readLane(r)
		if r.Err() != nil {
			return
		}
		if q.lanes[l.number] != nil {
			r.Failf("lane %d of queue %d stands twice", l.number, q.number)
			return
		}
		if from.backup {
			l.restoredBelow = l.tail
		}
		q.lanes[l.number] = l
		q.eligible += l.plain
	}
	if r.Err() != nil {
		return
	}
	if m.queues[q.number] != nil {
		from.doubtf("queue %q stands twice", q.name)
	}
	m.messages += int64(q.counts.Here())
	m.leasePlain(q, int(q.counts.Leased)) // less those that turn out to have a record
	m.timers.set(&q.timer, at)
	m.addQueue(q)
	m.dirty(q)
}

func (s QueueSettings) append(w *pack.Writer) {
	w.Array(settingsFields)
	w.Int(int64(s.LeaseTime))
	w.Uint(s.LengthMax)
	w.Uint(s.BytesMax)
	w.Int(int64(s.TTL))
	w.Uint(uint64(s.DeliveryLimit))
	w.Str(s.DeadLetter)
	w.Int(int64(s.BackoffMin))
	w.Int(int64(s.BackoffMax))
	w.Bool(s.SingleActive)
}

func (l *lane) append(w *pack.Writer) {
	l.appendPlaces(w)
	w.Array(len(l.milestones))
	for _, ms := range l.milestones {
		ms.append(w)
	}
}

// appendDigest is append at a cost that does not grow with the backlog.
func (l *lane) appendDigest(w *pack.Writer) {
	l.appendPlaces(w)
	w.Array(2)
	w.Uint(l.closed)
	if n := len(l.milestones); n > 0 {
		l.milestones[n-1].append(w)
	}
}

func (l *lane) appendPlaces(w *pack.Writer) {
	w.Array(7)
	w.Uint(uint64(l.number))
	w.Uint(l.head)
	w.Uint(l.tail)
	w.Uint(l.plain)
	w.Uint(l.purgedBelow)
	w.Uint(l.restoredBelow)
}

func (ms milestone) append(w *pack.Writer) {
	w.Array(3)
	w.Uint(ms.first)
	w.Int(int64(ms.stored))
	w.Uint(ms.bytes)
}

func readLane(r *pack.Reader) *lane {
	r.ArrayExact(7)
	number := r.Uint8()
	if r.Err() == nil && number >= Priorities {
		r.Failf("lane %d, there are %d", number, Priorities)
	}
	if r.Err() != nil {
		return newLane(0)
	}
	l := newLane(number)
	l.head, l.tail, l.plain, l.purgedBelow, l.restoredBelow = r.Uint(), r.Uint(), r.Uint(), r.Uint(), r.Uint()
	for range r.Array(rowItemsMax) {
		r.ArrayExact(3)
		l.milestones = append(l.milestones, milestone{r.Uint(), Time(r.Int()), r.Uint()})
	}
	l.closed = l.sumClosed()
	return l
}

func (msg *message) appendRow(w *pack.Writer) {
	w.Array(messageRowFields)
	w.Uint(msg.q.number)
	w.Uint(uint64(msg.lane))
	w.Uint(msg.offset)
	w.Uint(uint64(msg.state))
	w.Uint(uint64(msg.size))
	w.Uint(uint64(msg.attempts))
	w.Uint(uint64(msg.failures))
	w.Int(int64(msg.stored))
	w.Int(int64(msg.due))
	w.Int(int64(msg.expires))
	w.Bool(msg.expiryPos >= 0)
	key, current := "", false
	if msg.key != nil {
		key, current = msg.key.key, msg.key.current == msg
	}
	w.Str(key)
	w.Bool(current)
	w.Bool(msg.restored)
	msg.notes.append(w)
}

func (n *notes) append(w *pack.Writer) {
	if n == nil {
		w.Array(0)
		return
	}
	w.Array(6)
	w.Str(n.reason)
	w.Str(n.first)
	w.Str(n.last)
	w.Str(n.key)
	o := &n.origin
	w.Array(7)
	w.Str(o.queue)
	w.Uint(o.number)
	w.Uint(uint64(o.place.lane))
	w.Uint(o.place.offset)
	w.Uint(uint64(o.attempts))
	w.Uint(uint64(o.failures))
	w.Int(int64(o.stored))
	w.Array(len(n.events))
	for _, e := range n.events {
		w.Array(5)
		w.Int(int64(e.at))
		w.Uint(uint64(e.kind))
		w.Uint(uint64(e.attempt))
		w.Uint(e.consumer)
		w.Str(e.text)
	}
}

func readNotes(r *pack.Reader) *notes {
	switch n := r.Array(6); {
	case n == 0:
		return nil
	case n != 6:
		r.Failf("notes of %d fields", n)
		return nil
	}
	n := &notes{reason: r.Str(notesTextMax), first: r.Str(notesTextMax), last: r.Str(notesTextMax), key: r.Str(OrderingKeyBytesMax)}
	if n.last == n.first {
		n.last = n.first // and not a copy of it
	}
	r.ArrayExact(7)
	n.origin = origin{
		queue: r.Str(QueueNameBytesMax), number: r.Uint(), place: place{r.Uint8(), r.Uint()},
		attempts: r.Uint32(), failures: r.Uint32(), stored: Time(r.Int()),
	}
	for range r.Array(eventsMax) {
		r.ArrayExact(5)
		e := event{Time(r.Int()), EventKind(r.Uint8()), r.Uint32(), r.Uint(), r.Str(notesTextMax)}
		for _, known := range [...]string{n.last, n.first, n.reason} {
			if e.text == known {
				e.text = known
			}
		}
		n.events = append(n.events, e)
	}
	return n
}

// notesTextMax bounds a text in notes: a reason may name a queue.
const notesTextMax = 1024

// readMessage follows the queues; messages stand in the order of their places,
// so that those of a key line up as they were.
func (m *Machine) readMessage(r *pack.Reader, from *origins) {
	r.ArrayExact(messageRowFields)
	q := m.queues[from.base+r.Uint()]
	msg := &message{place: place{r.Uint8(), r.Uint()}, state: messageState(r.Uint8()), size: r.Uint32(), attempts: r.Uint32(), failures: r.Uint32()}
	msg.stored, msg.due = Time(r.Int()), Time(r.Int())
	expires, waits := Time(r.Int()), r.Bool()
	key, current := r.Str(OrderingKeyBytesMax), r.Bool()
	msg.restored = r.Bool()
	msg.notes = readNotes(r)
	if r.Err() != nil {
		return
	}
	if msg.notes != nil && msg.notes.origin.number != 0 {
		o := &msg.notes.origin
		o.number += from.base
		if was := m.queues[o.number]; was != nil && was.name == o.queue {
			o.queue = was.name // and not a copy of it for each dead letter
		}
	}
	if q == nil || msg.lane >= Priorities || q.lanes[msg.lane] == nil || msg.state == stateNew || msg.state > stateGone {
		r.Failf("a message at lane %d offset %d in state %d belongs nowhere", msg.lane, msg.offset, msg.state)
		return
	}
	if q.records.rows[msg.place] != nil {
		from.doubtf("queue %q: the message at lane %d offset %d stands twice", q.name, msg.lane, msg.offset)
	}
	msg.expires = never
	m.addRecord(q, msg)
	msg.expires = expires
	if waits {
		heap.Push(&q.expiries, msg)
	}
	switch msg.state {
	case stateReady:
		q.lanes[msg.lane].ready.ReplaceOrInsert(msg)
		q.eligible++
	case stateDelayed:
		heap.Push(&q.delayed, msg)
	case stateLeased:
		m.leasePlain(q, -1)
	}
	if key == "" {
		return
	}
	k := q.keys.rows[key]
	if k == nil {
		k = &keyChain{key: key}
		q.keys.rows[key] = k
	}
	msg.key = k
	if current {
		k.current = msg
	} else {
		k.wait(msg)
	}
}

// fields lists the counts in the order of their encoding.
func (c *QueueCounts) fields() [17]*uint64 {
	return [17]*uint64{
		&c.Stored, &c.Ready, &c.Leased, &c.Delayed, &c.Parked,
		&c.Acked, &c.Expired, &c.DeadLettered, &c.Deleted, &c.Purged, &c.Moved, &c.Delivered,
		&c.RedeliveredExpired, &c.RedeliveredNacked, &c.RedeliveredGone, &c.RedeliveredLeft, &c.DuplicatesRefused,
	}
}

func (c *QueueCounts) append(w *pack.Writer) {
	fs := c.fields()
	w.Array(len(fs))
	for _, f := range fs {
		w.Uint(*f)
	}
}

func (c *QueueCounts) read(r *pack.Reader) {
	fs := c.fields()
	r.ArrayExact(len(fs))
	for _, f := range fs {
		*f = r.Uint()
	}
}

func (c *consumer) appendRow(w *pack.Writer) {
	w.Array(consumerFields)
	w.Bin(c.id[:])
	w.Uint(c.ordinal)
	w.Str(c.label)
	w.Uint(c.queue.number)
	w.Uint(c.n)
	w.Bool(c.attached)
	w.Uint(uint64(c.credit))
	w.Uint(c.next)
	w.Uint(c.done)
	w.Int(int64(c.resumeBase))
	w.Int(int64(c.graceEnd))
	w.Uint(c.pulled)
	w.Int(int64(c.idleSince))
	w.Uint(uint64(c.gone))
	c.timer.append(w)
	w.Array(len(c.slots))
	for i := range c.slots {
		s := &c.slots[i]
		w.Array(slotFields)
		w.Uint(uint64(s.state))
		w.Bool(s.notHandled)
		w.Uint(uint64(s.attempt))
		w.Uint(uint64(s.place.lane))
		w.Uint(s.place.offset)
		w.Int(int64(s.deadline))
		w.Int(int64(s.stored))
		w.Bool(s.recorded)
	}
}

// readConsumer follows the queues.
func (m *Machine) readConsumer(r *pack.Reader, from *origins) {
	r.ArrayExact(consumerFields)
	c := &consumer{hungry: -1}
	r.BinExact(c.id[:])
	c.ordinal, c.label = r.Uint(), r.Str(LabelBytesMax)
	queueNumber := r.Uint()
	c.n, c.attached, c.credit, c.next, c.done = r.Uint(), r.Bool(), r.Uint32(), r.Uint(), r.Uint()
	c.resumeBase, c.graceEnd = Time(r.Int()), Time(r.Int())
	c.pulled, c.idleSince, c.gone = r.Uint(), Time(r.Int()), goneState(r.Uint8())
	at := Time(r.Int())
	n := r.Array(rowItemsMax)
	c.slots = make([]slot, 0, min(n, r.Remaining()/slotFields))
	for range n {
		r.ArrayExact(slotFields)
		s := slot{state: LeaseState(r.Uint8()), notHandled: r.Bool(), attempt: r.Uint32(), place: place{r.Uint8(), r.Uint()}, deadline: Time(r.Int()), stored: Time(r.Int()), recorded: r.Bool()}
		if s.state == LeaseHeld {
			c.held++
		}
		c.slots = append(c.slots, s)
	}
	if r.Err() != nil {
		return
	}
	if c.next-c.done != uint64(len(c.slots)) {
		r.Failf("consumer %x has %d slots for deliveries %d to %d", c.id, len(c.slots), c.done, c.next)
		return
	}
	c.queue = m.queues[from.base+queueNumber]
	if c.queue == nil {
		if c.queue = m.deletedQueue(from, queueNumber); c.queue == nil {
			r.Failf("consumer %x belongs to queue %d, which is not there", c.id, queueNumber)
			return
		}
	}
	for i := range c.slots {
		// A purged or deleted message's record went with its queue's table.
		if s := &c.slots[i]; s.recorded && s.state == LeaseHeld {
			s.msg = c.queue.records.rows[s.place]
		}
	}
	m.leases += c.held
	m.addSlots(c.queue, len(c.slots))
	c.timer = timer{kind: timerConsumer, id: c.ordinal, pos: -1}
	m.timers.set(&c.timer, at)
	m.addConsumer(c)
	if from.backup {
		m.giveBack(c)
		return
	}
	m.feed(c)
	m.dirty(c)
}

// deletedQueue returns a queue that is in no table any more, for a consumer that is
// left of it; nil if there never was one with that number. Whoever deletes a queue
// touches no consumer, so their rows cannot tell.
func (m *Machine) deletedQueue(from *origins, number uint64) *queue {
	q := m.ending[from.base+number]
	if q == nil && 0 < number && number <= m.nextQueue {
		q = newQueue(from.base+number, "", QueueSettings{LeaseTime: time.Second})
		q.deleted = true
		m.beginEnding(q)
	}
	return q
}

// append writes when the timer is due; 0 never stands for never, since it may
// be due at 0.
func (t *timer) append(w *pack.Writer) {
	if t.pos < 0 {
		w.Int(int64(never))
		return
	}
	w.Int(int64(t.at))
}
