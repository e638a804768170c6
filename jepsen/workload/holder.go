package workload

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"onceq/jepsen/history"
	"onceq/jepsen/raw"
	"onceq/transport/wire"
)

const (
	holderCredit   = 100 // at most
	creditLeast    = 10
	settleTimeout  = 3 * time.Second
	attachTimeout  = 5 * time.Second
	neverPercent   = 2
	holderLifeMin  = 6 * time.Second
	holderLifeMost = 20 * time.Second
)

// holder is one life of a raw consumer: one consumer id.
type holder struct {
	w     *World
	queue string
	proc  string
	peers *peers // for settles over other connections
	at    string // address of the node it is attached at; written by the goroutine that lives, with mu held
	id    wire.ConsumerID
	bad   context.Context // while it lasts the consumer misbehaves; afterwards it drains
	how   holding
	takes int // its credit: a small one is used up by a stall

	mu       sync.Mutex // guards what follows
	r        *rand.Rand
	n        uint64
	conn     *raw.Conn
	attached bool
	next     uint64 // the next number expected
	open     map[uint64]*held
	over     bool // the cluster has given it up
	doneSent uint64
	ended    bool // its end is written
	tasks    sync.WaitGroup

	moving chan time.Duration // it shall move to another connection, and leave the old one after so long
}

// held is a delivery without a definite answer.
type held struct {
	number  uint64
	id      string
	seq     uint64
	attempt int
	gone    chan struct{} // closed when it is not held any more
	once    sync.Once
}

func (h *held) end() { h.once.Do(func() { close(h.gone) }) }

// holding is how a holder goes about.
type holding struct {
	lease time.Duration // of the queue
	// lossy: it cuts its connection right behind a settle or before deliveries are
	// read, and attaches again with the list of what it has no answer for; or it
	// attaches over another connection, and the end of the old one meets that. It
	// lives as long as the run.
	lossy bool
	// asks: it is not attached. It may be sent once more what it has, and is gone when
	// it has held nothing for a lease time.
	asks bool
	// pass, when it is set, settles a delivery in place of treat.
	pass func(s *holder, h *held, r *rand.Rand)
}

// misbehave consumes until ctx ends, and misbehaves while bad lasts.
func misbehave(ctx, bad context.Context, w *World, queue, name string, how holding) {
	r := w.rng(name)
	for life := 1; ctx.Err() == nil; life++ {
		s := newHolder(bad, w, queue, name+"."+strconv.Itoa(life), r)
		s.how, s.takes, s.moving = how, creditLeast+r.IntN(holderCredit-creditLeast+1), make(chan time.Duration)
		s.live(ctx, r)
		s.peers.close()
		s.tasks.Wait()
	}
}

// newHolder makes a consumer that nobody has heard of.
func newHolder(bad context.Context, w *World, queue, proc string, r *rand.Rand) *holder {
	s := &holder{
		w: w, queue: queue, proc: proc, bad: bad, r: rand.New(rand.NewPCG(r.Uint64(), 1)), next: 1, open: map[uint64]*held{},
		peers: newPeers(w, proc),
	}
	_, _ = crand.Read(s.id[:]) // never fails
	return s
}

// live is one life: it keeps attached until its time is over or the cluster has
// given it up.
func (s *holder) live(ctx context.Context, r *rand.Rand) {
	living, cancel := context.WithTimeout(ctx, between(r, holderLifeMin, holderLifeMost))
	defer cancel()
	dies := r.IntN(100) < diePercent
	if s.bad.Err() != nil || s.how.lossy {
		living = ctx // no coming and going, not while the queue is drained either
	}
	for living.Err() == nil && !s.isOver() {
		c := s.attach(living)
		if c == nil {
			pause(living, 100*time.Millisecond)
			continue
		}
		for moved := s.attend(living, c); moved != nil; moved = s.attend(living, c) {
			c = moved
		}
		if living.Err() == nil || dies && s.bad.Err() == nil {
			s.detach(c, living.Err() != nil)
			continue
		}
		s.leave(c)
		s.detach(c, false)
	}
	s.mu.Lock()
	if !s.over && !s.ended {
		s.die() // its time was over while it had no connection
	}
	s.over = true
	for _, h := range s.open {
		h.end()
	}
	clear(s.open)
	s.mu.Unlock()
}

func (s *holder) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// detach ends a connection. When the consumer dies that is written first.
func (s *holder) detach(c *raw.Conn, dies bool) {
	s.mu.Lock()
	s.attached, s.conn = false, nil
	if dies {
		s.ended = true
		s.die()
	}
	s.mu.Unlock()
	c.Close()
}

// gone: the cluster has given the consumer up. s.mu is held.
func (s *holder) gone() {
	if !s.over && !s.how.asks {
		now := s.w.H.Now()
		s.w.H.Add(history.Event{Proc: s.proc, Client: s.proc, F: history.Gone, Type: history.OK, T0: now, T1: now, Of: -1, Key: s.queue})
	}
	s.over = true
}

func (s *holder) die() {
	now := s.w.H.Now()
	s.w.H.Add(history.Event{Proc: s.proc, Client: s.proc, F: history.Die, Type: history.OK, T0: now, T1: now, Of: -1, Key: s.queue})
}

// attend keeps the cluster informed until the connection or the life ends, or it
// is attached over another connection, which it returns.
func (s *holder) attend(ctx context.Context, c *raw.Conn) (moved *raw.Conn) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	term := s.peers.inTerm()
	for {
		select {
		case <-t.C:
		case after := <-s.moving:
			return s.move(ctx, c, after)
		case <-c.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
		// A new term has detached everybody, also when the same node leads in it.
		if s.isOver() || !s.peers.leads(s.at) || s.peers.inTerm() != term {
			return nil
		}
		s.mu.Lock()
		done, sent := s.done(), s.doneSent
		s.doneSent = done
		s.mu.Unlock()
		if done != sent { // without it the numbers run out when nothing is left to settle
			asking, cancel := context.WithTimeout(ctx, settleTimeout)
			_, _ = c.Call(asking, wire.OpSettle, s.request(done, nil)) // the next one will do
			cancel()
		}
	}
}

// move attaches over another connection to the same node, while the old one ends:
// the node hears of that end before the attach, after it, or with it under way. nil
// when nothing came of it.
func (s *holder) move(ctx context.Context, old *raw.Conn, after time.Duration) *raw.Conn {
	dialling, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	c, err := raw.Dial(dialling, s.w.Dial(s.proc), s.at, s.proc, s.push)
	if err != nil {
		return nil
	}
	s.tasks.Go(func() {
		time.Sleep(after)
		old.Close()
	})
	if !s.attachOn(dialling, c) {
		c.Close()
		old.Close()
		return nil
	}
	return c
}

// done is the lowest number without a definite answer. s.mu is held.
func (s *holder) done() uint64 {
	low := s.next
	for n := range s.open {
		low = min(low, n)
	}
	return low
}

func (s *holder) request(done uint64, items []wire.SettleItem) wire.Settle {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := wire.Settle{Consumer: s.id, Done: done, Items: items}
	if s.conn != nil {
		w.Incarnation, w.Group = s.conn.Welcome.Incarnation, s.conn.Welcome.Topology.Group
	}
	return w
}

// attach makes the consumer known at the leader, or resumes it.
func (s *holder) attach(ctx context.Context) *raw.Conn {
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	s.mu.Lock()
	to := s.peers.toLeader(s.r)
	s.mu.Unlock()
	c, err := raw.Dial(ctx, s.w.Dial(s.proc), to.address, s.proc, s.push)
	if err != nil {
		s.peers.mu.Lock()
		s.peers.leader = "" // look around
		s.peers.mu.Unlock()
		return nil
	}
	s.peers.learn(c.Welcome.Topology)
	s.mu.Lock()
	s.at = to.address
	s.mu.Unlock()
	if s.attachOn(ctx, c) {
		return c
	}
	c.Close()
	return nil
}

func (s *holder) attachOn(ctx context.Context, c *raw.Conn) bool {
	s.mu.Lock()
	s.n++
	s.conn = c
	request := wire.Attach{
		Incarnation: c.Welcome.Incarnation, Group: c.Welcome.Topology.Group, Consumer: s.id, N: s.n, Queue: s.queue,
		Credit: uint32(s.takes), Label: s.proc, Done: s.done(),
	}
	listed := map[uint64]*held{}
	for n := request.Done; n < s.next; n++ {
		if h := s.open[n]; h != nil {
			request.Unsettled = append(request.Unsettled, wire.Range{From: n, To: n})
			listed[n] = h
		}
	}
	first := s.n == 1
	s.mu.Unlock()
	op := s.w.H.Invoke(history.Event{Proc: s.proc, Client: s.proc, Node: c.Welcome.Node, F: history.Attach, Key: s.queue, Attempt: int(request.N), Credit: s.takes})
	payload, err := c.Call(ctx, wire.OpAttach, request)
	var reply wire.Attached
	if err == nil {
		reply, err = wire.DecodeAttached(payload)
	}
	if err != nil {
		op.Err = err.Error()
		s.w.H.Complete(op, history.Info)
	} else {
		op.Text, op.Listed = reply.Status.String(), s.told(listed, reply.States)
		s.w.H.Complete(op, history.OK)
	}
	if err != nil {
		if s.peers.answer(err) && first {
			s.mu.Lock()
			s.n-- // nothing was appended: the first attach of a consumer is number 1
			s.mu.Unlock()
		}
		return false
	}
	switch reply.Status {
	case wire.StatusOK:
	case wire.StatusConsumerGone, wire.StatusWrongIncarnation:
		s.mu.Lock()
		s.gone()
		s.mu.Unlock()
		return false
	default:
		return false
	}
	s.mu.Lock()
	s.attached = true
	s.mu.Unlock()
	s.states(reply.States)
	return true
}

// told is what the cluster says of the deliveries that were listed.
func (s *holder) told(listed map[uint64]*held, states []wire.DeliveryState) []history.Item {
	var items []history.Item
	for _, st := range states {
		for n := st.From; n <= st.To; n++ {
			if h := listed[n]; h != nil {
				items = append(items, history.Item{ID: h.id, Attempt: h.attempt, State: st.State.String()})
			}
		}
	}
	return items
}

// states takes what the cluster says of deliveries. What is not held any more is
// still open: who treats it settles it all the same, to hear the truth.
func (s *holder) states(states []wire.DeliveryState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range states {
		if st.State == wire.LeaseHeld {
			continue
		}
		for n := st.From; n <= st.To && n < s.next; n++ {
			if h := s.open[n]; h != nil {
				h.end()
			}
		}
	}
}

// push runs on the reader of a connection.
func (s *holder) push(op wire.Op, payload []byte, gap time.Duration) {
	switch op {
	case wire.OpTopology:
		s.peers.push(op, payload, gap)
	case wire.OpDeliver:
		if d, err := wire.DecodeDeliver(payload); err == nil && d.Consumer == s.id {
			for _, x := range d.Deliveries {
				s.deliver(d.N, x, gap)
			}
		}
	case wire.OpLost:
		if l, err := wire.DecodeLost(payload); err == nil && l.Consumer == s.id {
			if l.Gone {
				s.mu.Lock()
				s.gone()
				s.mu.Unlock()
			}
			s.states(l.Lost)
		}
	}
}

func (s *holder) deliver(n uint64, x wire.Delivery, gap time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < s.n || s.over {
		return // of an older attachment
	}
	m, err := wire.DecodeMessage(x.Message)
	id := fmt.Sprintf("?/%d", x.Offset)
	if err == nil {
		id, err = idOf(m.Body, m.BizID)
	}
	now := s.w.H.Now()
	if x.Number < s.next && s.how.asks {
		return
	}
	if x.Number < s.next {
		s.w.H.Add(history.Event{
			Proc: s.proc, Client: s.proc, F: history.Resent, Type: history.OK, T0: now, T1: now, Of: -1, Key: s.queue, ID: id,
			Seq: x.Offset, Attempt: int(x.Attempt), Lease: fmt.Sprintf("%s:%d", s.proc, x.Number),
		})
		return
	}
	s.next = x.Number + 1
	e := history.Event{
		Proc: s.proc, Client: s.proc, F: history.Deliver, Type: history.OK, T0: now, T1: now, Of: -1, Key: s.queue, ID: id,
		Seq: x.Offset, Lease: fmt.Sprintf("%s:%d", s.proc, x.Number), Attempt: int(x.Attempt),
		// What remained when it was sent, which may have been a while ago.
		Hold: max(1, int64(x.Remaining-gap)), Carried: carried(m),
	}
	if err != nil {
		e.Err = err.Error()
	}
	s.w.H.Add(e)
	s.w.Count.Delivered.Add(1)
	h := &held{number: x.Number, id: id, seq: x.Offset, attempt: int(x.Attempt), gone: make(chan struct{})}
	s.open[x.Number] = h
	seed := s.r.Uint64()
	s.tasks.Go(func() { s.treat(h, rand.New(rand.NewPCG(seed, 1))) })
}

// treat does to a delivery what a well-behaved consumer would not.
func (s *holder) treat(h *held, r *rand.Rand) {
	kind := r.IntN(100)
	if s.bad.Err() != nil {
		kind = 99
	}
	if s.how.lossy && kind < lossyPercent {
		s.hangUp(r)
		kind = 99
	}
	if s.how.pass != nil {
		s.how.pass(s, h, r)
		return
	}
	// wait is false when the delivery has its answer: then a late settle follows all
	// the same, now and then.
	wait := func(d time.Duration) bool {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return true
		case <-h.gone:
			return false
		}
	}
	switch {
	case kind < 6: // late, maybe past the lease
		wait(between(r, s.how.lease/2, s.how.lease*2))
		s.settle(h, wire.VerbAck, 0, false, true)
	case kind < 12: // twice, one after the other
		s.settle(h, wire.VerbAck, 0, false, false)
		s.settle(h, wire.VerbAck, 0, false, true)
	case kind < 18: // twice at once, over two connections
		var wg sync.WaitGroup
		wg.Go(func() { s.settle(h, wire.VerbAck, 0, true, false) })
		s.settle(h, wire.VerbAck, 0, false, false)
		wg.Wait()
		s.settle(h, wire.VerbAck, 0, false, true)
	case kind < 24: // from elsewhere
		s.settle(h, wire.VerbAck, 0, true, true)
	case kind < 30:
		s.settle(h, wire.VerbNack, between(r, 0, time.Second), false, true)
	case kind < 33: // it thinks better of it
		s.settle(h, wire.VerbNack, 0, false, false)
		s.settle(h, wire.VerbAck, 0, false, true)
	case kind < 39: // long work
		for range 1 + r.IntN(3) {
			if !wait(s.how.lease / 2) {
				break
			}
			s.settle(h, wire.VerbExtend, 0, false, false)
		}
		s.settle(h, wire.VerbAck, 0, false, true)
	case kind < 39+neverPercent: // forgotten until the lease is over
		wait(s.how.lease * 4)
		s.settle(h, wire.VerbAck, 0, false, true)
	default:
		wait(between(r, 0, 30*time.Millisecond))
		s.settle(h, wire.VerbAck, 0, false, true)
	}
}

// settle settles until there is an answer, and writes each try. With last, the
// answer is taken for definite.
func (s *holder) settle(h *held, verb wire.SettleVerb, delay time.Duration, elsewhere, last bool) {
	f := map[wire.SettleVerb]string{wire.VerbAck: history.Ack, wire.VerbNack: history.Nack, wire.VerbExtend: history.Extend}[verb]
	for tries := 0; ; tries++ {
		s.mu.Lock()
		done, over := s.done(), s.over
		s.mu.Unlock()
		if over {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		c := s.reach(ctx, elsewhere)
		if c == nil {
			cancel()
			time.Sleep(100 * time.Millisecond)
			continue
		}
		op := s.w.H.Invoke(history.Event{
			Proc: s.proc, Client: s.proc, Node: c.Welcome.Node, F: f, Key: s.queue, ID: h.id, Seq: h.seq,
			Lease: fmt.Sprintf("%s:%d", s.proc, h.number), Attempt: h.attempt,
		})
		payload, err := c.Call(ctx, wire.OpSettle, wire.Settle{
			Incarnation: c.Welcome.Incarnation, Group: c.Welcome.Topology.Group, Consumer: s.id, Done: done,
			Items: []wire.SettleItem{{From: h.number, To: h.number, Verb: verb, Time: delay}},
		})
		cancel()
		if s.settled(h, op, verb, payload, err) {
			if last {
				s.mu.Lock()
				h.end()
				delete(s.open, h.number)
				s.mu.Unlock()
			}
			return
		}
		if verb == wire.VerbExtend {
			return
		}
		time.Sleep(time.Duration(min(tries+1, 10)) * 20 * time.Millisecond)
	}
}

// reach is a connection to the leader: its own, unless it is to be another or that one
// leads nowhere any more, which nobody may mend before what it is needed for is done.
// Nil when there is none now.
func (s *holder) reach(ctx context.Context, elsewhere bool) *raw.Conn {
	s.mu.Lock()
	c, at, to := s.conn, s.at, s.peers.toLeader(s.r)
	s.mu.Unlock()
	if elsewhere || c == nil || !alive(c) || !s.peers.leads(at) {
		return s.peers.get(ctx, to)
	}
	return c
}

// settled writes the answer to a settle. It is false when there was none.
func (s *holder) settled(h *held, op history.Event, verb wire.SettleVerb, payload []byte, err error) bool {
	var reply wire.SettleReply
	if err == nil {
		reply, err = wire.DecodeSettleReply(payload)
	}
	switch {
	case err != nil:
		op.Err = err.Error()
		if s.peers.answer(err) {
			// Nothing was settled by this try: it is not an answer about the lease.
			op.F, op.Text = history.Nothing, op.F
			s.w.H.Complete(op, history.Fail)
		} else {
			s.w.H.Complete(op, history.Info)
		}
		return false
	case reply.Status == wire.StatusConsumerGone:
		op.Err = "consumer gone"
		s.w.H.Complete(op, history.Info)
		s.mu.Lock()
		s.gone()
		s.mu.Unlock()
		return true
	case reply.Status != wire.StatusOK || len(reply.Results) != 1:
		op.Err = errors.New("unexpected: " + reply.Status.String()).Error()
		s.w.H.Complete(op, history.Info)
		return false
	}
	state := reply.Results[0].State
	op.Err = state.String()
	switch {
	case verb == wire.VerbAck && state == wire.LeaseAcked, verb == wire.VerbNack && state == wire.LeaseNacked,
		verb == wire.VerbExtend && state == wire.LeaseHeld:
		op.Err = ""
		if verb == wire.VerbAck {
			s.w.Count.Acked.Add(1)
		}
		if verb == wire.VerbExtend {
			op.Hold = int64(s.how.lease)
		}
		s.w.H.Complete(op, history.OK)
	case state == wire.LeaseUnknown:
		s.w.H.Complete(op, history.Info) // below done: the answer was taken for definite before
	default:
		s.w.Count.Lost.Add(1)
		s.w.H.Complete(op, history.Fail)
	}
	return true
}

// leave ends the consumer in order. What it still holds goes back.
func (s *holder) leave(c *raw.Conn) {
	op := s.w.H.Invoke(history.Event{Proc: s.proc, Client: s.proc, F: history.Leave, Key: s.queue})
	s.mu.Lock()
	s.over = true
	request := wire.Leave{
		Incarnation: c.Welcome.Incarnation, Group: c.Welcome.Topology.Group, Consumer: s.id, N: s.n, Done: s.done(),
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	if _, err := c.Call(ctx, wire.OpLeave, request); err != nil {
		op.Err = err.Error()
		s.w.H.Complete(op, history.Info)
		return
	}
	s.w.H.Complete(op, history.OK)
}
