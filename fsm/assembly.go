package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// assembly is the machine that a backup describes, in the making. Its tables come in
// chunks that end anywhere, and Apply builds with each chunk what has become whole,
// so that nothing is left for the end but what depends on its moment. What is read
// is made at once what it is to be in the next life: sessions are closed, leases
// given back, queues numbered anew.
//
// What is wrong with the tables, if only that a step over them fails, is kept and
// told in the end, as a refusal that is the same on every replica.
type assembly struct {
	m        *Machine
	from     origins
	rest     []byte // of a section that is not whole yet
	at       int64
	begun    bool
	sections uint64
	done     bool // with the end section
	err      error
	doubt    error // which counts from a version on, see audit
}

// newAssembly begins one for the machine m, whose queues get numbers above base.
// Whether m knows the version of the backup is judged in the end, by the version
// that counts then.
func newAssembly(m *Machine, base uint64) *assembly {
	return &assembly{
		m:    New(Config{Group: m.group, Limits: m.limits, Version: math.MaxUint32}, nowhere{}),
		from: origins{backup: true, base: base},
	}
}

// take takes a chunk, which must not change any more.
func (a *assembly) take(chunk []byte) {
	defer func() {
		if p := recover(); p != nil {
			a.err = errors.New("the tables of the backup contradict themselves")
		}
	}()
	b := chunk
	if len(a.rest) > 0 {
		a.rest = append(a.rest, chunk...)
		b = a.rest
	}
	unread := len(b)
	for !a.done && a.err == nil {
		n := a.step(b)
		if n == 0 {
			break
		}
		b, a.at = b[n:], a.at+int64(n)
	}
	switch {
	case a.done || a.err != nil:
		a.rest = nil // what follows the end does not count
	case len(b) < unread || len(a.rest) == 0:
		a.rest = append([]byte(nil), b...)
	}
}

// step reads the header or a section, and returns how many bytes that took; 0: it is
// not whole, or bad.
func (a *assembly) step(b []byte) int {
	if !a.begun {
		if len(b) < snapshotHeadBytes {
			return 0
		}
		a.begun, a.err = true, a.m.checkHead(b[:snapshotHeadBytes])
		return snapshotHeadBytes
	}
	if len(b) < sectionHeaderBytes {
		return 0
	}
	kind, length := b[0], binary.BigEndian.Uint32(b[1:])
	if length > sectionBytesMax {
		a.fail("length %d is above %d", length, sectionBytesMax)
		return 0
	}
	n := sectionHeaderBytes + int(length)
	if len(b) < n {
		return 0
	}
	payload := b[sectionHeaderBytes:n:n]
	switch {
	case sectionSum(b[:5], payload) != binary.BigEndian.Uint32(b[5:]):
		a.fail("checksum mismatch")
		return 0
	case (kind == sectionScalars) != (a.sections == 0):
		a.fail("a section of kind %d there", kind)
		return 0
	}
	done, err := a.m.restoreSection(kind, payload, a.sections, &a.from)
	if err != nil {
		a.fail("kind %d: %w", kind, err)
		return 0
	}
	a.sections++
	if a.done = done; done {
		a.finish()
	}
	return n
}

func (a *assembly) fail(format string, args ...any) {
	a.err = fmt.Errorf("%w: section %d at byte %d: %w", ErrBadSnapshot, a.sections, a.at, fmt.Errorf(format, args...))
}

// finish looks whether the tables make a whole.
func (a *assembly) finish() {
	a.m.dropStaging() // of its own
	a.m.wakeAll()
	if a.err, a.doubt = a.m.audit(); a.from.doubt != nil {
		a.doubt = a.from.doubt
	}
}

// whole returns the machine of a backup that has come, as it is to go on in m. The
// backup can do that once.
func (s *staging) whole(m *Machine) (*Machine, error) {
	a := s.fresh
	switch {
	case a == nil:
		return nil, fmt.Errorf("%w: no tables", ErrBadSnapshot)
	case a.err != nil:
		return nil, a.err
	case !a.done:
		return nil, fmt.Errorf("%w: section %d at byte %d: the tables were cut short", ErrBadSnapshot, a.sections, a.at)
	}
	fresh := a.m
	switch {
	case fresh.version > m.version:
		return nil, fmt.Errorf(versionUnknown, fresh.version, m.version)
	case fresh.incarnation != s.from.Incarnation:
		return nil, fmt.Errorf("its tables are of incarnation %016x, its header of %016x", fresh.incarnation, s.from.Incarnation)
	case fresh.nextQueue > s.queues:
		return nil, fmt.Errorf("its queues go to number %d, its header to %d", fresh.nextQueue, s.queues)
	case fresh.messages != int64(s.bodies):
		return nil, fmt.Errorf("%d messages, and %d bodies", fresh.messages, s.bodies)
	case a.doubt != nil && m.version >= versionRestoreDoubts:
		return nil, a.doubt
	}
	fresh.shift(m.now - fresh.now)
	return fresh, nil
}

// closeForGood closes a session for new sequences. Its name is free for a session of
// the new life. An unnamed one expires as if it had just been used: what its
// producer still sends comes now.
func (m *Machine) closeForGood(s *session, expires *Time) {
	if !s.restored() {
		s.incarnation = m.incarnation
	}
	s.lastActive = m.now
	if !s.named {
		*expires = m.now + Time(SessionExpiry)
	}
}

// giveBack returns a consumer's leases and forgets it: it cannot be here. Nobody
// knows how far its handlers came, so the attempt counts and a failure it is not.
// What is too old by now goes when timers fire.
func (m *Machine) giveBack(c *consumer) {
	for i := range c.slots {
		s := &c.slots[i]
		if m.resolve(c, c.done+uint64(i)) || s.state != LeaseHeld {
			continue
		}
		msg := m.recordOf(c, s)
		m.drop(c, s, LeaseReturned)
		s.msg = nil
		c.queue.counts.RedeliveredGone++
		m.expireAt(msg, msg.expires)
		m.ready(msg)
		m.retimeQueue(c.queue)
	}
	m.removeConsumer(c)
}

// shift moves all moments into another time, so that what remained of a delay
// remains, and ages stay.
func (m *Machine) shift(by Time) {
	move := func(t *Time) {
		if *t != never {
			*t += by
		}
	}
	// The timers all alike, so that their heap stays one; by number, in which they lie
	// in memory.
	m.sessionsByNumber.Ascend(func(s *session) bool {
		move(&s.timer.at)
		move(&s.lastActive)
		return true
	})
	m.queuesByNumber.Ascend(func(q *queue) bool {
		move(&q.timer.at)
		for _, l := range q.lanes {
			if l == nil {
				continue
			}
			for i := range l.milestones {
				move(&l.milestones[i].stored)
			}
			l.closed = l.sumClosed()
		}
		for _, msg := range q.records.rows {
			move(&msg.stored)
			move(&msg.due)
			move(&msg.expires)
			if msg.notes == nil {
				continue
			}
			move(&msg.notes.origin.stored)
			for i := range msg.notes.events {
				move(&msg.notes.events[i].at)
			}
		}
		return true
	})
	m.now += by
}
