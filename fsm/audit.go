package fsm

import (
	"cmp"
	"fmt"
)

// audit holds a machine's tables against each other. Apply keeps them in step by
// itself; those of a backup come from outside, and one that contradicts itself
// would stop every node when its turn comes. Consumers are gone by then.
//
// A doubt is what is looked for since versionRestoreDoubts. It is told beside what is
// wrong in any version, since the tables are looked at before it is known which version
// counts.
func (m *Machine) audit() (wrong, doubt error) {
	var messages int64
	records := 0
	m.queuesByNumber.Ascend(func(q *queue) bool {
		w, d := q.audit(uint64(m.messages), m.now)
		if w != nil {
			wrong = fmt.Errorf("queue %q: %w", q.name, w)
		}
		if d != nil && doubt == nil {
			doubt = fmt.Errorf("queue %q: %w", q.name, d)
		}
		messages += int64(q.counts.Here())
		records += len(q.records.rows)
		return wrong == nil
	})
	switch {
	case wrong != nil:
	case messages != m.messages:
		wrong = fmt.Errorf("%d messages in its queues, %d counted", messages, m.messages)
	case len(m.queuesByName) != len(m.queues):
		wrong = fmt.Errorf("%d queues under %d names", len(m.queues), len(m.queuesByName))
	case m.leases != 0 || len(m.consumers) != 0:
		wrong = fmt.Errorf("%d leases of %d consumers are left", m.leases, len(m.consumers))
	case doubt != nil:
	case records != m.indexed || m.plainLeases != 0:
		doubt = fmt.Errorf("%d records in its queues, %d counted, and %d leases without one", records, m.indexed, m.plainLeases)
	case m.now == never || !credible(m.now):
		doubt = fmt.Errorf("its time is %d", m.now)
	case max(m.nextSession, m.nextConsumer, m.deletions, m.lastEpoch) > numberMax:
		doubt = fmt.Errorf("it counts %d sessions, %d consumers, %d deletions and %d epochs", m.nextSession, m.nextConsumer, m.deletions, m.lastEpoch)
	}
	return wrong, doubt
}

// numberMax and momentMax bound what a backup may say of numbers and moments, so that
// what follows them is greater than they are.
const (
	numberMax = 1 << 60
	momentMax = Time(1 << 60)
)

func credible(t Time) bool { return t == never || -momentMax <= t && t <= momentMax }

// firstRecord keeps the first of the records that something is said of: every replica
// gives the same answer, whatever the order of its map.
type firstRecord struct {
	said error
	at   place
}

func (f *firstRecord) say(err error, at place) {
	if err != nil && (f.said == nil || cmp.Or(cmp.Compare(at.lane, f.at.lane), cmp.Compare(at.offset, f.at.offset)) < 0) {
		f.said, f.at = err, at
	}
}

// audit is told how many messages there are at most.
func (q *queue) audit(messages uint64, now Time) (wrong, doubt error) {
	if !validQueueName(q.name) {
		return fmt.Errorf("the name is not one"), nil
	}
	if wrong := q.settings.check(q.name); wrong != "" {
		return fmt.Errorf("settings: %s", wrong), nil
	}
	have := q.counts
	have.Ready, have.Leased, have.Delayed, have.Parked = 0, 0, 0, 0
	var bytes uint64
	inRange := [Priorities]uint64{}
	var wrongs, doubts firstRecord
	keyed := 0
	for at, msg := range q.records.rows {
		wrongs.say(msg.audit(), at)
		doubts.say(msg.doubt(), at)
		if msg.key != nil {
			keyed++
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
	if wrongs.said != nil {
		return wrongs.said, nil
	}
	doubt = doubts.said
	eligible := uint64(0)
	for i, l := range q.lanes {
		if l == nil {
			continue
		}
		gone, err := l.auditGone()
		if err == nil {
			err = l.audit(inRange[i] + gone)
		}
		if err != nil {
			return fmt.Errorf("lane %d: %w", i, err), nil
		}
		if err := l.doubt(messages); err != nil && doubt == nil {
			doubt = fmt.Errorf("lane %d: %w", i, err)
		}
		have.Ready += l.plain
		eligible += l.plain + uint64(l.ready.Len())
		for _, ms := range l.milestones {
			bytes += ms.bytes
		}
	}
	inKeys := 0
	for _, k := range q.keys.rows {
		if inKeys++; k.waiting != nil {
			inKeys += k.waiting.Len()
		}
	}
	switch {
	case have != q.counts:
		return fmt.Errorf("its tables hold %d messages, %d ready, its counts say %d, %d ready", have.Here(), have.Ready, q.counts.Here(), q.counts.Ready), nil
	case have.Leased != 0:
		return fmt.Errorf("%d leases belong to nobody", have.Leased), nil
	case q.counts.Stored != q.counts.Sum():
		return fmt.Errorf("%d messages stored, %d accounted for", q.counts.Stored, q.counts.Sum()), nil
	case bytes != q.bytes:
		return fmt.Errorf("%d bytes in its tables, %d counted", bytes, q.bytes), nil
	case doubt != nil:
	case eligible != q.eligible:
		doubt = fmt.Errorf("%d messages may be handed out, %d counted", eligible, q.eligible)
	case inKeys != keyed:
		doubt = fmt.Errorf("%d messages have an ordering key, and %d have their turn or wait for it", keyed, inKeys)
	case !credible(q.timer.at):
		doubt = fmt.Errorf("it has something to do at %d", q.timer.at)
	case q.timer.at > max(q.due(), now): // what is overdue has its turn, in the next entry
		doubt = fmt.Errorf("it has something to do at %d, and its timer is at %d", q.due(), q.timer.at)
	}
	return nil, doubt
}

func (msg *message) audit() error {
	switch {
	case msg.offset >= msg.q.lanes[msg.lane].tail:
		return fmt.Errorf("a record at offset %d of lane %d, which ends at %d", msg.offset, msg.lane, msg.q.lanes[msg.lane].tail)
	case msg.q.lanes[msg.lane].isGone(msg.offset):
		return fmt.Errorf("a record at offset %d of lane %d, where all is gone", msg.offset, msg.lane)
	case msg.key != nil && (msg.key.current == nil || (msg.state == stateBlocked) == (msg.key.current == msg)):
		return fmt.Errorf("ordering key %q has no message whose turn it is", msg.key.key)
	case msg.key == nil && msg.state == stateBlocked:
		return fmt.Errorf("a message at offset %d waits for nothing", msg.offset)
	}
	return nil
}

func (msg *message) doubt() error {
	rests := msg.state == stateParked || msg.state == stateGone
	noted := msg.notes != nil && msg.notes.key != ""
	wrong := ""
	switch {
	case msg.state == stateParked && msg.notes == nil:
		wrong = "parked for no reason"
	case msg.key != nil && (rests || noted):
		wrong = "in the way of those of its ordering key"
	case msg.lane != 0 && (msg.key != nil || noted):
		wrong = "with a priority and an ordering key"
	case msg.state == stateGone && msg.expiryPos >= 0:
		wrong = "gone, and to go once more"
	case msg.offset < msg.q.lanes[msg.lane].purgedBelow:
		wrong = "purged"
	case !credible(msg.stored) || !credible(msg.due) || !credible(msg.expires),
		msg.stored == never, msg.due == never && msg.state == stateDelayed:
		wrong = "of no time"
	default:
		return nil
	}
	return fmt.Errorf("the message at lane %d offset %d is %s", msg.lane, msg.offset, wrong)
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

func (l *lane) doubt(messages uint64) error {
	switch {
	case l.plain > messages:
		return fmt.Errorf("%d messages of %d", l.plain, messages)
	case l.tail > numberMax || l.purgedBelow > l.head:
		return fmt.Errorf("head %d, tail %d, purged below %d", l.head, l.tail, l.purgedBelow)
	}
	for _, ms := range l.milestones {
		if ms.first >= l.tail || !credible(ms.stored) || ms.stored == never {
			return fmt.Errorf("messages from %d on were stored at %d, and it ends at %d", ms.first, ms.stored, l.tail)
		}
	}
	return nil
}

const never64 = ^uint64(0)
