package cluster

import (
	"slices"
	"sync"
	"time"

	"onceq/fsm"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// conn is what the node needs of a client's connection. None of it blocks.
type conn interface {
	ID() uint64
	Reply(corr uint32, op wire.Op, payload []byte)
	Error(corr uint32, e wire.ErrorReply)
	Push(op wire.Op, payload []byte)
	PushLazy(op wire.Op, sizeHint int, encode func(w *pack.Writer) bool)
	Close(e wire.ErrorReply)
}

// bodies is where a delivery's message is read, beside Apply.
type bodies interface {
	Get(queue uint64, lane uint8, offset uint64) (publishedAt int64, message []byte, ok bool)
}

// hub knows the live connections and which of them a consumer is attached on.
// A delivery is sent only to the connection on which that very attachment
// (consumer and n) is registered, and nothing stays registered when the node
// no longer leads: the next leader is the only one that hands out.
//
// Locks: hub.mu before registration.mu; nothing is called on a connection
// under hub.mu.
type hub struct {
	bodies bodies
	clock  *clock
	detach func(c fsm.ConsumerID, n uint64, done func(outcome)) // proposes
	// missing is asked for a body that was not found. Nobody may hold what it waits for.
	missing func(d *fsm.Delivery) (publishedAt int64, message []byte, ok bool)

	mu        sync.Mutex // guards the fields below
	active    bool       // the node serves as leader; nothing is registered otherwise
	conns     map[conn]*client
	consumers map[fsm.ConsumerID]*registration
	detaches  map[fsm.ConsumerID]uint64 // to be proposed (again); bounded by the machine's consumers
}

// client is a live connection.
type client struct {
	since     time.Time
	asked     bool // it has sent a request
	consumers map[fsm.ConsumerID]*registration
}

// registration is one attachment on one connection, or what one receive has leased
// on its way to a puller.
type registration struct {
	hub      *hub
	consumer fsm.ConsumerID
	n        uint64
	conn     conn
	last     func(leads bool) // of a receive: called by the writer after the last frame

	mu      sync.Mutex     // guards the fields below
	pending []fsm.Delivery // leased, and not yet read from storage for the socket
	armed   bool           // the connection will call encode
	gone    bool           // replaced, left or unregistered: nothing is sent any more
}

func newHub(b bodies, c *clock) *hub {
	return &hub{
		bodies:    b,
		clock:     c,
		conns:     make(map[conn]*client),
		consumers: make(map[fsm.ConsumerID]*registration),
		detaches:  make(map[fsm.ConsumerID]uint64),
	}
}

func (h *hub) connected(c conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[c] = &client{since: time.Now()}
}

// asked notes that a connection has made itself heard.
func (h *hub) asked(c conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if cl := h.conns[c]; cl != nil {
		cl.asked = true
	}
}

// disconnected forgets a connection and detaches the consumers it carried.
func (h *hub) disconnected(c conn) {
	h.mu.Lock()
	cl := h.conns[c]
	delete(h.conns, c)
	if cl != nil {
		for id, r := range cl.consumers {
			if h.consumers[id] == r {
				delete(h.consumers, id)
			}
			h.detaches[id] = r.n
			r.end()
		}
	}
	h.mu.Unlock()
	h.proposeDetaches()
}

// proposeDetaches proposes what is waiting to be detached. What does not get
// into the log stays for the next call, until the node no longer leads.
func (h *hub) proposeDetaches() {
	h.mu.Lock()
	if len(h.detaches) == 0 {
		h.mu.Unlock()
		return
	}
	todo := h.detaches
	h.detaches = make(map[fsm.ConsumerID]uint64)
	h.mu.Unlock()
	for id, n := range todo {
		h.detach(id, n, func(o outcome) {
			if o.Err == nil {
				return
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			// Whatever it was refused for: a leader that could not hand over goes on in
			// the same term. When another follows, its first entry does it.
			if h.active && h.detaches[id] < n {
				h.detaches[id] = n
			}
		})
	}
}

// register makes a connection the place where an attachment's deliveries go.
// Called by the goroutine that applies, when the attach was applied and before
// its deliveries are sent.
func (h *hub) register(c conn, id fsm.ConsumerID, n uint64) {
	r := &registration{hub: h, consumer: id, n: n, conn: c}
	h.mu.Lock()
	if !h.active {
		h.mu.Unlock()
		return // the next leader's first entry detaches it
	}
	if old := h.consumers[id]; old != nil {
		if cl := h.conns[old.conn]; cl != nil {
			delete(cl.consumers, id)
		}
		delete(h.consumers, id)
		old.end()
	}
	cl := h.conns[c]
	if cl == nil {
		// It dropped while the attach was on its way.
		h.detaches[id] = n
		h.mu.Unlock()
		h.proposeDetaches()
		return
	}
	if cl.consumers == nil {
		cl.consumers = make(map[fsm.ConsumerID]*registration)
	}
	cl.consumers[id] = r
	h.consumers[id] = r
	delete(h.detaches, id)
	h.mu.Unlock()
}

// unregister forgets a consumer that has left.
func (h *hub) unregister(id fsm.ConsumerID, n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.consumers[id]
	if r == nil || r.n != n {
		return
	}
	h.remove(r)
}

// remove takes a registration out of the tables. Called with mu held.
func (h *hub) remove(r *registration) {
	delete(h.consumers, r.consumer)
	if cl := h.conns[r.conn]; cl != nil {
		delete(cl.consumers, r.consumer)
	}
	r.end()
}

// start allows registrations: the node serves as leader.
func (h *hub) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active = true
}

// renew unregisters everything and goes on: the machine knows none of the
// consumers any more.
func (h *hub) renew() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clear()
}

// reset unregisters everything: the node does not lead any more.
func (h *hub) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active = false
	h.clear()
}

// clear unregisters everything. Called with mu held.
func (h *hub) clear() {
	for _, r := range h.consumers {
		r.end()
	}
	for _, cl := range h.conns {
		cl.consumers = nil
	}
	clear(h.consumers)
	clear(h.detaches)
}

// deliver queues an entry's leases at the connections of their consumers.
// Called by the goroutine that applies.
func (h *hub) deliver(ds []fsm.Delivery) {
	for len(ds) > 0 {
		// A consumer's deliveries mostly stand together.
		k := 1
		for k < len(ds) && ds[k].Consumer == ds[0].Consumer && ds[k].N == ds[0].N {
			k++
		}
		h.mu.Lock()
		r := h.consumers[ds[0].Consumer]
		h.mu.Unlock()
		if r != nil && r.n == ds[0].N {
			r.push(ds[:k])
		}
		ds = ds[k:]
	}
}

// lost tells consumers what timers took from them.
func (h *hub) lost(ls []fsm.Loss) {
	for i := range ls {
		l := &ls[i]
		h.mu.Lock()
		r := h.consumers[l.Consumer]
		if r != nil && r.n == l.N && l.Gone {
			h.remove(r)
		}
		h.mu.Unlock()
		if r == nil || r.n != l.N {
			continue
		}
		r.drop(l.Lost)
		w := pack.NewWriter(nil)
		lostMessage(l).Append(w)
		r.conn.Push(wire.OpLost, w.Bytes())
	}
}

// unheard counts connections that came lately and have not asked anything yet:
// their consumers may be about to attach.
func (h *hub) unheard(within time.Duration) int {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, c := range h.conns {
		if !c.asked && now.Sub(c.since) < within {
			n++
		}
	}
	return n
}

// all returns the live connections.
func (h *hub) all() []conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	cs := make([]conn, 0, len(h.conns))
	for c := range h.conns {
		cs = append(cs, c)
	}
	return cs
}

func (r *registration) push(ds []fsm.Delivery) {
	r.mu.Lock()
	if r.gone {
		r.mu.Unlock()
		return
	}
	r.pending = append(r.pending, ds...)
	arm := !r.armed
	r.armed = true
	n := len(r.pending)
	r.mu.Unlock()
	if arm {
		r.arm(n)
	}
}

// arm asks the connection to call encode, for about n messages.
func (r *registration) arm(n int) {
	r.conn.PushLazy(wire.OpDeliver, min(n*deliveryBytesHint, deliverFrameBytes), r.encode)
}

// drop forgets what was lost before it could be sent, so that a client is never
// handed a delivery after the notice that it lost it.
func (r *registration) drop(lost []fsm.DeliveryState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := r.pending[:0]
	for _, d := range r.pending {
		gone := false
		for _, l := range lost {
			if d.Number >= l.From && d.Number <= l.To {
				gone = true
				break
			}
		}
		if !gone {
			kept = append(kept, d)
		}
	}
	r.pending = kept
}

func (r *registration) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone, r.pending = true, nil
}

// encode writes one frame of deliveries. It runs on the connection's writer
// when the socket can take more: until then only the leases wait here, the
// bodies stay in storage. They are read without r.mu, since that may take a disk
// and the goroutine that applies takes r.mu; what was lost meanwhile is left out,
// so that a loss is either seen here or pushed after this frame.
func (r *registration) encode(w *pack.Writer) bool {
	now, leads := r.hub.clock.latest()
	if !leads && r.last != nil {
		r.last(false)
		return false
	}
	room := frameRooms.Get().(*frameRoom)
	defer room.free()
	r.mu.Lock()
	room.next = append(room.next, r.pending[:min(len(r.pending), deliverFrameMessagesMax)]...)
	r.mu.Unlock()
	room.read = r.read(room.read, room.next, now)
	read := room.read
	frame := wire.Deliver{Deliveries: read[:0]}
	r.mu.Lock()
	taken := 0
	for _, d := range read {
		// What is pending begins with what of next was not lost, in that order.
		if taken == len(r.pending) {
			break
		}
		if p := r.pending[taken]; p.Number != d.Number {
			continue
		}
		taken++
		if d.Message != nil {
			frame.Deliveries = append(frame.Deliveries, d)
		}
	}
	if taken == len(r.pending) {
		r.pending = nil
	} else {
		r.pending = r.pending[taken:]
	}
	left := len(r.pending)
	r.armed = left > 0
	r.mu.Unlock()
	switch {
	case left > 0:
		r.arm(left)
	case r.last != nil:
		r.last(true)
	}
	if len(frame.Deliveries) == 0 {
		return false
	}
	frame.Consumer, frame.N = wire.ConsumerID(r.consumer), r.n
	frame.Append(w)
	return true
}

// frameRoom is memory for the deliveries of one frame while it is made.
type frameRoom struct {
	next []fsm.Delivery
	read []wire.Delivery
}

var frameRooms = sync.Pool{New: func() any { return new(frameRoom) }}

// free holds on to no body.
func (f *frameRoom) free() {
	clear(f.next)
	clear(f.read)
	f.next, f.read = f.next[:0], f.read[:0]
	frameRooms.Put(f)
}

// read reads the bodies of deliveries, up to a frame's worth, behind those in read. One
// whose lease has ended since, or whose message was purged or deleted, has none.
func (r *registration) read(read []wire.Delivery, next []fsm.Delivery, now fsm.Time) []wire.Delivery {
	read = slices.Grow(read, len(next))
	bytes := 0
	for _, d := range next {
		if bytes >= deliverFrameBytes {
			break
		}
		x := wire.Delivery{
			Number: d.Number, Queue: d.Queue, Lane: d.Lane, Offset: d.Offset, Attempt: d.Attempt, Failures: d.Failures,
			Remaining: time.Duration(max(0, d.Deadline-now)),
			Dead:      deadLetters(d.Dead),
			Restored:  d.Restored,
		}
		at, message, ok := r.hub.bodies.Get(d.Queue, d.Lane, d.Offset)
		if !ok {
			missing := d // a copy, so that the others need no memory of their own
			at, message, ok = r.hub.missing(&missing)
		}
		if ok {
			x.PublishedAt, x.Message = at, message
			bytes += len(message)
		}
		read = append(read, x)
	}
	return read
}
