package fsm

import (
	"cmp"
	"container/heap"
	"iter"
	"maps"
	"slices"
	"time"
)

// MessageState is where a message is, for those who look. Values are on the
// wire and only ever appended to.
type MessageState uint8

const (
	MessageReady   MessageState = 1
	MessageBlocked MessageState = 2 // ready, behind an earlier one of its key
	MessageDelayed MessageState = 3
	MessageLeased  MessageState = 4
	MessageParked  MessageState = 5
)

// MessageInfo is what the tables know of one message. Moments are cluster time
// from now: of the past for Age and events, of the future for the others.
type MessageInfo struct {
	Lane     uint8
	Offset   uint64
	State    MessageState
	Attempts uint32
	Failures uint32
	Age      time.Duration // since it was stored, to within a second
	Due      time.Duration // delayed: until it is ready
	Expires  time.Duration // until it is too old; 0: never
	Key      string
	// Leased: who holds it.
	Consumer ConsumerID
	Label    string
	Number   uint64
	Deadline time.Duration
	// Failed at least once: errors, and the newest events.
	Reason, FirstError, LastError string
	Events                        []MessageEvent
	// A dead letter: where it came from and what it had behind it there.
	OriginQueue    string
	OriginNumber   uint64 // of the queue: one that was created again under the name is another
	OriginLane     uint8
	OriginOffset   uint64
	OriginAttempts uint32
}

// MessageEvent is one moment in the life of a message that failed.
type MessageEvent struct {
	Ago      time.Duration
	Kind     EventKind
	Attempt  uint32
	Consumer uint64
	Text     string
}

// ConsumerInfo is what the machine knows of a consumer.
type ConsumerInfo struct {
	Ordinal  uint64 // in the order of first attachment
	ID       ConsumerID
	Queue    string
	Label    string
	N        uint64
	Attached bool
	Pulls    bool // asks for messages instead of being handed them
	Credit   uint32
	Held     uint32
	Next     uint64
}

// SessionInfo is what the machine knows of a session.
type SessionInfo struct {
	Number uint64
	// Incarnation is that of the life it was opened in; with another than the
	// present one it is closed.
	Incarnation uint64
	Named       bool
	Name        string
	Label       string
	Epoch       uint64
	Floor       uint64
	Next        uint64
	Outcomes    uint32
	Idle        time.Duration
}

// PeekMax bounds what one Look, Consumers or Sessions returns.
const PeekMax = 1000

// PeekScanMax bounds how many rows one step of a look visits, and a list of consumers:
// nothing is applied meanwhile.
const PeekScanMax = 16_384

// Look is a look at messages of a queue in one state, in the order in which they would
// go, or at a single one. It is made in steps, each of which visits a bounded number of
// rows under whatever keeps Apply out; between them Apply goes on, and what changes
// meanwhile may be seen or not.
//
// Ready messages are walked to in their order, also past any number that is not ready.
// Those of another state are walked to when they are not sparse among the places of
// their queue, else all records, or all leases, are passed and the first are kept.
type Look struct {
	queue uint64
	state MessageState
	start place
	limit int
	one   bool // only the place start, in any state

	begun, walks bool
	at           place // of a walk: where it goes on
	next         func() (*message, bool)
	stop         func()
	ordinal      uint64 // of leases: the consumer to go on with,
	number       uint64 // and its delivery
	best         peekHeap
	scanned      bool // all are passed: the best are to be told of

	found   []MessageInfo
	visited int // in the newest step
	done    bool
}

// Look begins a look at messages of a queue from a place on, at most limit and PeekMax.
// It has visited nothing yet.
func (m *Machine) Look(queue string, state MessageState, from MessageInfo, limit int) (*Look, bool) {
	q := m.queuesByName[queue]
	if q == nil {
		return nil, false
	}
	limit = min(max(limit, 0), PeekMax)
	l := &Look{queue: q.number, state: state, start: place{from.Lane, from.Offset}, limit: limit, best: peekHeap{limit: limit}, done: limit == 0}
	if l.start == (place{}) || l.start.lane >= Priorities {
		l.start = place{Priorities - 1, 0}
	}
	return l, true
}

// StartAt moves the beginning of a look that has not begun: to this very place, while
// the zero place of Look is the beginning of all lanes.
func (l *Look) StartAt(lane uint8, offset uint64) {
	if l.start = (place{lane, offset}); lane >= Priorities {
		l.start = place{Priorities - 1, 0}
	}
}

// LookAt begins a look at one message.
func (m *Machine) LookAt(queue string, lane uint8, offset uint64) (*Look, bool) {
	l, ok := m.Look(queue, 0, MessageInfo{}, 1)
	if ok {
		l.one, l.start = true, place{lane, offset}
	}
	return l, ok
}

// Queue is the number of the queue that is looked at.
func (l *Look) Queue() uint64 { return l.queue }

// Found are the messages that were found so far, all of them when it is done.
func (l *Look) Found() []MessageInfo { return l.found }

// Close ends a look before it is done. It may be called at any time.
func (l *Look) Close() {
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
	l.done = true
}

// LookOn makes one step of a look and says whether it was the last. It touches
// nothing.
func (m *Machine) LookOn(l *Look) (done bool) {
	l.visited = 0
	q := m.queues[l.queue]
	if q == nil {
		l.Close()
	}
	if l.done {
		return true
	}
	switch {
	case l.scanned:
		m.tellBest(q, l)
	case l.one:
		m.lookAtOne(q, l)
	case l.state == MessageLeased:
		l.scanned = m.passLeases(q, l)
	default:
		m.lookAmong(q, l)
	}
	if l.done {
		l.Close()
	}
	return l.done
}

// Peek makes a whole look at once: for those who need not care for how long.
func (m *Machine) Peek(queue string, state MessageState, from MessageInfo, limit int) (found []MessageInfo, ok bool) {
	l, ok := m.Look(queue, state, from, limit)
	if !ok {
		return nil, false
	}
	for !m.LookOn(l) {
	}
	return l.Found(), true
}

// lookAmong goes over places, or over records where there are fewer of them.
func (m *Machine) lookAmong(q *queue, l *Look) {
	if !l.begun {
		l.begun = true
		l.at, l.walks = l.start, true
		if sparse := q.placesFrom(l.at) > 4*uint64(len(q.records.rows)); sparse && l.state != MessageReady {
			l.walks = false
			// Like any walk over a table that changes between the steps and never
			// beside one.
			l.next, l.stop = iter.Pull(maps.Values(q.records.rows))
		}
	}
	if l.walks {
		m.walk(q, l)
		return
	}
	for l.visited < PeekScanMax {
		l.visited++
		msg, ok := l.next()
		if !ok {
			l.scanned = true
			return
		}
		if msg.gen == q.gen && msg.visible() == l.state && !before(msg.place, l.start) {
			l.best.offer(seen{place: msg.place})
		}
	}
}

// placesFrom counts the places from one on, up to the ends of all lanes.
func (q *queue) placesFrom(p place) (n uint64) {
	for _, l := range q.lanes {
		if l == nil || l.number > p.lane {
			continue
		}
		from := l.purgedBelow
		if l.number == p.lane {
			from = max(from, p.offset)
		}
		if from < l.tail {
			n += l.tail - from
		}
	}
	return n
}

// walk goes over a queue's places, lane by lane, until it has found what was asked for
// or has visited enough.
func (m *Machine) walk(q *queue, l *Look) {
	for l.visited < PeekScanMax {
		l.visited++
		lane := q.lanes[l.at.lane]
		if lane != nil {
			l.at.offset = max(l.at.offset, lane.purgedBelow)
			if l.state == MessageReady && l.at.offset < lane.head {
				l.at.offset = lane.readyFrom(l.at.offset)
			}
			l.at.offset = lane.goneEnd(l.at.offset)
		}
		if lane == nil || l.at.offset >= lane.tail {
			if l.at.lane == 0 {
				l.done = true
				return
			}
			l.at = place{l.at.lane - 1, 0}
			continue
		}
		at := MessageState(0)
		if msg := q.records.rows[l.at]; msg != nil {
			at = msg.visible()
		} else if l.at.offset >= lane.head {
			at = MessageReady
		}
		if at == l.state {
			if i, ok := m.message(q, l.at); ok {
				l.found = append(l.found, i)
			}
			if l.done = len(l.found) == l.limit; l.done {
				return
			}
		}
		l.at.offset++
	}
}

// readyFrom returns the first offset from one on that may be ready: below the head only
// what has a record is.
func (l *lane) readyFrom(offset uint64) uint64 {
	found := l.head
	l.ready.AscendGreaterOrEqual(&message{place: place{l.number, offset}}, func(msg *message) bool {
		found = min(found, msg.offset)
		return false
	})
	return found
}

// passLeases goes over what consumers hold and says whether it has passed all.
func (m *Machine) passLeases(q *queue, l *Look) (all bool) {
	all = true
	q.consumers.from(l.ordinal, func(c *consumer) bool {
		if c.ordinal != l.ordinal {
			l.ordinal, l.number = c.ordinal, 0
		}
		l.visited++
		for l.number = max(l.number, c.done); l.number < c.next; l.number++ {
			if l.visited >= PeekScanMax {
				all = false
				return false
			}
			l.visited++
			s := c.slot(l.number)
			if s.state != LeaseHeld || !q.holds(s) {
				continue
			}
			if l.one && s.place == l.start || !l.one && !before(s.place, l.start) {
				l.best.offer(seen{s.place, c.ordinal, l.number})
			}
		}
		return true
	})
	return all
}

// tellBest describes what was kept, as far as it is still in its state.
func (m *Machine) tellBest(q *queue, l *Look) {
	slices.SortFunc(l.best.seen, func(a, b seen) int { return comparePlaces(a.place, b.place) })
	for _, s := range l.best.seen {
		l.visited++
		i, ok := MessageInfo{}, false
		if s.ordinal != 0 {
			i, ok = m.leased(q, s)
		} else if i, ok = m.message(q, s.place); ok && !l.one {
			ok = i.State == l.state
		}
		if ok {
			l.found = append(l.found, i)
		}
	}
	l.done = true
}

// lookAtOne describes one message, which may be leased: then its holder is looked for.
func (m *Machine) lookAtOne(q *queue, l *Look) {
	i, here := m.message(q, l.start)
	switch {
	case !here:
		l.done = true
	case i.State != MessageLeased:
		l.found, l.done = []MessageInfo{i}, true
	default:
		l.visited++
		all := m.passLeases(q, l)
		if l.scanned = all || len(l.best.seen) > 0; l.scanned && len(l.best.seen) == 0 {
			l.done = true
		}
	}
}

// message describes a message from its record, or from the range. Of a leased one it
// says no more than that: a plain place below the head may be leased, or gone.
func (m *Machine) message(q *queue, p place) (i MessageInfo, here bool) {
	if p.lane >= Priorities || q.lanes[p.lane] == nil {
		return i, false
	}
	l := q.lanes[p.lane]
	i = MessageInfo{Lane: p.lane, Offset: p.offset}
	msg := q.records.rows[p]
	switch {
	case p.offset < l.purgedBelow, p.offset >= l.tail, msg != nil && msg.state == stateGone, msg == nil && l.isGone(p.offset):
		return i, false
	case msg != nil:
		i.State = msg.visible()
		m.describe(&i, msg)
	case p.offset >= l.head:
		i.State, i.Age = MessageReady, time.Duration(m.now-l.storedAt(p.offset))
		if q.settings.TTL > 0 {
			i.Expires = max(1, q.settings.TTL-i.Age)
		}
	default:
		i.State = MessageLeased
	}
	return i, true
}

// Stored says whether a message that a look has found is still in its queue. Then its
// body is in the BodyStore, as long as nothing is applied. Of one that somebody else
// holds by now it says no.
func (m *Machine) Stored(queue uint64, f *MessageInfo) bool {
	q := m.queues[queue]
	if q == nil {
		return false
	}
	if i, here := m.message(q, place{f.Lane, f.Offset}); !here || i.State != MessageLeased {
		return here
	}
	return m.Holds(&Delivery{Consumer: f.Consumer, Number: f.Number, Queue: queue, Lane: f.Lane, Offset: f.Offset})
}

// describe says what a record knows.
func (m *Machine) describe(i *MessageInfo, msg *message) {
	i.Attempts, i.Failures = msg.attempts, msg.failures
	i.Age = time.Duration(m.now - msg.stored)
	if msg.state == stateDelayed {
		i.Due = time.Duration(msg.due - m.now)
	}
	if msg.expires != never {
		i.Expires = time.Duration(max(1, msg.expires-m.now))
	}
	if msg.key != nil {
		i.Key = msg.key.key
	}
	m.describeNotes(i, msg.notes)
}

// leased describes what a consumer holds, if it still does.
func (m *Machine) leased(q *queue, at seen) (i MessageInfo, ok bool) {
	c := m.consumersByOrdinal.get(at.ordinal)
	if c == nil || c.queue != q {
		return i, false
	}
	s := c.slot(at.number)
	if s == nil || s.state != LeaseHeld || s.place != at.place || !q.holds(s) {
		return i, false
	}
	i = MessageInfo{Lane: s.place.lane, Offset: s.place.offset, State: MessageLeased}
	if s.msg != nil {
		m.describe(&i, s.msg)
	}
	i.Attempts = s.attempt
	i.Age = time.Duration(m.now - s.stored)
	i.Consumer, i.Label, i.Number = c.id, c.label, at.number
	i.Deadline = time.Duration(max(s.deadline, c.resumeBase) - m.now)
	if !c.attached && !c.pulls() {
		i.Deadline = time.Duration(max(c.graceEnd, m.graceFloor) - m.now)
	}
	return i, true
}

func (m *Machine) describeNotes(i *MessageInfo, n *notes) {
	if n == nil {
		return
	}
	i.Reason, i.FirstError, i.LastError = n.reason, n.first, n.last
	if n.key != "" {
		i.Key = n.key
	}
	if n.origin.number != 0 {
		i.OriginNumber = n.origin.number
		i.OriginQueue, i.OriginLane, i.OriginOffset = n.origin.queue, n.origin.place.lane, n.origin.place.offset
		i.OriginAttempts = n.origin.attempts
	}
	for _, e := range n.events {
		i.Events = append(i.Events, MessageEvent{time.Duration(m.now - e.at), e.kind, e.attempt, e.consumer, e.text})
	}
}

// holds says whether a held slot's message is still the queue's: a purge is
// noticed late, and so is that the queue was deleted, whose lanes no snapshot brings.
func (q *queue) holds(s *slot) bool {
	return !q.deleted && s.place.offset >= q.lanes[s.place.lane].purgedBelow
}

// visible is the state that those who look are told.
func (msg *message) visible() MessageState {
	switch msg.state {
	case stateReady:
		return MessageReady
	case stateBlocked:
		return MessageBlocked
	case stateDelayed:
		return MessageDelayed
	case stateLeased:
		return MessageLeased
	case stateParked:
		return MessageParked
	}
	return 0
}

// comparePlaces orders places as they would be delivered: higher lanes first.
func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(b.lane, a.lane), cmp.Compare(a.offset, b.offset))
}

// before says whether p was already passed by who begins at start.
func before(p, start place) bool { return comparePlaces(p, start) < 0 }

// seen is a place that was found, and who holds what is there.
type seen struct {
	place
	ordinal uint64 // of the consumer; 0: nobody
	number  uint64 // of the delivery
}

// peekHeap keeps the first places offered, by comparePlaces, the last on top.
type peekHeap struct {
	seen  []seen
	limit int
}

func (h *peekHeap) offer(s seen) {
	switch {
	case h.limit == 0:
	case len(h.seen) < h.limit:
		heap.Push(h, s)
	case comparePlaces(s.place, h.seen[0].place) < 0:
		h.seen[0] = s
		heap.Fix(h, 0)
	}
}

func (h *peekHeap) Len() int           { return len(h.seen) }
func (h *peekHeap) Less(i, j int) bool { return comparePlaces(h.seen[i].place, h.seen[j].place) > 0 }
func (h *peekHeap) Swap(i, j int)      { h.seen[i], h.seen[j] = h.seen[j], h.seen[i] }
func (h *peekHeap) Push(x any)         { h.seen = append(h.seen, x.(seen)) }
func (h *peekHeap) Pop() any {
	s := h.seen[len(h.seen)-1]
	h.seen = h.seen[:len(h.seen)-1]
	return s
}

// EditedQueue is what one must know of a queue to edit it in steps.
type EditedQueue struct {
	Number uint64
	// The newest edit that did something, and what became of its places.
	Nonce  Nonce
	States []EditState
	// Ends are the lanes, each with the offset that its next message gets.
	Ends []MessageInfo
}

// Edited tells of a queue's newest edit.
func (m *Machine) Edited(queue string) (e EditedQueue, ok bool) {
	q := m.queuesByName[queue]
	if q == nil {
		return e, false
	}
	e = EditedQueue{Number: q.number, Nonce: q.edited.nonce, States: slices.Clone(q.edited.states)}
	for _, l := range q.lanes {
		if l != nil {
			e.Ends = append(e.Ends, MessageInfo{Lane: l.number, Offset: l.tail})
		}
	}
	return e, true
}

// Consumers lists consumers in the order of their first attachment, of one queue or,
// with "", of all, from an ordinal on, at most limit and PeekMax. It visits no more than
// PeekScanMax: next is where to go on, 0 when there are no more or enough was found.
func (m *Machine) Consumers(queue string, from uint64, limit int) (found []ConsumerInfo, next uint64) {
	found, next, _ = m.listConsumers(queue, from, limit)
	return found, next
}

func (m *Machine) listConsumers(queue string, from uint64, limit int) (found []ConsumerInfo, next uint64, visited int) {
	limit = min(max(limit, 0), PeekMax)
	all := &m.consumersByOrdinal
	if q := m.queuesByName[queue]; q != nil {
		all = &q.consumers
	} else if queue != "" {
		return nil, 0, 0
	}
	all.from(from, func(c *consumer) bool {
		switch {
		case len(found) == limit:
			return false
		case visited == PeekScanMax:
			next = c.ordinal
			return false
		}
		visited++
		if c.gone == goneNot && !c.queue.deleted { // it is about to go
			found = append(found, ConsumerInfo{
				Ordinal: c.ordinal, ID: c.id, Queue: c.queue.name, Label: c.label, N: c.n, Attached: c.attached, Pulls: c.pulls(),
				Credit: c.credit, Held: uint32(c.held), Next: c.next,
			})
		}
		return true
	})
	return found, next, visited
}

// Sessions lists sessions by number, from one on, at most limit and PeekMax. It visits
// no others.
func (m *Machine) Sessions(from uint64, limit int) []SessionInfo {
	found, _ := m.listSessions(from, limit)
	return found
}

func (m *Machine) listSessions(from uint64, limit int) (out []SessionInfo, visited int) {
	limit = min(max(limit, 0), PeekMax)
	m.sessionsByNumber.AscendGreaterOrEqual(&session{number: from}, func(s *session) bool {
		visited++
		if len(out) == limit {
			return false
		}
		i := SessionInfo{
			Number: s.number, Incarnation: m.incarnation, Named: s.named, Label: s.label, Epoch: s.epoch, Floor: s.floor,
			Next: max(s.floor, s.highest+1), Outcomes: uint32(len(s.outcomes)), Idle: time.Duration(m.now - s.lastActive),
		}
		if s.restored() {
			i.Incarnation = s.incarnation
		}
		if s.named {
			i.Name = s.name
		}
		out = append(out, i)
		return true
	})
	return out, visited
}
