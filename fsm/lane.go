package fsm

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	"github.com/google/btree"
)

// lane is one priority's sequence of offsets. What was never delivered and has
// no record is the range [head, tail) without the places of records and of what is
// gone, whatever its length: a backlog costs no memory.
type lane struct {
	number     uint8
	head, tail uint64
	plain      uint64 // messages in the range that have no record
	// purgedBelow: a lease on a lower offset is lost. A purge moves this and
	// touches no lease.
	purgedBelow uint64
	// restoredBelow: lower offsets were stored before a restore.
	restoredBelow uint64
	ready         *btree.BTreeG[*message]    // with a record, and free to go
	gone          *btree.BTreeG[goneBlockAt] // places from head on where nothing is left, see goneBlock; nil: never any
	lags          bool                       // the head stands on a record or on what is gone, since the budget for passing them is spent
	// milestones are sparse notes of when plain messages were stored, and of
	// their bytes, ascending; the first covers head.
	milestones []milestone
	// closed is the sum of the hashes of all milestones but the last, which do not
	// change any more. A digest takes it in their place: a long backlog has many.
	closed uint64
}

// milestone: plain messages from first on, up to the next milestone, were stored
// at stored or within a second after it, and have so many bytes together.
type milestone struct {
	first  uint64
	stored Time
	bytes  uint64
}

func (ms milestone) hash() uint64 {
	var b [24]byte
	binary.BigEndian.PutUint64(b[0:], ms.first)
	binary.BigEndian.PutUint64(b[8:], uint64(ms.stored))
	binary.BigEndian.PutUint64(b[16:], ms.bytes)
	return xxhash.Sum64(b[:])
}

func newLane(number uint8) *lane {
	return &lane{number: number, ready: btree.NewG(16, func(a, b *message) bool { return a.offset < b.offset })}
}

// laneFor returns a lane, making it when it is used first.
func (q *queue) laneFor(number uint8) *lane {
	if q.lanes[number] == nil {
		q.lanes[number] = newLane(number)
	}
	return q.lanes[number]
}

// note adds a plain message to the milestones.
func (l *lane) note(offset uint64, now Time, size int) {
	if n := len(l.milestones); n > 0 {
		last := &l.milestones[n-1]
		if now-last.stored < milestoneInterval && offset-last.first < milestoneMessagesMax {
			last.bytes += uint64(size)
			return
		}
		l.closed += last.hash()
	}
	l.milestones = append(l.milestones, milestone{offset, now, uint64(size)})
}

// passOwn moves the head over a message with a record that was just added in front of
// it.
func (l *lane) passOwn(offset uint64) {
	if l.head == offset {
		l.head++
	}
}

// skip moves the head over what has a record or is gone, and over all of the range when
// nothing plain is in it. What is gone is forgotten on the way. Where
// there are more than an entry may pass it goes on in the next one, and from a lane
// that lags nothing is taken that the head has not passed.
func (m *Machine) skip(q *queue, l *lane) {
	l.lags = false
	for l.head < l.tail && (len(q.records.rows) > 0 || l.anyGone()) {
		msg := q.records.rows[place{l.number, l.head}]
		if msg == nil && !l.headIsGone() {
			break
		}
		if m.passed >= m.limits.PassBudget {
			l.lags = true
			m.wake(q)
			break
		}
		m.passed++
		m.dirty(q)
		if msg == nil {
			m.passGone(l)
			continue
		}
		l.head++
		if msg.state == stateGone {
			m.unindex(msg)
		}
	}
	m.passMilestones(q, l)
}

// passMilestones drops the milestones that the head has passed and gives their
// bytes back.
func (m *Machine) passMilestones(q *queue, l *lane) {
	passed := 0
	if l.plain == 0 {
		passed = len(l.milestones)
	} else {
		for passed+1 < len(l.milestones) && l.milestones[passed+1].first <= l.head {
			passed++
		}
	}
	if passed == 0 {
		return
	}
	for i, ms := range l.milestones[:passed] {
		q.bytes -= ms.bytes
		if i < len(l.milestones)-1 {
			l.closed -= ms.hash()
		}
	}
	// append moves the rest to a new array in time; copied down here, a long row of
	// them would be moved again and again.
	if l.milestones = l.milestones[passed:]; len(l.milestones) == 0 {
		l.milestones = nil
	}
}

// sumClosed adds up the milestones anew.
func (l *lane) sumClosed() (sum uint64) {
	for _, ms := range l.milestones[:max(0, len(l.milestones)-1)] {
		sum += ms.hash()
	}
	return sum
}

// catchUp lets the heads pass what an earlier entry has left, and says whether they
// have.
func (m *Machine) catchUp(q *queue) bool {
	all := true
	for _, l := range q.lanes {
		if l != nil && l.lags {
			m.skip(q, l)
			all = all && !l.lags
		}
	}
	return all
}

// next returns the lane whose turn it is: the highest priority that has
// something to deliver. nil for none.
func (q *queue) next() *lane {
	for i := len(q.lanes) - 1; i >= 0; i-- {
		if l := q.lanes[i]; l != nil && (l.plain > 0 || l.ready.Len() > 0) {
			return l
		}
	}
	return nil
}

// stuck says that the oldest message that may go is one that the head has not reached.
func (l *lane) stuck() bool {
	oldest, ok := l.ready.Min()
	return l.lags && !(ok && oldest.offset < l.head)
}

// nextIsPlain says whether the oldest message of a lane that may go is a plain one.
func (l *lane) nextIsPlain() bool {
	oldest, ok := l.ready.Min()
	return l.plain > 0 && !(ok && oldest.offset < l.head)
}

// take removes the oldest message of a lane that may go. msg is nil for a plain
// one.
func (m *Machine) take(q *queue, l *lane) (msg *message, p place, stored Time) {
	if !l.nextIsPlain() {
		oldest, _ := l.ready.Min()
		m.setState(oldest, stateLeased)
		return oldest, oldest.place, oldest.stored
	}
	// The head stands on a plain message: skip has seen to it.
	p = place{l.number, l.head}
	stored = l.milestones[0].stored
	l.head++
	l.plain--
	q.eligible--
	q.counts.Ready--
	q.counts.Leased++
	m.leasePlain(q, 1)
	m.dirty(q)
	m.skip(q, l)
	return nil, p, stored
}

// dropPlain takes a plain message out of the range. It says whether there was one.
func (m *Machine) dropPlain(q *queue, p place) bool {
	l := q.lanes[p.lane]
	if l == nil || p.offset < l.head || p.offset >= l.tail || q.records.rows[p] != nil || l.isGone(p.offset) {
		return false
	}
	l.plain--
	q.eligible--
	q.counts.Ready--
	if m.version < versionGoneRanges {
		m.addRecord(q, &message{place: p, state: stateGone, expires: never})
	} else {
		m.leaveGone(q, l, p.offset)
	}
	m.dirty(q)
	m.skip(q, l)
	return true
}

// sweep drops the plain messages that are older than the queue's time to live,
// a milestone at a time: none before its time, all within a second after it.
func (m *Machine) sweep(q *queue, l *lane) {
	ttl := Time(q.settings.TTL)
	for ttl > 0 && l.plain > 0 && m.spent < m.share {
		if l.milestones[0].stored+milestoneInterval+ttl > m.now {
			return
		}
		end := l.tail
		if len(l.milestones) > 1 {
			end = l.milestones[1].first
		}
		from := l.head
		for l.head < end && m.spent < m.share {
			m.spent++
			if m.passGone(l) {
				continue
			}
			switch msg := q.records.rows[place{l.number, l.head}]; {
			case msg == nil:
				m.bodies.Delete(q.number, l.number, l.head)
				l.plain--
				q.eligible--
				q.counts.Ready--
				q.counts.Expired++
				m.messages--
			case msg.state == stateGone:
				m.unindex(msg)
			}
			l.head++
		}
		if l.head != from {
			m.dirty(q)
		}
		m.skip(q, l)
	}
}
