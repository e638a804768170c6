package fsm

import (
	"cmp"
	"container/heap"
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

// PeekMax bounds what one Peek, Consumers or Sessions returns.
const PeekMax = 1000

// PeekScanMax bounds how many records one Peek looks at: nothing is applied meanwhile.
const PeekScanMax = 16_384

// Peek returns messages of a queue in one state, in the order in which they
// would go, from a place on, at most limit and PeekMax. It touches nothing. next is
// where another Peek goes on when this one has looked at enough before it found as
// many; nil when there is no more, or limit was reached.
func (m *Machine) Peek(queue string, state MessageState, from MessageInfo, limit int) (found []MessageInfo, next *MessageInfo, ok bool) {
	q := m.queuesByName[queue]
	if q == nil {
		return nil, nil, false
	}
	limit = min(max(limit, 0), PeekMax)
	start := place{from.Lane, from.Offset}
	var places []place
	if state != MessageLeased && len(q.records) > PeekScanMax {
		var stopped place
		if places, stopped = q.walk(state, start, limit); stopped != (place{}) {
			next = &MessageInfo{Lane: stopped.lane, Offset: stopped.offset}
		}
	} else {
		places = q.scan(state, start, limit)
	}
	out := make([]MessageInfo, 0, len(places))
	for _, p := range places {
		if i, ok := m.message(q, p); ok {
			out = append(out, i)
		}
	}
	return out, next, true
}

// walk goes over a queue's places, lane by lane, until it has found limit or looked at
// PeekScanMax. Then it says where it has stopped.
func (q *queue) walk(state MessageState, start place, limit int) (places []place, stopped place) {
	left := PeekScanMax
	for i := len(q.lanes) - 1; i >= 0; i-- {
		l := q.lanes[i]
		if l == nil || start != (place{}) && l.number > start.lane {
			continue
		}
		p := place{l.number, l.purgedBelow}
		if msg, some := l.ready.Min(); state == MessageReady {
			if p.offset = l.head; some {
				p.offset = min(p.offset, msg.offset)
			}
		}
		if start != (place{}) && l.number == start.lane {
			p.offset = max(p.offset, start.offset)
		}
		for ; p.offset < l.tail && len(places) < limit; p.offset++ {
			// The zero place is where a look begins.
			if left <= 0 && p != (place{}) {
				return places, p
			}
			left--
			at := MessageState(0)
			if msg := q.records[p]; msg != nil {
				at = msg.visible()
			} else if p.offset >= l.head {
				at = MessageReady
			}
			if at == state {
				places = append(places, p)
			}
		}
	}
	return places, place{}
}

// scan goes over the records of a queue that has few, or over its leases.
func (q *queue) scan(state MessageState, start place, limit int) []place {
	best := &peekHeap{limit: limit}
	if state == MessageLeased {
		for _, c := range q.consumers {
			for i := range c.slots {
				if s := &c.slots[i]; s.state == LeaseHeld && q.holds(s) && !before(s.place, start) {
					best.offer(s.place)
				}
			}
		}
	} else {
		for p, msg := range q.records {
			if msg.visible() == state && !before(p, start) {
				best.offer(p)
			}
		}
		if state == MessageReady {
			q.offerPlain(best, start)
		}
	}
	slices.SortFunc(best.places, comparePlaces)
	return best.places
}

// Message returns what is known of one message; false when it is not in the
// queue (any more).
func (m *Machine) Message(queue string, lane uint8, offset uint64) (MessageInfo, bool) {
	q := m.queuesByName[queue]
	if q == nil {
		return MessageInfo{}, false
	}
	return m.message(q, place{lane, offset})
}

func (m *Machine) message(q *queue, p place) (i MessageInfo, ok bool) {
	if p.lane >= Priorities || q.lanes[p.lane] == nil {
		return i, false
	}
	l := q.lanes[p.lane]
	i = MessageInfo{Lane: p.lane, Offset: p.offset}
	msg := q.records[p]
	switch {
	case msg != nil && msg.state == stateGone:
		return i, false
	case msg != nil:
		i.State, i.Attempts, i.Failures = msg.visible(), msg.attempts, msg.failures
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
		m.describeNotes(&i, msg.notes)
	case p.offset >= l.head && p.offset < l.tail:
		i.State, i.Age = MessageReady, time.Duration(m.now-l.storedAt(p.offset))
		if q.settings.TTL > 0 {
			i.Expires = max(1, q.settings.TTL-i.Age)
		}
	}
	if i.State != 0 && i.State != MessageLeased {
		return i, true
	}
	for _, c := range q.consumers {
		for k := range c.slots {
			if s := &c.slots[k]; s.state == LeaseHeld && s.place == p && q.holds(s) {
				i.State, i.Attempts = MessageLeased, s.attempt
				i.Age = time.Duration(m.now - s.stored)
				i.Consumer, i.Label, i.Number = c.id, c.label, c.done+uint64(k)
				i.Deadline = time.Duration(max(s.deadline, c.resumeBase) - m.now)
				if !c.attached && !c.pulls() {
					i.Deadline = time.Duration(max(c.graceEnd, m.graceFloor) - m.now)
				}
				return i, true
			}
		}
	}
	return i, false
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
		i.OriginQueue, i.OriginLane, i.OriginOffset = n.origin.queue, n.origin.place.lane, n.origin.place.offset
		i.OriginAttempts = n.origin.attempts
	}
	for _, e := range n.events {
		i.Events = append(i.Events, MessageEvent{time.Duration(m.now - e.at), e.kind, e.attempt, e.consumer, e.text})
	}
}

// holds says whether a held slot's message is still the queue's: a purge is
// noticed late.
func (q *queue) holds(s *slot) bool { return s.place.offset >= q.lanes[s.place.lane].purgedBelow }

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

// offerPlain offers the first plain messages from start on.
func (q *queue) offerPlain(best *peekHeap, start place) {
	for i := len(q.lanes) - 1; i >= 0; i-- {
		l := q.lanes[i]
		if l == nil || l.plain == 0 || uint8(i) > start.lane && start != (place{}) {
			continue
		}
		offset := l.head
		if uint8(i) == start.lane {
			offset = max(offset, start.offset)
		}
		for found := 0; offset < l.tail && found < best.limit; offset++ {
			if q.records[place{l.number, offset}] == nil {
				best.offer(place{l.number, offset})
				found++
			}
		}
	}
}

// comparePlaces orders places as they would be delivered: higher lanes first.
func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(b.lane, a.lane), cmp.Compare(a.offset, b.offset))
}

// before says whether p was already passed by who begins at start. The zero
// place is the beginning.
func before(p, start place) bool {
	return start != place{} && comparePlaces(p, start) < 0
}

// peekHeap keeps the first places offered, by comparePlaces, the last on top.
type peekHeap struct {
	places []place
	limit  int
}

func (h *peekHeap) offer(p place) {
	switch {
	case h.limit == 0:
	case len(h.places) < h.limit:
		heap.Push(h, p)
	case comparePlaces(p, h.places[0]) < 0:
		h.places[0] = p
		heap.Fix(h, 0)
	}
}

func (h *peekHeap) Len() int           { return len(h.places) }
func (h *peekHeap) Less(i, j int) bool { return comparePlaces(h.places[i], h.places[j]) > 0 }
func (h *peekHeap) Swap(i, j int)      { h.places[i], h.places[j] = h.places[j], h.places[i] }
func (h *peekHeap) Push(x any)         { h.places = append(h.places, x.(place)) }
func (h *peekHeap) Pop() any {
	p := h.places[len(h.places)-1]
	h.places = h.places[:len(h.places)-1]
	return p
}

// Consumers lists consumers in the order of their first attach, of one queue or,
// with "", of all, at most PeekMax.
func (m *Machine) Consumers(queue string) []ConsumerInfo {
	var out []ConsumerInfo
	all := m.consumersByOrdinal
	if q := m.queuesByName[queue]; q != nil {
		all = q.consumers
	} else if queue != "" {
		return nil
	}
	// Those that are about to go may be among the first.
	for _, ord := range lowest(all, 0, 2*PeekMax) {
		c := all[ord]
		if c.gone != goneNot || c.queue.deleted {
			continue
		}
		out = append(out, ConsumerInfo{
			ID: c.id, Queue: c.queue.name, Label: c.label, N: c.n, Attached: c.attached, Pulls: c.pulls(),
			Credit: c.credit, Held: uint32(c.held), Next: c.next,
		})
		if len(out) == PeekMax {
			break
		}
	}
	return out
}

// lowest returns the lowest keys from one on, in order, without sorting all.
func lowest[V any](m map[uint64]V, from uint64, limit int) []uint64 {
	keys := make([]uint64, 0, 2*limit)
	most := ^uint64(0) // keys above it are not among them
	for k := range m {
		if k < from || k > most {
			continue
		}
		if keys = append(keys, k); len(keys) >= 2*limit && limit > 0 {
			slices.Sort(keys)
			keys = keys[:limit]
			most = keys[limit-1]
		}
	}
	slices.Sort(keys)
	return keys[:min(limit, len(keys))]
}

// Sessions lists sessions by number, from one on, at most limit and PeekMax.
func (m *Machine) Sessions(from uint64, limit int) []SessionInfo {
	limit = min(max(limit, 0), PeekMax)
	var out []SessionInfo
	for _, n := range lowest(m.sessions, from, limit) {
		s := m.sessions[n]
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
	}
	return out
}
