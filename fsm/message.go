package fsm

import (
	"container/heap"
	"encoding/binary"
	"time"

	"github.com/google/btree"

	"onceq/transport/wire/pack"
)

// place is where a message is in its queue.
type place struct {
	lane   uint8
	offset uint64
}

// message is the record of a message that needs more than its place in a lane's
// range: it has an ordering key, a delay or a time to live of its own, it was
// delivered before and came back, it is parked, or it is a dead letter. All
// others are told by the range alone, whatever their number.
//
// A record stays until the message is gone; the head skips what has one. What is gone
// ahead of the head is told by ranges, see goneBlock.
type message struct {
	record
	q *queue
	place
	gen      uint32 // of the queue's records, see queue.gen
	state    messageState
	size     uint32 // of the encoded message, bytes
	attempts uint32
	failures uint32
	stored   Time
	due      Time // while delayed
	expires  Time // never: it does not
	key      *keyChain
	notes    *notes // nil until it fails
	// noteBytes is their size, as it is counted.
	noteBytes uint32
	restored  bool // it was in another place before a restore, see lane.restoredBelow for the others

	duePos, expiryPos int // in the queue's heaps, -1 when not in them
}

// messageState is where a message with a record is. Values are in snapshots.
type messageState uint8

const (
	stateNew     messageState = 0
	stateReady   messageState = 1
	stateBlocked messageState = 2 // ready, but an earlier one of its key is not done
	stateDelayed messageState = 3
	stateLeased  messageState = 4
	stateParked  messageState = 5
	stateGone    messageState = 6 // kept until the head has passed it; new ones before versionGoneRanges only
)

// notes are what is remembered of a message that failed.
type notes struct {
	reason      string // why it is a dead letter or parked
	first, last string // errors told by nack and reject
	origin      origin // of a dead letter
	key         string // its ordering key while it is parked or a dead letter, and holds nobody up
	events      []event
}

// origin says where a dead letter came from, and what it had behind it there.
type origin struct {
	queue    string
	number   uint64 // 0: not a dead letter
	place    place
	attempts uint32
	failures uint32
	stored   Time
}

// event is one moment in the life of a message that failed at least once. The
// newest eventsMax are kept.
type event struct {
	at       Time
	kind     EventKind
	attempt  uint32
	consumer uint64 // ordinal
	text     string
}

// EventKind says what happened to a message. Values are in snapshots.
type EventKind uint8

const (
	EventExpired  EventKind = 1 // its lease ran out
	EventNacked   EventKind = 2
	EventGone     EventKind = 3 // its consumer was given up
	EventLeft     EventKind = 4 // its consumer left while its handler ran
	EventRejected EventKind = 5
	EventLeased   EventKind = 6
	EventDead     EventKind = 7 // it became a dead letter
	EventParked   EventKind = 8
	EventRequeued EventKind = 9
	EventReleased EventKind = 10 // its lease was taken by command
)

func (msg *message) note(e event) {
	if msg.notes == nil {
		msg.notes = &notes{}
	}
	n := msg.notes
	if len(n.events) == eventsMax {
		n.events = append(n.events[:0], n.events[1:]...)
	}
	n.events = append(n.events, e)
}

func (msg *message) fail(text string) {
	if text == "" {
		return
	}
	if msg.notes == nil {
		msg.notes = &notes{}
	}
	if msg.notes.first == "" {
		msg.notes.first = text
	}
	msg.notes.last = text
}

// attributes are what Apply must know of a message beside its place. They are
// read from its encoded form once, when it is stored.
type attributes struct {
	key      []byte
	priority uint8
	delay    time.Duration
	at       int64 // deliver at, unix ns
	ttl      time.Duration
}

func (a *attributes) plain() bool {
	return len(a.key) == 0 && a.delay == 0 && a.at == 0 && a.ttl == 0
}

// readAttributes reads them from an encoded message; Check has seen that it
// decodes.
func readAttributes(r *pack.Reader, encoded []byte) (a attributes, err error) {
	r.Reset(encoded)
	r.ArrayExact(messageFields)
	r.Bin(PayloadBytesMax)
	r.StrBytes(BizIDBytesMax)
	for range r.Array(HeadersMax) {
		r.Raw()
	}
	a.key = r.StrBytes(OrderingKeyBytesMax)
	a.priority = r.Uint8()
	a.delay, a.at, a.ttl = time.Duration(r.Int()), r.Int(), time.Duration(r.Int())
	if err := r.Done(); err != nil {
		return a, err
	}
	return a, nil
}

// due returns how long the message waits before it is ready. Deliver-at becomes
// a delay once, by the wall clock of the leader that stores it. The client refuses
// what is more than DelayMax ahead; what is cut here is what its clock is behind the
// leader's.
func (a *attributes) wait(wall int64) time.Duration {
	if a.at == 0 {
		return a.delay
	}
	return time.Duration(min(max(0, a.at-wall), int64(DelayMax)))
}

// setState moves a message from one state to another: the counts and the
// structures of both follow, here and nowhere else.
func (m *Machine) setState(msg *message, to messageState) {
	q := msg.q
	l := q.lanes[msg.lane]
	n := &q.counts
	switch msg.state {
	case stateReady:
		l.ready.Delete(msg)
		q.eligible--
		n.Ready--
	case stateBlocked:
		n.Ready--
	case stateDelayed:
		heap.Remove(&q.delayed, msg.duePos)
		n.Delayed--
	case stateLeased:
		n.Leased--
	case stateParked:
		n.Parked--
	}
	msg.state = to
	switch to {
	case stateReady:
		l.ready.ReplaceOrInsert(msg)
		q.eligible++
		n.Ready++
		m.freshen(q)
	case stateBlocked:
		n.Ready++
	case stateDelayed:
		heap.Push(&q.delayed, msg)
		n.Delayed++
	case stateLeased:
		n.Leased++
	case stateParked:
		n.Parked++
	}
	m.dirty(msg)
	m.dirty(q)
}

// mayIndex says whether so many more messages may have a record because a client
// wants it.
func (m *Machine) mayIndex(n int) bool {
	return m.indexed+n <= m.limits.IndexedMax && m.mayReturn(n) && m.mayLeave(n)
}

// mayReturn says whether there is room for so many more messages to come back: each
// needs a record then. What comes back cannot be refused, so whoever leases a message
// without a record looks first.
func (m *Machine) mayReturn(n int) bool {
	return m.indexed+m.plainLeases+n <= m.limits.IndexedMax+m.limits.ReturnsMax
}

// leasePlain counts leases of messages without a record.
func (m *Machine) leasePlain(q *queue, n int) {
	q.plainLeases += n
	m.plainLeases += n
}

// addRecord gives a message a record. Whoever adds one has asked mayIndex or, before
// the message was leased, mayReturn.
func (m *Machine) addRecord(q *queue, msg *message) {
	msg.q, msg.gen, msg.duePos, msg.expiryPos = q, q.gen, -1, -1
	q.records.rows[msg.place] = msg
	m.indexed++
	m.countNotes(msg)
	if msg.expires != never {
		heap.Push(&q.expiries, msg)
	}
	m.dirty(msg)
}

// ready makes a message with a record ready, or blocked while an earlier one of
// its key is not done.
func (m *Machine) ready(msg *message) {
	if msg.key != nil && msg.key.current != msg {
		m.setState(msg, stateBlocked)
		return
	}
	m.setState(msg, stateReady)
}

// comeBack returns a message to its queue: at once, or after a delay.
func (m *Machine) comeBack(msg *message, delay time.Duration) {
	switch {
	case msg.expires <= m.now:
		m.leaveQueue(msg, &msg.q.counts.Expired, true)
	case delay > 0:
		msg.due = m.now + Time(delay)
		m.setState(msg, stateDelayed)
		m.retimeQueue(msg.q)
	default:
		m.ready(msg)
	}
}

// leaveQueue ends a message's life in its queue. Ahead of the lane's head it leaves a
// place that is gone.
func (m *Machine) leaveQueue(msg *message, counter *uint64, deleteBody bool) {
	q := msg.q
	m.setState(msg, stateGone)
	*counter++
	m.messages--
	q.bytes -= uint64(msg.size)
	msg.size = 0
	if deleteBody {
		m.bodies.Delete(q.number, msg.lane, msg.offset)
	}
	if msg.expiryPos >= 0 {
		heap.Remove(&q.expiries, msg.expiryPos)
	}
	if msg.key != nil {
		m.leaveKey(msg)
	}
	msg.notes = nil
	m.countNotes(msg)
	if l := q.lanes[msg.lane]; msg.offset >= l.head {
		if m.version < versionGoneRanges {
			return // its record stays there
		}
		m.leaveGone(q, l, msg.offset)
	}
	m.unindex(msg)
}

// unindex forgets a record.
func (m *Machine) unindex(msg *message) {
	m.forget(msg)
	msg.q.records.remove(msg.place)
	m.indexed--
}

// recordOf returns the record of a leased message, making one if it was told by
// the range until now.
func (m *Machine) recordOf(c *consumer, s *slot) *message {
	if s.msg == nil {
		q := c.queue
		stored := s.stored // or up to a milestone's interval later
		if m.version >= versionPlainInTime {
			stored += milestoneInterval
		}
		msg := &message{place: s.place, attempts: s.attempt, stored: s.stored, expires: q.expiry(stored, 0)}
		m.addRecord(q, msg)
		m.leasePlain(q, -1)
		msg.state = stateLeased // it is counted so already
		s.msg, s.recorded = msg, true
		if msg.expires != never {
			m.retimeQueue(q)
		}
	}
	return s.msg
}

// expiry returns when a message that was stored then is too old.
func (q *queue) expiry(stored Time, ttl time.Duration) Time {
	if own := q.settings.TTL; own > 0 && (ttl == 0 || own < ttl) {
		ttl = own
	}
	if ttl == 0 {
		return never
	}
	return stored + Time(ttl)
}

// keyChain keeps the messages of one ordering key: only current may be ready,
// leased or delayed, the others wait, in the order of their offsets.
type keyChain struct {
	key     string
	current *message
	waiting *btree.BTreeG[*message] // nil for none: most keys have one message
}

// waitingNodes are for all: a list for each key would be larger than what most hold.
var waitingNodes = btree.NewFreeListG[*message](btree.DefaultFreeListSize)

func (k *keyChain) wait(msg *message) {
	if k.waiting == nil {
		k.waiting = btree.NewWithFreeListG(8, func(a, b *message) bool { return a.offset < b.offset }, waitingNodes)
	}
	k.waiting.ReplaceOrInsert(msg)
}

func (m *Machine) joinKey(q *queue, msg *message, key string) {
	k := q.keys.rows[key]
	if k == nil {
		k = &keyChain{key: key}
		q.keys.rows[key] = k
	}
	msg.key = k
	if k.current == nil {
		k.current = msg
		return
	}
	k.wait(msg)
}

// leaveKey lets the next message of the key go, if this one held it.
func (m *Machine) leaveKey(msg *message) {
	k := msg.key
	msg.key = nil
	m.dirty(msg)
	if k.current != msg {
		if k.waiting.Delete(msg); k.waiting.Len() == 0 {
			k.waiting = nil
		}
	} else if next, ok := k.pop(); ok {
		k.current = next
		m.setState(next, stateReady)
	} else {
		msg.q.keys.remove(k.key)
	}
}

// pop takes out the message whose turn is next.
func (k *keyChain) pop() (next *message, ok bool) {
	if k.waiting == nil {
		return nil, false
	}
	if next, ok = k.waiting.DeleteMin(); k.waiting.Len() == 0 {
		k.waiting = nil
	}
	return next, ok
}

// messageHeap orders messages by a moment, then by place.
type dueHeap []*message

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return earlier(h[i].due, h[j].due, h[i], h[j]) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].duePos, h[j].duePos = i, j
}
func (h *dueHeap) Push(x any) {
	x.(*message).duePos = len(*h)
	*h = append(*h, x.(*message))
}
func (h *dueHeap) Pop() any {
	msg := popLast((*[]*message)(h))
	msg.duePos = -1
	return msg
}

type expiryHeap []*message

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return earlier(h[i].expires, h[j].expires, h[i], h[j]) }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].expiryPos, h[j].expiryPos = i, j
}
func (h *expiryHeap) Push(x any) {
	x.(*message).expiryPos = len(*h)
	*h = append(*h, x.(*message))
}
func (h *expiryHeap) Pop() any {
	msg := popLast((*[]*message)(h))
	msg.expiryPos = -1
	return msg
}

func popLast(h *[]*message) *message {
	old := *h
	msg := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return msg
}

func earlier(a, b Time, x, y *message) bool {
	switch {
	case a != b:
		return a < b
	case x.lane != y.lane:
		return x.lane < y.lane
	}
	return x.offset < y.offset
}

func putUint64(b []byte, v uint64) { binary.BigEndian.PutUint64(b, v) }
func putUint32(b []byte, v uint32) { binary.BigEndian.PutUint32(b, v) }

// expireAt changes when a message is too old.
func (m *Machine) expireAt(msg *message, at Time) {
	q := msg.q
	if msg.expiryPos >= 0 {
		heap.Remove(&q.expiries, msg.expiryPos)
	}
	msg.expires = at
	if at != never {
		heap.Push(&q.expiries, msg)
	}
	m.dirty(msg)
}

// rejoinKey puts a message that was parked or a dead letter back among those of
// its key, in its place by offset.
func (m *Machine) rejoinKey(msg *message) {
	if key := msg.notes.key; key != "" {
		msg.notes.key = ""
		m.joinKey(msg.q, msg, key)
	}
}
