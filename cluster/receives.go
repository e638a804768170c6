package cluster

import (
	"container/list"
	"sync"
	"time"

	"onceq/fsm"
	"onceq/transport/wire"
)

// receives are the receives of pullers, from request to answer. They wait for
// something to lease here, at the leader, and not in the log: one is proposed when
// it comes, unless a look at the machine shows that it would find nothing, and again
// when the machine tells of messages that nobody took. A receive that finds nothing
// is never the cause of such news, so nothing goes round in circles.
//
// A receive waits only while its connection lives, or it would lease for nobody.
type receives struct {
	hub     *hub
	mono    func() time.Duration
	propose func(kind fsm.Kind, payload []byte, done func(outcome))
	refusal func() *wire.ErrorReply
	// barren says that a receive would find nothing now. It does not wait: when it
	// cannot look it says no.
	barren func(m *wire.Receive) bool

	mu        sync.Mutex // guards the fields below; nothing is called under it
	active    bool       // the node serves as leader; nobody waits otherwise
	consumers map[wire.ConsumerID]*pending
	conns     map[conn]map[*pending]bool
	queues    map[string]*waitList
}

// waitList are the receives of one queue, oldest first.
type waitList struct {
	list.List
	// wave counts the news of messages. Each receive tries at most once a wave.
	wave uint64
	// owed is how many messages those had asked for that were refused before they came
	// to the log: what had woken them is still there, and a moment later so much is
	// tried for again.
	owed uint64
}

// pending is one receive that has no answer yet.
type pending struct {
	conn    conn
	corr    uint32
	request wire.Receive
	payload []byte
	until   time.Duration // monotonic

	// Guarded by receives.mu.
	queue  *waitList
	at     *list.Element
	flying bool   // proposed, and not applied yet
	tried  uint64 // the wave of its newest try
	over   bool   // out of the tables: it has its answer, or nobody to give it to
}

func newReceives(h *hub, mono func() time.Duration) *receives {
	return &receives{
		hub: h, mono: mono,
		consumers: make(map[wire.ConsumerID]*pending), conns: make(map[conn]map[*pending]bool), queues: make(map[string]*waitList),
	}
}

// receive takes a request that fsm.Check has let through. A second request of the
// same puller takes the place of the first: its sender has asked again.
func (r *receives) receive(c conn, corr uint32, payload []byte, m wire.Receive) {
	p := &pending{conn: c, corr: corr, request: m, payload: payload, until: r.mono() + m.Wait}
	r.drop(m.Consumer)
	r.mu.Lock()
	full := len(r.consumers) >= receivesMax
	if !full {
		r.add(p)
	}
	active := r.active
	r.mu.Unlock()
	switch {
	case full:
		c.Error(corr, *errOverloaded("receives"))
	case active && m.Wait > 0 && r.barren(&p.request):
		// It was listed before the look: what became ready since has woken it.
	default:
		r.mu.Lock()
		fly := r.try(p)
		r.mu.Unlock()
		if fly {
			r.fly(p)
		}
	}
}

// release passes on that a puller has given up. Its receive does not wait any
// longer.
func (r *receives) release(c conn, corr uint32, payload []byte, m wire.Release) {
	r.drop(m.Consumer)
	r.propose(fsm.KindRelease, payload, func(o outcome) {
		if o.Err != nil {
			c.Error(corr, *o.Err)
			return
		}
		c.Reply(corr, wire.OpRelease, encoded(receivedReply(o.Result)))
	})
}

// drop ends a puller's receive without anything, if it has one.
func (r *receives) drop(id wire.ConsumerID) {
	r.mu.Lock()
	p := r.consumers[id]
	if p != nil {
		r.remove(p)
	}
	r.mu.Unlock()
	if p != nil {
		p.conn.Reply(p.corr, wire.OpReceive, encoded(wire.Received{Status: wire.StatusStale, Next: p.request.First}))
	}
}

// add enters a receive in the tables. Called with mu held, as the three below.
func (r *receives) add(p *pending) {
	r.consumers[p.request.Consumer] = p
	if r.conns[p.conn] == nil {
		r.conns[p.conn] = make(map[*pending]bool)
	}
	r.conns[p.conn][p] = true
	if p.queue = r.queues[p.request.Queue]; p.queue == nil {
		p.queue = &waitList{}
		r.queues[p.request.Queue] = p.queue
	}
	p.at = p.queue.PushBack(p)
}

func (r *receives) remove(p *pending) {
	p.over = true
	delete(r.consumers, p.request.Consumer)
	if delete(r.conns[p.conn], p); len(r.conns[p.conn]) == 0 {
		delete(r.conns, p.conn)
	}
	if p.queue.Remove(p.at); p.queue.Len() == 0 {
		delete(r.queues, p.request.Queue)
	}
}

// try marks a receive that is to be proposed; false when it is already, or over.
func (r *receives) try(p *pending) bool {
	if p.over || p.flying {
		return false
	}
	p.flying, p.tried = true, p.queue.wave
	return true
}

// next marks the oldest receives that have not tried in this wave, as many as want
// so many messages together.
func (q *waitList) next(r *receives, messages uint64) (fly []*pending) {
	for e := q.Front(); e != nil && messages > 0; e = e.Next() {
		p := e.Value.(*pending)
		switch {
		case p.flying:
			p.tried = q.wave // its entry comes after the news
		case p.tried == q.wave || !r.try(p):
			continue
		default:
			fly = append(fly, p)
		}
		messages -= min(messages, uint64(p.request.Limit))
	}
	return fly
}

func (r *receives) fly(p *pending) {
	r.propose(fsm.KindReceive, p.payload, func(o outcome) { r.applied(p, o) })
}

// applied takes what became of a proposed receive. One that took nothing lets the
// next try, and waits on if it found nothing. One that was refused waits on as well, and
// the oldest try again a moment later: whoever tried now would be refused too. Where it
// is not known whether it came to the log, its sender has to know that.
func (r *receives) applied(p *pending, o outcome) {
	refused := o.Err != nil && o.Err.Code != wire.CodeOutcomeUnknown
	nothing := o.Err == nil && len(o.Result.Receive.Deliveries) == 0
	r.mu.Lock()
	p.flying = false
	// What was leased for one that is over is for its repeat; without one the
	// leases run out.
	over := p.over
	waits := (refused || nothing && o.Result.Status == fsm.StatusOK) && r.active && r.mono() < p.until
	if refused {
		p.tried = p.queue.wave - 1
		p.queue.owed += uint64(p.request.Limit)
	}
	if !over && !waits {
		r.remove(p)
	}
	var fly []*pending
	if nothing {
		fly = p.queue.next(r, 1)
	}
	r.mu.Unlock()
	for _, other := range fly {
		r.fly(other)
	}
	switch {
	case over || waits:
	case o.Err != nil:
		p.conn.Error(p.corr, *o.Err)
	default:
		r.answer(p, o.Result)
	}
}

// answer sends what was leased, then the answer. Bodies are read when the socket
// takes them, by the connection's writer.
func (r *receives) answer(p *pending, res *fsm.Result) {
	reply := receivedReply(res)
	if len(res.Receive.Deliveries) == 0 {
		p.conn.Reply(p.corr, wire.OpReceive, encoded(reply))
		return
	}
	send := &registration{hub: r.hub, consumer: fsm.ConsumerID(p.request.Consumer), conn: p.conn, pending: res.Receive.Deliveries, armed: true}
	send.last = func(leads bool) {
		if !leads {
			// How long the leases last is not known here any more. The next leader
			// knows, when it is asked again.
			p.conn.Error(p.corr, *r.refusal())
			return
		}
		p.conn.Reply(p.corr, wire.OpReceive, encoded(reply))
	}
	send.arm(len(send.pending))
}

// ready wakes receives for messages that nobody took. Called by the goroutine that
// applies, after it has answered the entry's commands.
func (r *receives) ready(news []fsm.ReadyQueue) {
	for _, n := range news {
		r.mu.Lock()
		var fly []*pending
		if q := r.queues[n.Name]; q != nil && r.active {
			q.wave++
			fly = q.next(r, n.Messages)
		}
		r.mu.Unlock()
		for _, p := range fly {
			r.fly(p)
		}
	}
}

// expire answers those that have waited long enough, and lets those try again that
// were refused. What is proposed has its answer from that. Called by the ticker.
func (r *receives) expire() {
	now := r.mono()
	r.mu.Lock()
	var over, again []*pending
	for _, p := range r.consumers {
		if !p.flying && p.until <= now {
			over = append(over, p)
		}
	}
	for _, p := range over {
		r.remove(p)
	}
	for _, q := range r.queues {
		if q.owed > 0 && r.active {
			owed := q.owed
			for e := q.Front(); e != nil && owed > 0; e = e.Next() {
				if p := e.Value.(*pending); p.tried != q.wave && r.try(p) {
					again = append(again, p)
					owed -= min(owed, uint64(p.request.Limit))
				}
			}
			q.owed = 0
		}
	}
	r.mu.Unlock()
	for _, p := range over {
		p.conn.Reply(p.corr, wire.OpReceive, encoded(wire.Received{Status: wire.StatusOK, Next: p.request.First}))
	}
	for _, p := range again {
		r.fly(p)
	}
}

// disconnected forgets the receives of a connection.
func (r *receives) disconnected(c conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.conns[c] {
		r.remove(p)
	}
}

// start lets receives wait: the node serves as leader.
func (r *receives) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active = true
}

// reset sends those that wait to the next leader.
func (r *receives) reset() {
	r.mu.Lock()
	r.active = false
	var over []*pending
	for _, p := range r.consumers {
		if !p.flying {
			over = append(over, p)
		}
	}
	for _, p := range over {
		r.remove(p)
	}
	r.mu.Unlock()
	if len(over) == 0 {
		return
	}
	refused := *r.refusal()
	for _, p := range over {
		p.conn.Error(p.corr, refused)
	}
}
