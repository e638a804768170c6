package fsm

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/btree"
)

// QueueSettings are what a queue's owner chose. Zero fields take the default.
type QueueSettings struct {
	LeaseTime time.Duration
	LengthMax uint64 // messages ready, delayed and leased; 0: no limit
}

// QueueCounts: at each index Stored is the sum of Ready, Leased, Delayed,
// Parked, Acked and Purged.
type QueueCounts struct {
	Stored, Ready, Leased, Delayed, Parked uint64
	Acked, Purged                          uint64
	Delivered                              uint64
	RedeliveredExpired                     uint64
	RedeliveredNacked                      uint64
	RedeliveredGone                        uint64
	RedeliveredLeft                        uint64
	DuplicatesRefused                      uint64
}

// Sum returns what Stored must be.
func (c QueueCounts) Sum() uint64 {
	return c.Ready + c.Leased + c.Delayed + c.Parked + c.Acked + c.Purged
}

// QueueInfo is what the machine knows of a queue. OldestAge is the cluster time
// since the oldest ready message was stored, to within a second.
type QueueInfo struct {
	Number    uint64
	Name      string
	Revision  uint64
	Settings  QueueSettings
	Counts    QueueCounts
	Consumers uint64
	OldestAge time.Duration
}

// queue is a named, ordered list of messages. What was never delivered is the
// range [lane.head, lane.tail), whatever its length; only messages that were
// delivered at least once and came back have records.
type queue struct {
	record
	number   uint64
	name     string
	revision uint64
	settings QueueSettings
	counts   QueueCounts
	lane     lane
	// purge remembers the newest purge, so that a repeat gets its answer.
	purge struct {
		nonce   Nonce
		removed uint64
	}

	deleted   bool
	consumers map[uint64]*consumer // by ordinal
	hungry    hungryHeap           // consumers that may be given a message
	delayed   delayedHeap
	timer     timer
	listed    bool // in Machine.busy
}

// lane is one priority's sequence of offsets.
type lane struct {
	head, tail uint64 // next offset to deliver for the first time; next to store
	// purgedBelow: a lease on a lower offset is lost. A purge is then O(1): it
	// moves this and touches no lease.
	purgedBelow uint64
	// returned holds what was delivered before and is ready again. Every offset
	// in it is below head, so it goes first.
	returned *btree.BTreeG[returned]
	// milestones are sparse notes of when offsets were stored, ascending; the
	// first covers head.
	milestones []milestone
}

// returned is a message that was delivered at least once and is not leased.
type returned struct {
	offset   uint64
	attempts uint32
	failures uint32
	stored   Time
}

type delayed struct {
	returned
	due Time
}

// milestone: offsets from first on, up to the next milestone, were stored at
// stored or within a second after it.
type milestone struct {
	first  uint64
	stored Time
}

func newLane() lane {
	return lane{returned: btree.NewG(16, func(a, b returned) bool { return a.offset < b.offset })}
}

func newQueue(number uint64, name string, settings QueueSettings) *queue {
	return &queue{
		number: number, name: name, revision: 1, settings: settings,
		lane: newLane(), consumers: map[uint64]*consumer{},
		timer: timer{kind: timerQueue, id: number, pos: -1},
	}
}

func (s QueueSettings) withDefaults() QueueSettings {
	if s.LeaseTime == 0 {
		s.LeaseTime = LeaseTimeDefault
	}
	return s
}

// differences names the settings in which two queues differ.
func (s QueueSettings) differences(want QueueSettings) string {
	var d []string
	if s.LeaseTime != want.LeaseTime {
		d = append(d, fmt.Sprintf("lease time is %v, not %v", s.LeaseTime, want.LeaseTime))
	}
	if s.LengthMax != want.LengthMax {
		d = append(d, fmt.Sprintf("length limit is %d, not %d", s.LengthMax, want.LengthMax))
	}
	return strings.Join(d, "; ")
}

func (m *Machine) createQueue(c queueCreate, r *Result) Status {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st
	}
	if err := c.check(); err != nil {
		return StatusMalformed
	}
	want := c.settings.withDefaults()
	q := m.queuesByName[c.name]
	switch {
	case q != nil && q.settings != want:
		r.Queue = m.info(q)
		r.Conflict = q.settings.differences(want)
		return StatusConflict
	case q == nil && len(m.queues) >= m.limits.QueuesMax:
		return StatusQueueCap
	case q == nil:
		m.nextQueue++
		q = newQueue(m.nextQueue, c.name, want)
		m.queues[q.number] = q
		m.queuesByName[q.name] = q
		m.dirty(q)
	}
	r.Queue = m.info(q)
	return StatusOK
}

// deleteQueue is by number: a late copy cannot meet a queue that was created
// again under the name. A number that was given out and is gone is deleted
// already.
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
	r.Removed = q.counts.Ready + q.counts.Leased + q.counts.Delayed + q.counts.Parked
	r.Queue = m.info(q)
	m.bodies.DeleteRange(q.number, 0, 0, q.lane.tail)
	m.messages -= int64(r.Removed)
	q.deleted = true
	m.forget(q)
	m.timers.set(&q.timer, never)
	delete(m.queues, q.number)
	delete(m.queuesByName, q.name)
	q.wakeConsumers(m)
	return StatusOK
}

// wakeConsumers makes all consumers look, within the budget of timers, at what
// became of their leases.
func (q *queue) wakeConsumers(m *Machine) {
	for _, ord := range sortedKeys(q.consumers) {
		m.timers.set(&q.consumers[ord].timer, m.now)
		m.dirty(q.consumers[ord])
	}
}

// purgeQueue removes every message, whatever their number, at once: heads jump,
// counters move, tables are dropped by reference. A lease on a purged message is
// found lost when it is touched, at the latest by its consumer's timer, which
// is due now.
func (m *Machine) purgeQueue(c queuePurge, r *Result) Status {
	if st := m.own(c.incarnation, c.group); st != StatusOK {
		return st
	}
	q := m.queues[c.number]
	if q == nil {
		return StatusNoQueue
	}
	if q.purge.nonce == c.nonce && q.revision == c.revision+1 {
		r.Removed = q.purge.removed
		r.Queue = m.info(q)
		return StatusOK
	}
	if q.revision != c.revision {
		r.Queue = m.info(q)
		return StatusRevision
	}
	n := &q.counts
	r.Removed = n.Ready + n.Leased + n.Delayed + n.Parked
	n.Purged += r.Removed
	n.Ready, n.Leased, n.Delayed, n.Parked = 0, 0, 0, 0
	m.messages -= int64(r.Removed)
	tail := q.lane.tail
	m.bodies.DeleteRange(q.number, 0, 0, tail)
	q.lane = newLane()
	q.lane.head, q.lane.tail, q.lane.purgedBelow = tail, tail, tail
	q.delayed = nil
	m.timers.set(&q.timer, never)
	q.revision++
	q.purge.nonce, q.purge.removed = c.nonce, r.Removed
	q.wakeConsumers(m)
	m.dirty(q)
	r.Queue = m.info(q)
	return StatusOK
}

// full says whether n more messages would exceed the length limit.
func (q *queue) full(n uint64) bool {
	if q.settings.LengthMax == queueLengthUnlimited {
		return false
	}
	held := q.counts.Ready + q.counts.Delayed + q.counts.Leased
	return held >= q.settings.LengthMax || n > q.settings.LengthMax-held
}

// store appends messages and returns the offset of the first.
func (m *Machine) store(q *queue, messages [][]byte, wall int64) uint64 {
	first := q.lane.tail
	q.lane.note(first, m.now)
	for i, b := range messages {
		m.bodies.Put(q.number, 0, first+uint64(i), wall, b)
	}
	n := uint64(len(messages))
	q.lane.tail += n
	q.counts.Stored += n
	q.counts.Ready += n
	m.messages += int64(n)
	m.dirty(q)
	m.wake(q)
	return first
}

func (l *lane) note(first uint64, now Time) {
	if n := len(l.milestones); n > 0 {
		last := l.milestones[n-1]
		if now-last.stored < milestoneInterval && first-last.first < milestoneMessagesMax {
			return
		}
	}
	l.milestones = append(l.milestones, milestone{first, now})
}

// takeNext removes the next message to deliver. The caller has seen that one is
// ready.
func (q *queue) takeNext() returned {
	if r, ok := q.lane.returned.DeleteMin(); ok {
		return r
	}
	l := &q.lane
	r := returned{offset: l.head, stored: l.storedAt(l.head)}
	l.head++
	if l.head == l.tail {
		l.milestones = l.milestones[:0]
	}
	return r
}

// storedAt returns the stored time of head, and drops the milestones that the
// head has passed.
func (l *lane) storedAt(offset uint64) Time {
	passed := 0
	for passed+1 < len(l.milestones) && l.milestones[passed+1].first <= offset {
		passed++
	}
	if passed > 0 {
		// Copied down, so that the array does not keep growing behind a slice.
		l.milestones = slices.Delete(l.milestones, 0, passed)
	}
	if len(l.milestones) == 0 {
		return 0
	}
	return l.milestones[0].stored
}

// giveBack makes a message that was delivered ready again, at once or after a
// delay. It keeps its place by offset.
func (m *Machine) giveBack(q *queue, r returned, delay time.Duration) {
	q.counts.Leased--
	if delay > 0 {
		q.counts.Delayed++
		heap.Push(&q.delayed, delayed{r, m.now + Time(delay)})
		m.timers.set(&q.timer, q.delayed[0].due)
	} else {
		q.counts.Ready++
		q.lane.returned.ReplaceOrInsert(r)
	}
	m.dirty(q)
	m.wake(q)
}

// fireQueue makes delayed messages ready whose time has come.
func (m *Machine) fireQueue(q *queue) {
	m.dirty(q)
	m.wake(q)
	for len(q.delayed) > 0 && q.delayed[0].due <= m.now {
		if m.spent >= m.limits.TimerBudget {
			return // the timer stays due
		}
		m.spent++
		d := heap.Pop(&q.delayed).(delayed)
		q.counts.Delayed--
		q.counts.Ready++
		q.lane.returned.ReplaceOrInsert(d.returned)
	}
	if len(q.delayed) == 0 {
		m.timers.set(&q.timer, never)
	} else {
		m.timers.set(&q.timer, q.delayed[0].due)
	}
}

// info returns what is known of a queue.
func (m *Machine) info(q *queue) QueueInfo {
	i := QueueInfo{
		Number: q.number, Name: q.name, Revision: q.revision, Settings: q.settings,
		Counts: q.counts, Consumers: uint64(len(q.consumers)),
	}
	if q.counts.Ready > 0 {
		oldest := never
		if r, ok := q.lane.returned.Min(); ok {
			oldest = r.stored
		} else if len(q.lane.milestones) > 0 {
			oldest = q.lane.milestones[0].stored
		}
		if oldest < m.now {
			i.OldestAge = time.Duration(m.now - oldest)
		}
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

// Queues returns all queues by name.
func (m *Machine) Queues() []QueueInfo {
	qs := make([]QueueInfo, 0, len(m.queues))
	for _, q := range m.queues {
		qs = append(qs, m.info(q))
	}
	slices.SortFunc(qs, func(a, b QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return qs
}

type delayedHeap []delayed

func (h delayedHeap) Len() int { return len(h) }
func (h delayedHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return h[i].offset < h[j].offset
}
func (h delayedHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *delayedHeap) Push(x any)   { *h = append(*h, x.(delayed)) }
func (h *delayedHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	*h = old[:len(old)-1]
	return d
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	ks := make([]K, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
