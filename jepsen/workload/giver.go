package workload

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/raw"
	"onceq/transport/wire"
)

const (
	giveUpPercent = 50 // of receives
	waitMost      = 2 * time.Second
	briefly       = 30 * time.Millisecond
)

// giver is one life of a raw consumer that asks, and often does not wait for the
// answer: one consumer id. What is handed out to it then must not stay with nobody.
type giver struct {
	*holder
	// dies: it tells nobody that it has given up, and is never heard of again: its
	// leases have to run out. Otherwise it says so until somebody has heard it, and
	// what it was given is back at once.
	dies bool

	pushing   sync.Mutex // guards what follows; held while deliveries are taken in
	listening bool
	receive   *asking // under way, or the last one
}

// asking is one receive.
type asking struct {
	first uint64
	seen  func()        // called when a delivery comes
	over  chan struct{} // closed when it is known what becomes of those that came
	taken bool          // they are settled
}

// askAndGiveUp consumes until ctx ends, and gives up while bad lasts.
func askAndGiveUp(ctx, bad context.Context, w *World, queue, name string, lease time.Duration, dies bool) {
	r := w.rng(name)
	for life := 1; ctx.Err() == nil; life++ {
		g := &giver{dies: dies, holder: newHolder(bad, w, queue, name+"."+strconv.Itoa(life), r)}
		g.how = holding{lease: lease, asks: true, pass: g.treat}
		g.live(ctx, r)
		g.peers.close()
	}
}

func (g *giver) live(ctx context.Context, r *rand.Rand) {
	living, cancel := context.WithTimeout(ctx, between(r, holderLifeMin, holderLifeMost))
	defer cancel()
	stop := context.AfterFunc(ctx, g.finish)
	defer stop()
	for ctx.Err() == nil && !g.isOver() && (living.Err() == nil || g.bad.Err() != nil) {
		if c := g.line(ctx); c == nil || !g.ask(ctx, c, r) {
			pause(ctx, 100*time.Millisecond)
		}
	}
	g.finish()
	g.hangUpOn()
}

// finish ends what is under way.
func (g *giver) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	for _, h := range g.open {
		h.end()
	}
}

// line is a connection of its own to where the leader is.
func (g *giver) line(ctx context.Context) *raw.Conn {
	g.mu.Lock()
	c, to := g.conn, g.peers.toLeader(g.r)
	g.mu.Unlock()
	if c != nil && alive(c) && g.peers.leads(g.at) {
		return c
	}
	g.hangUpOn()
	dialling, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	c, err := raw.Dial(dialling, g.w.Dial(g.proc), to.address, g.proc, g.push)
	if err != nil {
		g.peers.mu.Lock()
		g.peers.leader = "" // look around
		g.peers.mu.Unlock()
		return nil
	}
	g.peers.learn(c.Welcome.Topology)
	g.mu.Lock()
	g.conn, g.at = c, to.address
	g.mu.Unlock()
	return c
}

// hangUpOn ends the connection, if there is one.
func (g *giver) hangUpOn() {
	g.mu.Lock()
	c := g.conn
	g.conn = nil
	g.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

func (g *giver) push(op wire.Op, payload []byte, gap time.Duration) {
	g.pushing.Lock()
	defer g.pushing.Unlock()
	if op == wire.OpDeliver {
		if !g.listening {
			return
		}
		g.receive.seen()
	}
	g.holder.push(op, payload, gap)
}

// listen takes deliveries in for a receive, hear decides what becomes of them: no
// more are taken in.
func (g *giver) listen(a *asking) {
	g.pushing.Lock()
	defer g.pushing.Unlock()
	g.listening, g.receive = true, a
}

func (g *giver) hear(a *asking, taken bool) {
	g.pushing.Lock()
	defer g.pushing.Unlock()
	if g.listening {
		g.listening, a.taken = false, taken
		close(a.over)
	}
}

// treat is one delivery: it waits until its receive has its answer.
func (g *giver) treat(s *holder, h *held, r *rand.Rand) {
	g.pushing.Lock()
	a := g.receive
	g.pushing.Unlock()
	<-a.over
	switch kind := r.IntN(100); {
	case !a.taken:
	case g.bad.Err() == nil && kind < 5:
		s.settle(h, wire.VerbNack, between(r, 0, nackDelayMost), false, true)
	case g.bad.Err() == nil && kind < 10:
		s.settle(h, wire.VerbAck, 0, true, true)
	default:
		s.settle(h, wire.VerbAck, 0, false, true)
	}
}

// ask is one receive, until everything that came of it is settled, or is said to be
// released. False: it is better not to ask again at once.
func (g *giver) ask(ctx context.Context, c *raw.Conn, r *rand.Rand) bool {
	g.mu.Lock()
	request := wire.Receive{
		Incarnation: c.Welcome.Incarnation, Group: c.Welcome.Topology.Group, Consumer: g.id, Queue: g.queue, Label: g.proc,
		First: g.next, Done: g.done(), Limit: uint32(1 + r.IntN(pullAtOnce)), Wait: between(r, 0, waitMost),
	}
	g.mu.Unlock()
	a := &asking{first: request.First, seen: func() {}, over: make(chan struct{})}
	// What came is settled or forgotten before the next one.
	defer g.tasks.Wait()
	defer g.hear(a, true)
	if g.bad.Err() == nil && r.IntN(100) < giveUpPercent {
		g.giveUp(ctx, c, a, request, r)
		return true
	}
	g.listen(a)
	for c != nil && !g.isOver() {
		asking, cancel := context.WithTimeout(ctx, request.Wait+settleTimeout)
		payload, err := c.Call(asking, wire.OpReceive, request)
		cancel()
		if reply, ok := g.received(payload, err); ok {
			return reply.Status == wire.StatusOK
		}
		if err != nil {
			g.hangUpOn() // what is under way there is sent once more elsewhere
		}
		pause(ctx, 100*time.Millisecond)
		for c = g.line(ctx); c == nil && !g.isOver(); c = g.line(ctx) {
			pause(ctx, 100*time.Millisecond)
		}
	}
	return false
}

// received takes the answer to a receive or a release. It is false when the request
// has none, or is to be made once more.
func (g *giver) received(payload []byte, err error) (wire.Received, bool) {
	var reply wire.Received
	if err == nil {
		reply, err = wire.DecodeReceived(payload)
	}
	if err != nil {
		g.peers.answer(err)
		return reply, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch reply.Status {
	case wire.StatusOK, wire.StatusStale:
		g.next = max(g.next, reply.Next)
	case wire.StatusConsumerGone, wire.StatusWrongIncarnation:
		g.gone()
	default:
		return reply, false // the cluster has no room for it now
	}
	return reply, true
}

// giveUp sends a receive and goes away: at once, soon, or when the first of what it
// gets is there.
func (g *giver) giveUp(ctx context.Context, c *raw.Conn, a *asking, request wire.Receive, r *rand.Rand) {
	patience := []time.Duration{0, between(r, 0, briefly), waitMost}[r.IntN(3)]
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if patience == waitMost {
		a.seen = cancel
	}
	g.listen(a)
	_, _ = c.Call(waiting, wire.OpReceive, request) // it does not care
	f := history.Leave
	if g.dies {
		f = history.Die
	}
	op := g.w.H.Invoke(history.Event{Proc: g.proc, Client: g.proc, F: f, Key: g.queue})
	g.hear(a, false)
	if g.dies {
		g.w.H.Complete(op, history.OK)
		g.finish()
		return
	}
	if r.IntN(2) == 0 {
		g.hangUpOn()
	}
	if g.release(ctx, a, request) {
		g.w.H.Complete(op, history.OK)
	} else {
		g.w.H.Complete(op, history.Info)
	}
	g.mu.Lock()
	for n, h := range g.open {
		if n >= a.first {
			h.end()
			delete(g.open, n)
		}
	}
	to := g.peers.toLeader(g.r)
	g.mu.Unlock()
	if r.IntN(3) != 0 {
		return
	}
	// A copy that was under way for long: nobody waits for what it gets.
	copying, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if late := g.peers.get(copying, to); late != nil {
		request.Wait = 0
		_, _ = late.Call(copying, wire.OpReceive, request)
	}
	if r.IntN(2) == 0 {
		g.finish() // nor does anybody ask again in its name
	}
}

// release says that a receive was given up until there is an answer, over any
// connection, so that it may overtake the receive. False when there was none.
func (g *giver) release(ctx context.Context, a *asking, request wire.Receive) bool {
	for ctx.Err() == nil {
		g.mu.Lock()
		say := wire.Release{Incarnation: request.Incarnation, Group: request.Group, Consumer: g.id, Queue: g.queue, First: a.first, Done: g.done()}
		g.mu.Unlock()
		trying, cancel := context.WithTimeout(ctx, settleTimeout)
		c := g.reach(trying, false)
		answered := false
		if c != nil {
			payload, err := c.Call(trying, wire.OpRelease, say)
			_, answered = g.received(payload, err)
		}
		cancel()
		if answered {
			return true
		}
		pause(ctx, 50*time.Millisecond)
	}
	return false
}
