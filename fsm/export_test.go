package fsm

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

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
		q.eachGone(func(b *goneBlock) bool {
			add(fmt.Sprintf("gone %d/%d.%d", n, b.lane, b.number), b.appendRow)
			return true
		})
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
		q.eachGone(func(b *goneBlock) bool {
			check(fmt.Sprintf("gone %d/%d.%d", n, b.lane, b.number), b)
			return true
		})
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
func Audit(m *Machine) error {
	wrong, doubt := m.audit()
	if wrong != nil {
		return wrong
	}
	return doubt
}

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

// FirstTwice lets the first row of tables' sections of a kind stand twice, with the
// checksums that belong to it.
func FirstTwice(tables []byte, kind byte) []byte {
	at := len(snapshotMagic) + 6
	for tables[at] != kind {
		at += sectionHeaderBytes + int(binary.BigEndian.Uint32(tables[at+1:]))
	}
	rows := tables[at+sectionHeaderBytes:]
	row := rows[:4+binary.BigEndian.Uint32(rows)]
	all := append(append(append([]byte(nil), tables[:at+sectionHeaderBytes]...), row...), rows...)
	binary.BigEndian.PutUint32(all[at+1:], binary.BigEndian.Uint32(tables[at+1:])+uint32(len(row)))
	return Resum(all)
}

// The kinds of sections whose rows a backup may bring twice.
const (
	SectionSessions = sectionSessions
	SectionQueues   = sectionQueues
	SectionMessages = sectionMessages
)

// Doubts are ways to spoil a machine that has, in queue 2, a message in each state
// and a milestone.
var Doubts = map[string]func(m *Machine, q *queue){
	"parked for no reason":   func(_ *Machine, q *queue) { q.in(stateParked).notes = nil },
	"two of a key are first": func(_ *Machine, q *queue) { q.bothFirst(q.in(stateBlocked)) },
	"parked and first":       func(_ *Machine, q *queue) { q.in(stateParked).key = &keyChain{key: "p", current: q.in(stateParked)} },
	"gone and first":         func(_ *Machine, q *queue) { q.in(stateGone).key = &keyChain{key: "g", current: q.in(stateGone)} },
	"a key to come back to":  func(_ *Machine, q *queue) { q.in(stateBlocked).notes = &notes{key: "other"} },
	"a key with a priority":  func(_ *Machine, q *queue) { q.in(stateDelayed).key = &keyChain{key: "d", current: q.in(stateDelayed)} },
	"gone and too old":       func(_ *Machine, q *queue) { q.in(stateGone).expiryPos = 0 },
	"a message of no time":   func(_ *Machine, q *queue) { q.in(stateBlocked).expires = never - 1 },
	"a milestone of no time": func(_ *Machine, q *queue) { q.lanes[0].milestones[0].stored = never - 1 },
	"a milestone of nothing": func(_ *Machine, q *queue) {
		q.lanes[0].milestones = append(q.lanes[0].milestones, milestone{first: 99})
	},
	"a queue of no time":      func(m *Machine, _ *queue) { m.queues[1].timer = timer{at: -never} },
	"a machine of no time":    func(m *Machine, _ *queue) { m.now = -never },
	"a machine of never":      func(m *Machine, _ *queue) { m.now = never },
	"a message of never":      func(_ *Machine, q *queue) { q.in(stateBlocked).stored = never },
	"a delay without end":     func(_ *Machine, q *queue) { q.in(stateDelayed).due = never },
	"purged and there":        func(_ *Machine, q *queue) { q.lanes[3].purgedBelow = q.lanes[3].tail },
	"purged ahead":            func(_ *Machine, q *queue) { q.laneFor(9).purgedBelow = 5 },
	"a lane that soon ends":   func(_ *Machine, q *queue) { q.laneFor(9).head, q.laneFor(9).tail = never64-1, never64-1 },
	"two lanes without end":   func(_ *Machine, q *queue) { q.endless(8); q.endless(9) },
	"a name that expires":     func(m *Machine, _ *queue) { m.sessions.rows[2].timer = timer{} },
	"numbers that are used":   func(m *Machine, _ *queue) { m.nextSession = never64 },
	"consumers without an id": func(m *Machine, _ *queue) { m.nextConsumer = never64 },
}

// Oversleep puts off what the queues have to do.
func Oversleep(m *Machine, by Time) {
	for _, q := range m.queues {
		m.timers.set(&q.timer, q.due()+by)
	}
}

// in returns a message in a state.
func (q *queue) in(state messageState) *message {
	for _, msg := range q.records.rows {
		if msg.state == state {
			return msg
		}
	}
	panic("there is none")
}

// bothFirst gives a message that waits for another its turn, and has the other wait.
func (q *queue) bothFirst(msg *message) {
	msg.key.current.state, msg.state = stateBlocked, stateReady
	msg.key = &keyChain{key: msg.key.key, current: msg}
}

func (q *queue) endless(number uint8) {
	l := q.laneFor(number)
	l.tail, l.plain, l.milestones = 1<<63, 1<<63, []milestone{{}}
}

// Doubt spoils a machine in one of the ways.
func Doubt(m *Machine, name string) { Doubts[name](m, m.queues[2]) }

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
				if s.msg == nil && c.queue.holds(s) {
					plain++
				}
			}
		}
	}
	closed, slotsOfQueues, gone, goneRanges := true, true, true, 0
	notes, noteBytes := true, int64(0)
	for _, q := range m.queues {
		records += len(q.records.rows)
		slotsOfQueues = slotsOfQueues && q.slots == perQueue[q]
		for _, l := range q.lanes {
			closed = closed && (l == nil || l.closed == l.sumClosed())
			gone = gone && (l == nil || l.rangesAddUp(q))
		}
		ofQueue := int64(0)
		for _, msg := range q.records.rows {
			if msg.notes != nil {
				ofQueue += int64(msg.notes.textBytes())
			}
		}
		noteBytes += ofQueue
		notes = notes && ofQueue == q.noteBytes
		ranges := GoneRanges(m, q.name)
		goneRanges += ranges
		gone = gone && q.goneRanges == ranges
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
		"records": records != m.indexed, "closed milestones": !closed, "bytes of notes": !notes || noteBytes != m.noteBytes, "what is gone": !gone || goneRanges != m.goneRanges, "slots of queues": !slotsOfQueues, "outcomes": outcomes != m.outcomes, "session bytes": bytes != m.sessionBytes,
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

// rangesAddUp says whether each place from the head on is a plain message, a record or
// gone.
func (l *lane) rangesAddUp(q *queue) bool {
	gone, err := l.auditGone()
	records := uint64(0)
	for p := range q.records.rows {
		if p.lane == l.number && p.offset >= l.head {
			records++
			if l.isGone(p.offset) {
				return false
			}
		}
	}
	return err == nil && l.tail-l.head == l.plain+records+gone
}

// GoneRanges counts the ranges of what is gone in a queue.
func GoneRanges(m *Machine, queue string) (n int) {
	m.queuesByName[queue].eachGone(func(b *goneBlock) bool {
		n += len(b.ranges)
		return true
	})
	return n
}

// SpoilGone makes what is gone in the only queue of a machine contradict the rest, says
// what the audit finds, and mends it.
func SpoilGone(m *Machine, how string) error {
	var l *lane
	for _, q := range m.queues {
		l = q.lanes[0]
	}
	first, _ := l.gone.Min()
	was := first.ranges
	defer func() { first.ranges = was }()
	first.ranges = append([]goneRange(nil), was...)
	switch g := &first.ranges[0]; how {
	case "before the head":
		head := l.head
		defer func() { l.head = head }()
		l.head = g.from + 1
	case "past the tail":
		first.ranges[len(first.ranges)-1] = goneRange{l.tail, l.tail + 1}
	case "on a record":
		first.ranges[len(first.ranges)-1].end++
	case "touching":
		first.ranges[0].end = first.ranges[1].from
	case "one more":
		g.from--
	case "one less":
		g.from++
	case "empty":
		g.from = g.end
	}
	wrong, _ := m.audit()
	return wrong
}

// NoteTexts counts the texts in the notes of messages, each once that is in memory once.
func NoteTexts(m *Machine) int {
	seen := map[*byte]bool{}
	for _, q := range m.queues {
		for _, msg := range q.records.rows {
			n := msg.notes
			if n == nil {
				continue
			}
			texts := []string{n.reason, n.first, n.last}
			for _, e := range n.events {
				texts = append(texts, e.text)
			}
			for _, s := range texts {
				if s != "" {
					seen[unsafe.StringData(s)] = true
				}
			}
		}
	}
	return len(seen)
}

// ApplyTold is Apply, and tells whose timers it served, in their order.
func ApplyTold(m *Machine, index uint64, entry []byte) (eff *Effects, served []Owner, err error) {
	if eff, err = m.runAll(index, entry); err != nil {
		return nil, nil, err
	}
	m.detachSome()
	for m.detaching == 0 {
		next := m.firstOwner()
		if !m.fireNext(eff) {
			break
		}
		served = append(served, next)
	}
	m.fireTimers(eff) // nothing is due any more
	m.finish(eff)
	return eff, served, nil
}

// Owner is a queue or a consumer; a session has neither.
type Owner struct {
	Queue    uint64
	Consumer ConsumerID
}

func (m *Machine) firstOwner() Owner {
	switch t := m.timers.first(); {
	case t == nil || t.kind == timerSession:
		return Owner{}
	case t.kind == timerQueue:
		return Owner{Queue: t.id}
	default:
		return Owner{Consumer: m.consumersByOrdinal.get(t.id).id}
	}
}

// LowerHighest makes sessions say that they never had a record.
func LowerHighest(m *Machine) {
	for _, s := range m.sessions.rows {
		s.highest = 0
	}
}
