package fsm

import (
	"cmp"
	"fmt"
)

// audit holds a machine's tables against each other. Apply keeps them in step by
// itself; those of a backup come from outside, and one that contradicts itself
// would stop every node when its turn comes. Consumers are gone by then.
func (m *Machine) audit() error {
	var messages int64
	var wrong error
	m.queuesByNumber.Ascend(func(q *queue) bool {
		if err := q.audit(); err != nil {
			wrong = fmt.Errorf("queue %q: %w", q.name, err)
		}
		messages += int64(q.counts.Here())
		return wrong == nil
	})
	switch {
	case wrong != nil:
		return wrong
	case messages != m.messages:
		return fmt.Errorf("%d messages in its queues, %d counted", messages, m.messages)
	case len(m.queuesByName) != len(m.queues):
		return fmt.Errorf("%d queues under %d names", len(m.queues), len(m.queuesByName))
	case m.leases != 0 || len(m.consumers) != 0:
		return fmt.Errorf("%d leases of %d consumers are left", m.leases, len(m.consumers))
	}
	return nil
}

func (q *queue) audit() error {
	if !validQueueName(q.name) {
		return fmt.Errorf("the name is not one")
	}
	if wrong := q.settings.check(q.name); wrong != "" {
		return fmt.Errorf("settings: %s", wrong)
	}
	have := q.counts
	have.Ready, have.Leased, have.Delayed, have.Parked = 0, 0, 0, 0
	var bytes uint64
	inRange := [Priorities]uint64{}
	// The first of the records that are wrong is told of: every replica gives the
	// same answer, whatever the order of its map.
	var wrong error
	var wrongAt place
	for at, msg := range q.records.rows {
		if err := msg.audit(); err != nil && (wrong == nil || cmp.Or(cmp.Compare(at.lane, wrongAt.lane), cmp.Compare(at.offset, wrongAt.offset)) < 0) {
			wrong, wrongAt = err, at
		}
		if msg.offset >= q.lanes[msg.lane].head {
			inRange[msg.lane]++
		}
		bytes += uint64(msg.size)
		switch msg.state {
		case stateReady, stateBlocked:
			have.Ready++
		case stateDelayed:
			have.Delayed++
		case stateParked:
			have.Parked++
		case stateLeased:
			have.Leased++
		}
	}
	if wrong != nil {
		return wrong
	}
	for i, l := range q.lanes {
		if l == nil {
			continue
		}
		if err := l.audit(inRange[i]); err != nil {
			return fmt.Errorf("lane %d: %w", i, err)
		}
		have.Ready += l.plain
		for _, ms := range l.milestones {
			bytes += ms.bytes
		}
	}
	switch {
	case have != q.counts:
		return fmt.Errorf("its tables hold %d messages, %d ready, its counts say %d, %d ready", have.Here(), have.Ready, q.counts.Here(), q.counts.Ready)
	case have.Leased != 0:
		return fmt.Errorf("%d leases belong to nobody", have.Leased)
	case q.counts.Stored != q.counts.Sum():
		return fmt.Errorf("%d messages stored, %d accounted for", q.counts.Stored, q.counts.Sum())
	case bytes != q.bytes:
		return fmt.Errorf("%d bytes in its tables, %d counted", bytes, q.bytes)
	}
	return nil
}

func (msg *message) audit() error {
	switch {
	case msg.offset >= msg.q.lanes[msg.lane].tail:
		return fmt.Errorf("a record at offset %d of lane %d, which ends at %d", msg.offset, msg.lane, msg.q.lanes[msg.lane].tail)
	case msg.key != nil && (msg.key.current == nil || (msg.state == stateBlocked) == (msg.key.current == msg)):
		return fmt.Errorf("ordering key %q has no message whose turn it is", msg.key.key)
	case msg.key == nil && msg.state == stateBlocked:
		return fmt.Errorf("a message at offset %d waits for nothing", msg.offset)
	}
	return nil
}

func (l *lane) audit(records uint64) error {
	switch {
	case l.head > l.tail || l.tail == never64:
		return fmt.Errorf("head %d, tail %d", l.head, l.tail)
	case l.tail-l.head != l.plain+records:
		return fmt.Errorf("%d places from %d to %d, %d messages and %d records", l.tail-l.head, l.head, l.tail, l.plain, records)
	case l.plain > 0 && (len(l.milestones) == 0 || l.milestones[0].first > l.head):
		return fmt.Errorf("the messages from %d on have no time", l.head)
	}
	for i := 1; i < len(l.milestones); i++ {
		if l.milestones[i].first <= l.milestones[i-1].first {
			return fmt.Errorf("the milestones are out of order at %d", l.milestones[i].first)
		}
	}
	return nil
}

const never64 = ^uint64(0)
