package fsm

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/google/btree"

	"onceq/transport/wire/pack"
)

// QueueCounts: at each index Stored is the sum of Ready, Leased, Delayed,
// Parked and of the ways to be gone: Acked, Expired, DeadLettered, Deleted,
// Purged, Moved. The Redelivered counts say why messages came back.
type QueueCounts struct {
	Stored, Ready, Leased, Delayed, Parked        uint64
	Acked, Expired, DeadLettered, Deleted, Purged uint64
	Moved                                         uint64 // to another queue, by command
	Delivered                                     uint64
	RedeliveredExpired                            uint64
	RedeliveredNacked                             uint64
	RedeliveredGone                               uint64
	RedeliveredLeft                               uint64
	DuplicatesRefused                             uint64
}

// Here is the number of messages that the queue holds.
func (c QueueCounts) Here() uint64 { return c.Ready + c.Leased + c.Delayed + c.Parked }

// Sum returns what Stored must be.
func (c QueueCounts) Sum() uint64 {
	return c.Here() + c.Acked + c.Expired + c.DeadLettered + c.Deleted + c.Purged + c.Moved
}

// QueueInfo is what the machine knows of a queue. Bytes counts encoded messages:
// exactly when one enters; what was never delivered is given back a milestone
// (a second, or 4,096 messages) at a time. OldestAge is the cluster time since
// the oldest message that waits for its first delivery, or that is ready again,
// was stored, to within a second.
type QueueInfo struct {
	Number    uint64
	Name      string
	Revision  uint64
	Paused    bool
	Settings  QueueSettings
	Counts    QueueCounts
	Bytes     uint64
	Consumers uint64
	OldestAge time.Duration
}

// queue is a named list of messages, ordered within each priority.
//
// Invariants: eligible is the number of messages that could be delivered now,
// plain ones and records in state ready; of records and keys only those of the
// present generation count.
type queue struct {
	record
	number   uint64
	name     string
	revision uint64
	settings QueueSettings
	paused   bool
	counts   QueueCounts
	bytes    uint64
	lanes    [Priorities]*lane
	eligible uint64
	// plainLeases are leases of messages without a record.
	plainLeases int
	// admin remembers the newest purge, update or pause, so that a repeat gets
	// its answer.
	admin struct {
		nonce   Nonce
		removed uint64
	}

	// edited remembers the newest edit that did something, for the same reason.
	edited struct {
		nonce  Nonce
		states []EditState
	}

	records    table[place, *message]
	recordsSum uint64 // of their hashes and of those of goneBlocks, part of Machine.sum
	goneRanges int    // of all lanes
	noteBytes  int64  // of the records' notes
	gen        uint32 // a purge drops all records by reference and begins a new generation
	keys       table[string, *keyChain]
	delayed    dueHeap
	expiries   expiryHeap

	deleted   bool
	consumers consumerOrder
	slots     int        // of its consumers
	waking    uint64     // the consumers from this ordinal on have yet to look at their leases, see wakeConsumers; 0: none
	hungry    hungryHeap // consumers that have room for a message
	timer     timer
	listed    bool // in Machine.busy
	fresh     bool // see Machine.freshen
}

func newQueue(number uint64, name string, settings QueueSettings) *queue {
	return &queue{
		number: number, name: name, revision: 1, settings: settings,
		records: newTable[place, *message](), keys: newTable[string, *keyChain](),
		timer: timer{kind: timerQueue, id: number, pos: -1, at: never},
	}
}

func (m *Machine) createQueue(c queueCreate, r *Result) Status {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st
	}
	if err := c.check(); err != nil {
		return StatusMalformed
	}
	r.Deletions = m.deletions
	want := c.settings.withDefaults()
	q := m.queuesByName[c.name]
	switch {
	case q != nil && q.settings != want:
		r.Queue = m.info(q)
		r.Conflict = q.settings.differences(want)
		return StatusConflict
	case q == nil && c.deletions < m.deletions:
		// The queue may have been there, and be deleted since.
		return StatusRevision
	case q == nil && len(m.queues) >= m.limits.QueuesMax:
		return StatusQueueCap
	case q == nil:
		m.nextQueue++
		q = newQueue(m.nextQueue, c.name, want)
		m.addQueue(q)
		m.dirty(q)
	}
	r.Queue = m.info(q)
	return StatusOK
}

func (m *Machine) addQueue(q *queue) {
	m.queues[q.number] = q
	m.queuesByName[q.name] = q
	m.queuesByNumber.ReplaceOrInsert(q)
	m.nameDeadLetters(q, true)
}

// deleteQueue is by number: a late copy cannot meet a queue that was created
// again under the name. A number that was given out and is gone is deleted
// already. A queue that another names for its dead letters goes only by force.
func (m *Machine) deleteQueue(c queueDelete, r *Result) Status {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st
	}
	q := m.queues[c.number]
	if q == nil {
		if c.number > m.nextQueue || c.number == 0 {
			return StatusNoQueue
		}
		return StatusOK
	}
	if user := m.deadLettersInto(q.name); user != "" && !c.force {
		r.Queue, r.Conflict = m.info(q), "it takes the dead letters of queue "+user
		return StatusConflict
	}
	r.Removed = q.counts.Here()
	r.Queue = m.info(q)
	m.dropAll(q)
	m.deletions++
	q.deleted = true
	m.forget(q)
	m.timers.set(&q.timer, never)
	delete(m.queues, q.number)
	delete(m.queuesByName, q.name)
	m.queuesByNumber.Delete(q)
	m.nameDeadLetters(q, false)
	if q.consumers.len() > 0 {
		m.beginEnding(q)
	}
	return StatusOK
}

// beginEnding keeps a deleted queue until its consumers are gone. Its timer is due
// at once and for all the time: it is in no table whose row could hold a moment.
func (m *Machine) beginEnding(q *queue) {
	m.ending[q.number] = q
	m.timers.set(&q.timer, 0)
}

// fireEnding removes consumers of a deleted queue.
func (m *Machine) fireEnding(q *queue, eff *Effects) {
	for c := q.consumers.first(); c != nil && m.spent < m.share; c = q.consumers.first() {
		m.fireDeleted(c, eff)
	}
}

// nameDeadLetters enters a queue among those whose dead letters go to the queue that
// its settings name, or takes it out.
func (m *Machine) nameDeadLetters(q *queue, enter bool) {
	name := q.settings.DeadLetter
	if name == "" {
		return
	}
	users := m.deadLetters[name]
	if users == nil {
		users = btree.NewG(8, func(a, b *queue) bool { return a.number < b.number })
		m.deadLetters[name] = users
	}
	if enter {
		users.ReplaceOrInsert(q)
	} else if users.Delete(q); users.Len() == 0 {
		delete(m.deadLetters, name)
	}
}

// deadLettersInto names a queue whose dead letters go to name, "" for none.
func (m *Machine) deadLettersInto(name string) string {
	if users := m.deadLetters[name]; users != nil {
		q, _ := users.Min()
		return q.name
	}
	return ""
}

// dropAll takes everything out of a queue, whatever its number, at once: heads
// jump, tables are dropped by reference. A lease on what was dropped is found
// lost when it is touched, at the latest by its consumer's timer.
func (m *Machine) dropAll(q *queue) {
	m.messages -= int64(q.counts.Here())
	n := &q.counts
	n.Purged += n.Here()
	n.Ready, n.Leased, n.Delayed, n.Parked = 0, 0, 0, 0
	for i, l := range q.lanes {
		if l == nil {
			continue
		}
		m.bodies.DeleteRange(q.number, l.number, 0, l.tail)
		fresh := newLane(l.number)
		fresh.head, fresh.tail, fresh.purgedBelow = l.tail, l.tail, l.tail
		q.lanes[i] = fresh
	}
	m.indexed -= len(q.records.rows)
	m.countGone(q, -q.goneRanges)
	m.noteBytes -= q.noteBytes
	q.noteBytes = 0
	m.leasePlain(q, -q.plainLeases)
	m.sum -= q.recordsSum
	q.recordsSum = 0
	q.gen++
	if m.copying != nil {
		m.copying.gens[q] = q.gen
	}
	q.records, q.keys = newTable[place, *message](), newTable[string, *keyChain]()
	q.delayed, q.expiries = nil, nil
	q.eligible, q.bytes = 0, 0
	m.timers.set(&q.timer, never)
	m.dirty(q)
}

// repeated says whether a command on a queue was run before, or must not run
// because the queue has changed since its sender looked.
func (q *queue) repeated(revision uint64, nonce Nonce) (again bool, st Status) {
	switch {
	case q.admin.nonce == nonce && q.revision == revision+1:
		return true, StatusOK
	case q.revision != revision:
		return false, StatusRevision
	}
	return false, StatusOK
}

func (q *queue) remember(nonce Nonce, removed uint64) {
	q.revision++
	q.admin.nonce, q.admin.removed = nonce, removed
}

// purgeQueue removes every message.
func (m *Machine) purgeQueue(c queuePurge, r *Result) Status {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st
	}
	q := m.queues[c.number]
	if q == nil {
		return StatusNoQueue
	}
	again, st := q.repeated(c.revision, c.nonce)
	if again {
		r.Removed = q.admin.removed
	} else if st == StatusOK {
		r.Removed = q.counts.Here()
		m.dropAll(q)
		m.wakeConsumers(q)
		q.remember(c.nonce, r.Removed)
	}
	r.Queue = m.info(q)
	return st
}

// updateQueue changes a queue's settings while it works. Leases that run keep
// their deadline, and records their expiry.
func (m *Machine) updateQueue(c queueUpdate, r *Result) Status {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st
	}
	q := m.queues[c.number]
	if q == nil {
		return StatusNoQueue
	}
	if c.settings.check(q.name) != "" {
		return StatusMalformed
	}
	again, st := q.repeated(c.revision, c.nonce)
	if !again && st == StatusOK {
		was := q.settings.LeaseTime
		m.nameDeadLetters(q, false)
		q.settings = c.settings.withDefaults()
		m.nameDeadLetters(q, true)
		q.remember(c.nonce, 0)
		if q.settings.LeaseTime != was {
			m.wakeConsumers(q) // a puller is gone after one lease time
		}
		m.freshen(q)
		m.retimeQueue(q)
		m.dirty(q)
	}
	r.Queue = m.info(q)
	return st
}

// pauseQueue stops or resumes handing out. Leases, delays and times to live go
// on.
func (m *Machine) pauseQueue(c queuePause, r *Result) Status {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st
	}
	q := m.queues[c.number]
	if q == nil {
		return StatusNoQueue
	}
	again, st := q.repeated(c.revision, c.nonce)
	if !again && st == StatusOK {
		q.paused = c.paused
		q.remember(c.nonce, 0)
		m.dirty(q)
		m.freshen(q)
	}
	r.Queue = m.info(q)
	return st
}

// wakeConsumers makes all consumers look, within the budget of timers, at what
// became of their leases.
func (m *Machine) wakeConsumers(q *queue) {
	q.waking = 0
	if first := q.consumers.first(); first != nil {
		q.waking = first.ordinal
	}
	m.retimeQueue(q)
	m.dirty(q)
}

// wakeSome wakes consumers as far as the budget goes.
func (m *Machine) wakeSome(q *queue) {
	for q.waking > 0 && m.spent < m.share {
		c := q.consumers.next(q.waking)
		if c == nil {
			q.waking = 0
			return
		}
		m.spent++
		q.waking = c.ordinal + 1
		m.timers.set(&c.timer, m.now)
		m.dirty(c)
	}
}

// room says whether the messages of one publish fit.
func (m *Machine) room(q *queue, count int, bytes uint64) Status {
	s := &q.settings
	if s.LengthMax != unlimited {
		held := q.counts.Ready + q.counts.Delayed + q.counts.Leased
		if held >= s.LengthMax || uint64(count) > s.LengthMax-held {
			return StatusQueueFull
		}
	}
	if s.BytesMax != unlimited && (q.bytes >= s.BytesMax || bytes > s.BytesMax-q.bytes) {
		return StatusQueueFull
	}
	return StatusOK
}

// prepare reads what Apply must know of the messages of one publish, and says
// whether the queue takes them. Nothing has changed after a refusal.
func (m *Machine) prepare(q *queue, messages [][]byte) ([]attributes, Status) {
	if q == nil {
		return nil, StatusNoQueue
	}
	as := m.attributes[:0]
	var r pack.Reader
	bytes, indexed := uint64(0), 0
	for _, b := range messages {
		a, err := readAttributes(&r, b)
		if err != nil || a.priority >= Priorities || a.priority != as0(as, a).priority {
			return nil, StatusMalformed
		}
		if !a.plain() {
			indexed++
		}
		bytes += uint64(len(b))
		as = append(as, a)
	}
	m.attributes = as
	if st := m.room(q, len(messages), bytes); st != StatusOK {
		return nil, st
	}
	if indexed > 0 && !m.mayIndex(indexed) {
		return nil, StatusIndexCap
	}
	return as, StatusOK
}

// as0 returns the first of a publish's messages, by which its lane is chosen.
func as0(as []attributes, otherwise attributes) attributes {
	if len(as) > 0 {
		return as[0]
	}
	return otherwise
}

// store appends messages that prepare has let through and returns the place of
// the first.
func (m *Machine) store(q *queue, as []attributes, messages [][]byte, wall int64) place {
	l := q.laneFor(as[0].priority)
	first := place{l.number, l.tail}
	for i, b := range messages {
		p := place{l.number, l.tail}
		m.bodies.Put(q.number, p.lane, p.offset, wall, b)
		l.tail++
		q.counts.Stored++
		m.messages++
		q.bytes += uint64(len(b))
		if a := &as[i]; a.plain() {
			from := p.offset
			if len(l.milestones) == 0 && m.version >= versionMilestoneAtHead {
				from = l.head // which may be behind, among records: the first milestone covers it
			}
			l.note(from, m.now, len(b))
			l.plain++
			q.eligible++
			q.counts.Ready++
		} else {
			m.storeIndexed(q, p, a, len(b), wall)
			l.passOwn(p.offset)
		}
	}
	m.skip(q, l)
	m.dirty(q)
	m.freshen(q)
	if q.settings.TTL > 0 || len(q.delayed) > 0 || len(q.expiries) > 0 {
		m.retimeQueue(q)
	}
	return first
}

func (m *Machine) storeIndexed(q *queue, p place, a *attributes, size int, wall int64) {
	msg := &message{place: p, size: uint32(size), stored: m.now, expires: q.expiry(m.now, a.ttl)}
	m.addRecord(q, msg)
	if len(a.key) > 0 {
		m.joinKey(q, msg, string(a.key))
	}
	if wait := a.wait(wall); wait > 0 {
		msg.due = m.now + Time(wait)
		m.setState(msg, stateDelayed)
		return
	}
	m.ready(msg)
}

// retimeQueue sets the queue's timer to the earliest moment that matters.
func (m *Machine) retimeQueue(q *queue) {
	at := q.due()
	if q.waking > 0 {
		at = min(at, m.now)
	}
	if at <= m.now && m.version >= versionTimersInTurn {
		at = min(q.timer.at, m.now) // it keeps its turn, or gets one now
	}
	if at != q.timer.at {
		m.timers.set(&q.timer, at)
		m.dirty(q)
	}
}

// due is when a message of the queue is to be looked at, by the clock alone.
func (q *queue) due() Time {
	at := never
	if len(q.delayed) > 0 {
		at = min(at, q.delayed[0].due)
	}
	if len(q.expiries) > 0 {
		at = min(at, q.expiries[0].expires)
	}
	if ttl := Time(q.settings.TTL); ttl > 0 {
		for _, l := range q.lanes {
			if l != nil && l.plain > 0 {
				at = min(at, l.milestones[0].stored+milestoneInterval+ttl)
			}
		}
	}
	return at
}

// fireQueue makes delayed messages ready whose time has come, and drops those
// that are too old.
func (m *Machine) fireQueue(q *queue) {
	m.dirty(q)
	m.wakeSome(q)
	for len(q.expiries) > 0 && q.expiries[0].expires <= m.now && m.spent < m.share {
		m.spent++
		msg := q.expiries[0]
		if msg.state == stateLeased || msg.state == stateParked {
			// Nobody takes it from its consumer; it is looked at when it comes back.
			heap.Pop(&q.expiries)
			m.dirty(msg)
			continue
		}
		m.leaveQueue(msg, &q.counts.Expired, true)
	}
	for len(q.delayed) > 0 && q.delayed[0].due <= m.now && m.spent < m.share {
		m.spent++
		m.ready(q.delayed[0])
	}
	for _, l := range q.lanes {
		if l != nil {
			m.sweep(q, l)
		}
	}
	m.retimeQueue(q)
}

// info returns what is known of a queue.
func (m *Machine) info(q *queue) QueueInfo {
	i := QueueInfo{
		Number: q.number, Name: q.name, Revision: q.revision, Paused: q.paused, Settings: q.settings,
		Counts: q.counts, Bytes: q.bytes, Consumers: uint64(q.consumers.len()),
	}
	oldest := never
	for _, l := range q.lanes {
		if l == nil {
			continue
		}
		if msg, ok := l.ready.Min(); ok {
			oldest = min(oldest, msg.stored)
		}
		if l.plain > 0 {
			oldest = min(oldest, l.milestones[0].stored)
		}
	}
	if oldest < m.now {
		i.OldestAge = time.Duration(m.now - oldest)
	}
	return i
}

// QueueByName returns what is known of a queue.
func (m *Machine) QueueByName(name string) (QueueInfo, bool) {
	q := m.queuesByName[name]
	if q == nil {
		return QueueInfo{}, false
	}
	return m.info(q), true
}

// QueuesFrom returns queues by number, from one on, at most limit. It visits no others.
func (m *Machine) QueuesFrom(number uint64, limit int) (found []QueueInfo) {
	m.queuesByNumber.AscendGreaterOrEqual(&queue{number: number}, func(q *queue) bool {
		if len(found) == limit {
			return false
		}
		found = append(found, m.info(q))
		return true
	})
	return found
}

// Queues returns all queues by name, for those who need not care for how long.
func (m *Machine) Queues() []QueueInfo {
	qs := make([]QueueInfo, 0, len(m.queues))
	for _, q := range m.queues {
		qs = append(qs, m.info(q))
	}
	slices.SortFunc(qs, func(a, b QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return qs
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	ks := make([]K, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
