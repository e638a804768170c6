package fsm

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"onceq/transport/wire/pack"
)

// Rows returns the encoded rows of all tables by name, to see where two
// machines differ.
func Rows(m *Machine) map[string]string {
	rows := map[string]string{}
	add := func(name string, write func(w *pack.Writer)) {
		var w pack.Writer
		write(&w)
		rows[name] = fmt.Sprintf("%x", w.Bytes())
	}
	add("scalars", m.appendScalars)
	for n, s := range m.sessions.rows {
		add(fmt.Sprintf("session %d", n), s.appendRow)
	}
	for n, q := range m.queues {
		add(fmt.Sprintf("queue %d", n), q.appendRow)
		for p, msg := range q.records.rows {
			add(fmt.Sprintf("message %d/%d.%d", n, p.lane, p.offset), msg.appendRow)
		}
	}
	for c := range m.consumersByOrdinal.each {
		add(fmt.Sprintf("consumer %d", c.ordinal), c.appendRow)
	}
	return rows
}

// Unsummed is how many rows the next digest has to sum.
func Unsummed(m *Machine) int { return len(m.changed) }

// DigestRowsMax is digestRowsMax.
const DigestRowsMax = digestRowsMax

// DigestRowLen is how much a digest hashes of a queue.
func DigestRowLen(m *Machine, queue string) int {
	var w pack.Writer
	m.queuesByName[queue].appendDigest(&w)
	return w.Len()
}

// DifferentRows names the rows in which two machines differ.
func DifferentRows(a, b *Machine) (names []string) {
	ra, rb := Rows(a), Rows(b)
	for n := range ra {
		if ra[n] != rb[n] {
			names = append(names, fmt.Sprintf("%s\n%s\n%s", n, ra[n], rb[n]))
		}
	}
	for n := range rb {
		if ra[n] == "" {
			names = append(names, n+" missing")
		}
	}
	return names
}

// Backoff is QueueSettings.backoff for the model.
func Backoff(s QueueSettings, queue uint64, lane uint8, offset uint64, failures uint32) time.Duration {
	return s.backoff(queue, place{lane, offset}, failures)
}

// StaleRows names rows that changed without being noted as changed, and whether
// the sum has something that is in no table.
func StaleRows(m *Machine) (names []string) {
	sum := uint64(0)
	check := func(name string, r row) {
		rec := r.rec()
		sum += rec.hash
		var w pack.Writer
		r.appendDigest(&w)
		if !rec.changed && rec.hash != xxhash.Sum64(w.Bytes()) {
			names = append(names, name)
		}
	}
	for n, s := range m.sessions.rows {
		check(fmt.Sprintf("session %d", n), s)
	}
	for n, q := range m.queues {
		check(fmt.Sprintf("queue %d", n), q)
		for p, msg := range q.records.rows {
			check(fmt.Sprintf("message %d/%d.%d", n, p.lane, p.offset), msg)
		}
	}
	for c := range m.consumersByOrdinal.each {
		check(fmt.Sprintf("consumer %d", c.ordinal), c)
	}
	if len(m.changed) == 0 && sum != m.sum {
		names = append(names, "sum")
	}
	return names
}

// Audit holds a machine's tables against each other.
func Audit(m *Machine) error { return m.audit() }

// Spoil makes every record of a machine contradict itself.
func Spoil(m *Machine) {
	for _, q := range m.queues {
		for _, msg := range q.records.rows {
			msg.state = stateBlocked
		}
	}
}

// TablesOf joins the parts of a backup's tables.
func TablesOf(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Resum gives every section of tables the checksum that it should have, as far
// as there are sections.
func Resum(tables []byte) []byte {
	at := len(snapshotMagic) + 6
	for at+sectionHeaderBytes <= len(tables) {
		n := int(binary.BigEndian.Uint32(tables[at+1:]))
		if n > len(tables)-at-sectionHeaderBytes {
			break
		}
		payload := tables[at+sectionHeaderBytes:]
		binary.BigEndian.PutUint32(tables[at+5:], sectionSum(tables[at:at+5], payload[:n]))
		at += sectionHeaderBytes + n
	}
	return tables
}

// Visited is how many rows the newest step of a look has visited.
func Visited(l *Look) int { return l.visited }

// ConsumersVisited and SessionsVisited are Consumers and Sessions with the number of
// rows that they have visited.
func ConsumersVisited(m *Machine, queue string, from uint64, limit int) ([]ConsumerInfo, uint64, int) {
	return m.listConsumers(queue, from, limit)
}

func SessionsVisited(m *Machine, from uint64, limit int) ([]SessionInfo, int) {
	return m.listSessions(from, limit)
}

// WrongSums names the sums over the tables that are not what the tables add up to, and
// the caps that were passed.
func WrongSums(m *Machine) (names []string) {
	var slots, leases, plain, records, outcomes int
	var bytes int64
	perQueue := map[*queue]int{}
	for c := range m.consumersByOrdinal.each {
		slots += len(c.slots)
		perQueue[c.queue] += len(c.slots)
		for i := range c.slots {
			if s := &c.slots[i]; s.state == LeaseHeld {
				leases++
				if !c.queue.deleted && s.msg == nil && c.queue.holds(s) {
					plain++
				}
			}
		}
	}
	closed, slotsOfQueues := true, true
	for _, q := range m.queues {
		records += len(q.records.rows)
		slotsOfQueues = slotsOfQueues && q.slots == perQueue[q]
		for _, l := range q.lanes {
			closed = closed && (l == nil || l.closed == l.sumClosed())
		}
	}
	for _, s := range m.sessions.rows {
		outcomes += len(s.outcomes)
		bytes += int64(SessionBytes + len(s.name) + len(s.label))
		for _, o := range s.outcomes {
			bytes += int64(o.bytes())
		}
	}
	l := m.limits
	for name, wrong := range map[string]bool{
		"slots": slots != m.slots, "leases": leases != m.leases, "leases of plain messages": plain != m.plainLeases,
		"records": records != m.indexed, "closed milestones": !closed, "slots of queues": !slotsOfQueues, "outcomes": outcomes != m.outcomes, "session bytes": bytes != m.sessionBytes,
		"the cap of leases": slots > l.LeasesMax, "the cap of records": records > l.IndexedMax+l.ReturnsMax || records+plain > l.IndexedMax+l.ReturnsMax,
		"the cap of outcomes": outcomes > l.OutcomesMax+l.SealsMax+len(m.sessions.rows), "the cap of sessions": len(m.sessions.rows) > l.SessionsMax,
		"the cap of consumers": len(m.consumers) > l.ConsumersMax, "the cap of queues": len(m.queues) > l.QueuesMax,
	} {
		if wrong {
			names = append(names, name)
		}
	}
	return names
}

// Room is for how many sessions, and for how many records and keys of a queue, the
// tables have room.
func Room(m *Machine, queue uint64) (sessions, records, keys int) {
	q := m.queues[queue]
	return m.sessions.room(), q.records.room(), q.keys.room()
}

func (t *table[K, V]) room() int { return max(t.most, len(t.rows)) }
