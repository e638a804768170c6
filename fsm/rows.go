package fsm

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/btree"

	"onceq/transport/wire/pack"
)

// The rows of the tables as they stand in digests and snapshots: msgpack arrays
// of all replicated fields, nested tables as sorted arrays. What can be derived
// (heaps, sums, indexes) is not in them and is rebuilt by Restore.

const (
	scalarFields   = 11
	sessionFields  = 11
	outcomeFields  = 7
	queueFields    = 14
	consumerFields = 15
	slotFields     = 7
)

// rowItemsMax bounds what a row's nested array may hold, beside the bytes that
// remain.
const rowItemsMax = 1 << 31

func (m *Machine) appendScalars(w *pack.Writer) {
	w.Array(scalarFields)
	w.Int(int64(m.now))
	w.Uint(m.incarnation)
	w.Str(m.leader)
	w.Bin(m.leaderNonce[:])
	w.Int(int64(m.graceFloor))
	w.Uint(uint64(m.graceHolds))
	w.Uint(m.nextSession)
	w.Uint(m.nextQueue)
	w.Uint(m.nextConsumer)
	w.Uint(m.duplicates)
	w.Uint(m.assignFrom)
}

func (m *Machine) readScalars(r *pack.Reader) {
	r.ArrayExact(scalarFields)
	m.now = Time(r.Int())
	m.incarnation = r.Uint()
	m.leader = r.Str(TermNodeBytesMax)
	r.BinExact(m.leaderNonce[:])
	m.graceFloor, m.graceHolds = Time(r.Int()), r.Uint8()
	m.nextSession, m.nextQueue, m.nextConsumer = r.Uint(), r.Uint(), r.Uint()
	m.duplicates, m.assignFrom = r.Uint(), r.Uint()
}

func (s *session) appendRow(w *pack.Writer) {
	w.Array(sessionFields)
	w.Uint(s.number)
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
	}
}

func (m *Machine) readSession(r *pack.Reader) {
	r.ArrayExact(sessionFields)
	s := &session{number: r.Uint(), named: r.Bool(), name: r.Str(SessionNameBytesMax), label: r.Str(LabelBytesMax), epoch: r.Uint()}
	r.BinExact(s.nonce[:])
	s.floor, s.highest, s.lastActive = r.Uint(), r.Uint(), Time(r.Int())
	at := Time(r.Int())
	n := r.Array(rowItemsMax)
	s.outcomes = make(map[uint64]outcome, n)
	for range n {
		r.ArrayExact(outcomeFields)
		seq := r.Uint()
		s.outcomes[seq] = outcome{
			sealed: r.Bool(), checksum: r.Uint(), queue: r.Uint(),
			lane: r.Uint8(), offset: r.Uint(), count: r.Uint32(),
		}
	}
	if r.Err() != nil {
		return
	}
	m.outcomes += len(s.outcomes)
	s.timer = timer{kind: timerSession, id: s.number, pos: -1}
	m.timers.set(&s.timer, at)
	m.addSession(s)
	m.dirty(s)
}

func (q *queue) appendRow(w *pack.Writer) {
	w.Array(queueFields)
	w.Uint(q.number)
	w.Str(q.name)
	w.Uint(q.revision)
	w.Array(2)
	w.Int(int64(q.settings.LeaseTime))
	w.Uint(q.settings.LengthMax)
	q.counts.append(w)
	w.Uint(q.lane.head)
	w.Uint(q.lane.tail)
	w.Uint(q.lane.purgedBelow)
	w.Array(q.lane.returned.Len())
	q.lane.returned.Ascend(func(r returned) bool {
		r.append(w, 0)
		return true
	})
	w.Array(len(q.lane.milestones))
	for _, ms := range q.lane.milestones {
		w.Array(2)
		w.Uint(ms.first)
		w.Int(int64(ms.stored))
	}
	w.Array(len(q.delayed))
	for _, d := range slices.SortedFunc(slices.Values(q.delayed), func(a, b delayed) int { return cmp.Compare(a.offset, b.offset) }) {
		d.append(w, d.due)
	}
	w.Bin(q.purge.nonce[:])
	w.Uint(q.purge.removed)
	q.timer.append(w)
}

func (m *Machine) readQueue(r *pack.Reader) {
	r.ArrayExact(queueFields)
	q := newQueue(r.Uint(), r.Str(QueueNameBytesMax), QueueSettings{})
	q.revision, q.settings = r.Uint(), readSettings(r)
	q.counts.read(r)
	l := &q.lane
	l.head, l.tail, l.purgedBelow = r.Uint(), r.Uint(), r.Uint()
	readReturned(r, l.returned)
	for range r.Array(rowItemsMax) {
		r.ArrayExact(2)
		l.milestones = append(l.milestones, milestone{r.Uint(), Time(r.Int())})
	}
	for range r.Array(rowItemsMax) {
		x, due := readOneReturned(r)
		q.delayed = append(q.delayed, delayed{x, due})
	}
	slices.SortFunc(q.delayed, func(a, b delayed) int { // a sorted slice is a heap
		return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.offset, b.offset))
	})
	r.BinExact(q.purge.nonce[:])
	q.purge.removed = r.Uint()
	at := Time(r.Int())
	if r.Err() != nil {
		return
	}
	m.messages += int64(q.counts.Ready + q.counts.Leased + q.counts.Delayed + q.counts.Parked)
	m.timers.set(&q.timer, at)
	m.queues[q.number] = q
	m.queuesByName[q.name] = q
	m.dirty(q)
}

func (r returned) append(w *pack.Writer, due Time) {
	w.Array(5)
	w.Uint(r.offset)
	w.Uint(uint64(r.attempts))
	w.Uint(uint64(r.failures))
	w.Int(int64(r.stored))
	w.Int(int64(due))
}

func readOneReturned(r *pack.Reader) (returned, Time) {
	r.ArrayExact(5)
	return returned{offset: r.Uint(), attempts: r.Uint32(), failures: r.Uint32(), stored: Time(r.Int())}, Time(r.Int())
}

func readReturned(r *pack.Reader, t *btree.BTreeG[returned]) {
	for range r.Array(rowItemsMax) {
		x, _ := readOneReturned(r)
		if r.Err() != nil {
			return
		}
		t.ReplaceOrInsert(x)
	}
}

// fields lists the counts in the order of their encoding.
func (c *QueueCounts) fields() [13]*uint64 {
	return [13]*uint64{
		&c.Stored, &c.Ready, &c.Leased, &c.Delayed, &c.Parked, &c.Acked, &c.Purged, &c.Delivered,
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
	w.Bool(c.queue.deleted)
	w.Uint(c.n)
	w.Bool(c.attached)
	w.Uint(uint64(c.credit))
	w.Uint(c.next)
	w.Uint(c.done)
	w.Int(int64(c.resumeBase))
	w.Int(int64(c.graceEnd))
	w.Uint(uint64(c.gone))
	c.timer.append(w)
	w.Array(len(c.slots))
	for i := range c.slots {
		s := &c.slots[i]
		w.Array(slotFields)
		w.Uint(uint64(s.state))
		w.Bool(s.notHandled)
		w.Uint(uint64(s.attempt))
		w.Uint(uint64(s.failures))
		w.Uint(s.offset)
		w.Int(int64(s.deadline))
		w.Int(int64(s.stored))
	}
}

// readConsumer follows the queues. deleted keeps the queues that are gone and
// whose consumers have not ended yet.
func (m *Machine) readConsumer(r *pack.Reader, deleted map[uint64]*queue) {
	r.ArrayExact(consumerFields)
	c := &consumer{hungry: -1}
	r.BinExact(c.id[:])
	c.ordinal, c.label = r.Uint(), r.Str(LabelBytesMax)
	queueNumber, queueDeleted := r.Uint(), r.Bool()
	c.n, c.attached, c.credit, c.next, c.done = r.Uint(), r.Bool(), r.Uint32(), r.Uint(), r.Uint()
	c.resumeBase, c.graceEnd, c.gone = Time(r.Int()), Time(r.Int()), goneState(r.Uint8())
	at := Time(r.Int())
	n := r.Array(rowItemsMax)
	c.slots = make([]slot, 0, n)
	for range n {
		r.ArrayExact(slotFields)
		s := slot{state: LeaseState(r.Uint8()), notHandled: r.Bool(), attempt: r.Uint32(), failures: r.Uint32(), offset: r.Uint(), deadline: Time(r.Int()), stored: Time(r.Int())}
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
	c.queue = m.queues[queueNumber]
	if queueDeleted {
		if c.queue = deleted[queueNumber]; c.queue == nil {
			c.queue = newQueue(queueNumber, "", QueueSettings{LeaseTime: time.Second})
			c.queue.deleted = true
			deleted[queueNumber] = c.queue
		}
	}
	if c.queue == nil {
		r.Failf("consumer %x belongs to queue %d, which is not there", c.id, queueNumber)
		return
	}
	m.leases += c.held
	c.timer = timer{kind: timerConsumer, id: c.ordinal, pos: -1}
	m.timers.set(&c.timer, at)
	m.addConsumer(c)
	m.feed(c)
	m.dirty(c)
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
