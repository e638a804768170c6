package sim

import (
	"fmt"
	"slices"
	"time"

	"onceq/fsm"
	"onceq/fsm/fsmtest"
	"onceq/jepsen/history"
	"onceq/transport/wire"
)

const (
	lightPing    = 400 * time.Millisecond
	lightSilent  = 1500 * time.Millisecond
	lightTimeout = 250 * time.Millisecond
	lightHasty   = 60 // one in so many copies is a seal
	lightLate    = 4 * time.Second
	lightOpen    = 40 // sequences of a producer
	lightClosed  = 10 // messages of a producer that are sent once more after days
	lightCredit  = 12
	lightLease   = 3 * time.Second
	lightQueue   = "jepsen"
)

// leader is where a client believes the leader to be: mostly it is right.
func (l *light) leader() *lightNode {
	var best *lightNode
	for _, n := range l.nodes {
		if n.up && n.serves && (best == nil || n.term > best.term) {
			best = n
		}
	}
	if best == nil || l.r.IntN(15) == 0 {
		return l.nodes[l.r.IntN(len(l.nodes))]
	}
	return best
}

// send carries a request to a node and its answer back. answer is called once:
// with refused, it was not taken; with a nil result, nobody knows. Some requests
// are under way for so long that nobody waits for them any more.
func (l *light) send(from string, n *lightNode, request any, answer func(r *fsm.Result, refused bool)) {
	done := false
	once := func(r *fsm.Result, refused bool) {
		if !done {
			done = true
			answer(r, refused)
		}
	}
	l.in(lightTimeout, func() { once(nil, false) })
	if !l.open(from, n.name) {
		return
	}
	way := l.any(l.delay)
	if l.r.IntN(40) == 0 && !l.ending {
		way = l.any(lightLate)
	}
	back := func(r *fsm.Result, refused bool) {
		if !l.open(n.name, from) || r == nil && !refused {
			return
		}
		l.in(l.any(l.delay), func() { once(r, refused) })
	}
	l.in(way, func() {
		if !n.ask(command{request, func(r *fsm.Result) { back(r, false) }}) {
			back(nil, true)
		}
	})
}

// lightProducer is one session. It sends copies as a client may, and as one may
// not: late ones, and ones below the floor.
type lightProducer struct {
	l       *light
	name    string
	session fsm.SessionResult
	nonce   wire.Nonce
	opening bool
	ended   map[uint64]bool // sessions that the cluster has said it does not know any more
	made    int             // messages
	next    uint64          // sequence
	open    []*lightMessage // in order
	closed  []*lightMessage // the newest of those whose outcome is final
}

type lightMessage struct {
	id       string
	session  fsm.SessionResult
	sequence uint64
	after    *lightMessage
	message  wire.Message
	began    time.Time
	final    bool
	sealed   bool
}

// before is the one that a copy of now names: of those before it the newest that may
// still be stored, or is.
func (m *lightMessage) before() *lightMessage {
	for m = m.after; m != nil && m.sealed; m = m.after {
	}
	return m
}

func (p *lightProducer) start() {
	p.opening = true
	p.l.send(p.name, p.l.leader(), wire.OpenSession{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Nonce: p.nonce, Label: p.name},
		func(r *fsm.Result, _ bool) {
			if r == nil || r.Status != fsm.StatusOK {
				p.l.in(p.l.any(100*time.Millisecond), p.start)
				return
			}
			p.session, p.opening = r.Session, false
		})
}

// expired: the cluster does not know a session any more. What has no outcome never gets
// one, and another session begins.
func (p *lightProducer) expired(session uint64) {
	p.ended[session] = true
	if p.opening || session != p.session.Number {
		return
	}
	for _, m := range slices.Clone(p.open) {
		p.finish(m)
	}
	p.next = 0
	p.nonce[1]++
	p.start()
}

func (p *lightProducer) produce() {
	if p.l.ending {
		return
	}
	p.l.in(p.l.any(60*time.Millisecond), p.produce)
	if len(p.open) >= lightOpen || p.opening || p.l.asleep {
		return
	}
	p.made++
	p.next++
	id := fmt.Sprintf("%s-%d", p.name, p.made)
	m := &lightMessage{id: id, session: p.session, sequence: p.next, began: time.Now(), message: wire.Message{Body: []byte(id), BizID: id}}
	if len(p.open) > 0 {
		m.after = p.open[len(p.open)-1]
	}
	p.open = append(p.open, m)
	p.copies(m)
}

// copies sends copies until there is an outcome, and seals what takes long.
func (p *lightProducer) copies(m *lightMessage) {
	if m.final {
		return
	}
	switch {
	case p.l.asleep:
	case time.Since(m.began) > 20*lightTimeout || p.l.r.IntN(lightHasty) == 0:
		p.seal(m)
	default:
		p.copy(m)
		if p.l.r.IntN(6) == 0 {
			p.copy(m)
		}
	}
	p.l.in(lightTimeout+p.l.any(lightTimeout), func() { p.copies(m) })
}

func (p *lightProducer) floor() uint64 {
	if len(p.open) > 0 {
		return p.open[0].sequence
	}
	return p.next + 1
}

// floorOf is the floor that a copy names: of a session that has ended nobody raises it.
func (p *lightProducer) floorOf(m *lightMessage) uint64 {
	if m.session.Number != p.session.Number {
		return 1
	}
	return min(p.floor(), m.sequence)
}

func (p *lightProducer) inner(m *lightMessage) string {
	return fmt.Sprintf("s%d.%d", m.session.Number, m.sequence)
}

func (p *lightProducer) copy(m *lightMessage) {
	invoke := history.Event{Proc: p.name + "/" + m.id, Client: p.name, F: history.Publish, Key: lightQueue, ID: m.id, Copies: 1, Inner: p.inner(m)}
	after := uint64(0)
	if b := m.before(); b != nil {
		after, invoke.After = b.sequence, b.id
	}
	messages := []wire.Message{m.message}
	frame := wire.PublishFrame{
		Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Session: m.session.Number, Epoch: m.session.Epoch, Floor: p.floorOf(m), Queue: lightQueue,
		Publishes: []wire.Publish{{Sequence: m.sequence, After: after, Checksum: wire.PublishChecksum(lightQueue, messages), Messages: messages}},
	}
	op, ended := p.l.h.Invoke(invoke), p.ended[m.session.Number]
	p.l.send(p.name, p.l.leader(), frame, func(r *fsm.Result, refused bool) {
		if !refused && r != nil && ended && r.Publish[0].Status != fsm.StatusSessionExpired {
			p.l.fail("%s: session %d had ended, and a copy sent after that is answered %v", m.id, m.session.Number, wire.Status(r.Publish[0].Status))
		}
		switch {
		case refused:
			p.l.h.Complete(op, history.Fail)
		case r == nil:
			p.l.h.Complete(op, history.Info)
		case r.Publish[0].Status == fsm.StatusOK:
			op.Seq, op.Dup = r.Publish[0].Offset, r.Publish[0].Duplicate
			p.l.h.Complete(op, history.OK)
			p.finish(m)
		default:
			op.Err = wire.Status(r.Publish[0].Status).String()
			p.l.h.Complete(op, history.Fail)
			switch r.Publish[0].Status {
			case fsm.StatusSealed:
				m.sealed = true
				p.finish(m)
			case fsm.StatusSessionExpired:
				p.l.expired++
				p.expired(m.session.Number)
			}
		}
	})
}

func (p *lightProducer) seal(m *lightMessage) {
	op := p.l.h.Invoke(history.Event{Proc: p.name, Client: p.name, F: history.Seal, Key: lightQueue, ID: m.id, Inner: p.inner(m)})
	p.l.send(p.name, p.l.leader(), wire.Seal{
		Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Session: m.session.Number, Epoch: m.session.Epoch, Sequences: []uint64{m.sequence},
	}, func(r *fsm.Result, refused bool) {
		switch {
		case refused:
			p.l.h.Complete(op, history.Fail)
		case r == nil:
			p.l.h.Complete(op, history.Info)
		case r.Status == fsm.StatusSessionExpired:
			p.l.h.Complete(op, history.Fail)
			p.expired(m.session.Number)
		default:
			op.Text = map[fsm.Status]string{fsm.StatusOK: "stored", fsm.StatusSealed: "sealed"}[r.Publish[0].Status]
			p.l.h.Complete(op, history.OK)
			if op.Text != "" {
				m.sealed = op.Text == "sealed"
				p.finish(m)
			}
		}
	})
}

// finish: its outcome is final. A copy may come all the same.
func (p *lightProducer) finish(m *lightMessage) {
	if m.final {
		return
	}
	m.final = true
	for len(p.open) > 0 && p.open[0].final {
		p.open = p.open[1:]
	}
	p.closed = append(p.closed, m)
	p.closed = p.closed[max(0, len(p.closed)-lightClosed):]
	if p.l.r.IntN(4) == 0 {
		p.late(m)
	}
}

// late sends a copy after a while.
func (p *lightProducer) late(m *lightMessage) {
	p.l.in(p.l.any(lightLate), func() {
		if !p.l.ending {
			p.copy(m)
		}
	})
}

// lightConsumer is a consumer whose id lives until the cluster gives it up.
type lightConsumer struct {
	l      *light
	name   string
	life   int
	id     fsm.ConsumerID
	n      uint64
	next   uint64
	held   map[uint64]*lightHeld
	at     *lightNode // where it is attached
	joins  int        // attachments, so that what an older connection carries is dropped
	pinged time.Time
	heard  time.Time
	pipe   time.Time // when the last thing pushed arrives
}

type lightHeld struct {
	number  uint64
	id      string
	seq     uint64
	attempt int
}

func (c *lightConsumer) proc() string { return fmt.Sprintf("%s.%d", c.name, c.life) }

// begin begins a life.
func (c *lightConsumer) begin() {
	c.life++
	c.id = fsm.ConsumerID{byte(c.life), byte(c.life >> 8)}
	copy(c.id[2:], c.name)
	c.n, c.next, c.held, c.at, c.heard = 0, 1, map[uint64]*lightHeld{}, nil, time.Time{}
	c.attach()
}

func (c *lightConsumer) done() uint64 {
	low := c.next
	for n := range c.held {
		low = min(low, n)
	}
	return low
}

func (c *lightConsumer) attach() {
	life, first := c.life, c.n == 0
	c.n++
	n := c.n
	listed := map[uint64]*lightHeld{}
	request := wire.Attach{Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Consumer: wire.ConsumerID(c.id), N: n, Queue: lightQueue, Credit: lightCredit, Label: c.proc(), Done: c.done()}
	for k := request.Done; k < c.next; k++ {
		if h := c.held[k]; h != nil {
			request.Unsettled = append(request.Unsettled, wire.Range{From: k, To: k})
			listed[k] = h
		}
	}
	to := c.l.leader()
	op := c.l.h.Invoke(history.Event{Proc: c.proc(), Client: c.proc(), F: history.Attach, Node: to.name, Key: lightQueue, Attempt: int(n)})
	again := func() {
		c.l.in(c.l.any(80*time.Millisecond), func() {
			if c.life == life && c.n == n && c.at == nil {
				c.attach()
			}
		})
	}
	answered := false
	c.l.in(lightTimeout, func() {
		if !answered {
			answered = true
			c.l.h.Complete(op, history.Info)
			again()
		}
	})
	if !c.l.open(c.name, to.name) {
		return
	}
	c.l.in(c.l.any(c.l.delay), func() {
		taken := to.ask(command{request, func(r *fsm.Result) {
			if r == nil || answered {
				return // its connection is gone, and so is what it would have been attached by
			}
			switch {
			case c.life != life || c.n != n:
				return
			case r.Status == fsm.StatusConsumerGone:
				answered = true
				op.Text = wire.Status(r.Status).String()
				c.l.h.Complete(op, history.OK)
				c.gone()
			case r.Status != fsm.StatusOK:
				answered = true
				c.l.h.Complete(op, history.Info)
				again()
			case !c.l.open(to.name, c.name):
				return
			default:
				// The machine has said yes, and this node sends from now on.
				answered = true
				to.attached[c.id] = c
				c.at, c.pinged, c.pipe = to, time.Now(), time.Now()
				c.joins++
				states := r.Attach.States
				c.push(func() {
					op.Text = "ok"
					for _, st := range states {
						for k := st.From; k <= st.To; k++ {
							if h := listed[k]; h != nil {
								op.Listed = append(op.Listed, history.Item{ID: h.id, Attempt: h.attempt, State: wire.LeaseState(st.State).String()})
							}
						}
					}
					c.l.h.Complete(op, history.OK)
				})
			}
		}})
		if !taken && !answered {
			answered = true
			if first && c.life == life {
				c.n-- // nothing was proposed: the first attach is number 1
				n = c.n
			}
			c.l.h.Complete(op, history.Info)
			again()
		}
	})
}

// push brings something over the consumer's connection, in order.
func (c *lightConsumer) push(do func()) {
	joins, at := c.joins, c.at
	if at == nil {
		return
	}
	when := time.Now().Add(c.l.any(c.l.delay))
	if when.Before(c.pipe) {
		when = c.pipe
	}
	c.pipe = when
	c.l.in(time.Until(when), func() {
		if c.at != at || c.joins != joins {
			return
		}
		if !c.l.open(at.name, c.name) {
			c.disconnect() // what is lost on a connection is lost with all behind it
			return
		}
		c.hear()
		do()
	})
}

// disconnect ends the connection; each side notices in its time.
func (c *lightConsumer) disconnect() {
	at, n := c.at, c.n
	if at == nil {
		return
	}
	c.at = nil
	if at.attached[c.id] == c {
		delete(at.attached, c.id)
	}
	id, life := c.id, c.life
	// The node may notice when the consumer is back already.
	c.l.in(c.l.any(500*time.Millisecond), func() {
		at.ask(command{fsmtest.Detach{Consumer: id, N: n}, func(*fsm.Result) {}})
	})
	c.l.in(c.l.any(200*time.Millisecond), func() {
		if c.life == life && c.at == nil {
			c.attach()
		}
	})
}

// hear notes that the cluster was heard, and tells of a silence.
func (c *lightConsumer) hear() {
	now := time.Now()
	if !c.heard.IsZero() && now.Sub(c.heard) >= trialLeast {
		c.l.h.Add(history.Event{Proc: c.proc(), F: history.Silent, Type: history.OK, Of: -1, T0: c.l.h.Since(c.heard), T1: c.l.h.Since(now)})
	}
	c.heard = now
}

func (c *lightConsumer) lose(x fsm.Loss) {
	if x.Gone {
		c.gone()
	}
}

// gone: the cluster has given it up, and it begins anew.
func (c *lightConsumer) gone() {
	if c.at == nil && !c.heard.IsZero() {
		c.hear() // it is cut off, and the silence ends with what it hears now
	}
	now := c.l.h.Now()
	c.l.h.Add(history.Event{Proc: c.proc(), Client: c.proc(), F: history.Gone, Type: history.OK, T0: now, T1: now, Of: -1, Key: lightQueue})
	c.at = nil
	c.begin()
}

func (c *lightConsumer) deliver(d fsm.Delivery, id string, left time.Duration) {
	now := c.l.h.Now()
	e := history.Event{
		Proc: c.proc(), Client: c.proc(), F: history.Deliver, Type: history.OK, T0: now, T1: now, Of: -1, Key: lightQueue, ID: id,
		Seq: d.Offset, Lease: fmt.Sprintf("%s:%d", c.proc(), d.Number), Attempt: int(d.Attempt), Hold: max(1, int64(left)),
	}
	if d.Number < c.next {
		e.F = history.Resent
		c.l.h.Add(e)
		return
	}
	c.next = d.Number + 1
	c.l.h.Add(e)
	h := &lightHeld{d.Number, id, d.Offset, int(d.Attempt)}
	c.held[d.Number] = h
	wait, verb := c.l.any(60*time.Millisecond), wire.VerbAck
	if !c.l.ending {
		switch n := c.l.r.IntN(100); {
		case n < 6:
			verb = wire.VerbNack
		case n < 10:
			wait = c.l.any(2 * lightLease) // maybe past the lease
		}
	}
	life := c.life
	c.l.in(wait, func() { c.settle(life, h, verb) })
}

// settle asks until there is an answer.
func (c *lightConsumer) settle(life int, h *lightHeld, verb wire.SettleVerb) {
	if c.life != life || c.held[h.number] != h {
		return
	}
	f := history.Ack
	if verb == wire.VerbNack {
		f = history.Nack
	}
	op := c.l.h.Invoke(history.Event{
		Proc: c.proc(), Client: c.proc(), F: f, Key: lightQueue, ID: h.id, Seq: h.seq, Lease: fmt.Sprintf("%s:%d", c.proc(), h.number), Attempt: h.attempt,
	})
	again := func() {
		c.l.in(c.l.any(100*time.Millisecond), func() { c.settle(life, h, verb) })
	}
	c.l.send(c.name, c.l.leader(), wire.Settle{
		Incarnation: fsmtest.Incarnation, Group: fsmtest.Group, Consumer: wire.ConsumerID(c.id), Done: c.done(),
		Items: []wire.SettleItem{{From: h.number, To: h.number, Verb: verb}},
	}, func(r *fsm.Result, refused bool) {
		switch {
		case refused:
			op.F, op.Text = history.Nothing, op.F
			c.l.h.Complete(op, history.Fail)
			again()
		case r == nil:
			c.l.h.Complete(op, history.Info)
			again()
		case r.Status != fsm.StatusOK:
			op.Err = wire.Status(r.Status).String()
			c.l.h.Complete(op, history.Info)
			if c.life == life && r.Status == fsm.StatusConsumerGone {
				c.gone()
			}
		default:
			state := wire.LeaseState(r.Settle[0].State)
			switch {
			case verb == wire.VerbAck && state == wire.LeaseAcked, verb == wire.VerbNack && state == wire.LeaseNacked:
				c.l.h.Complete(op, history.OK)
			case state == wire.LeaseUnknown:
				c.l.h.Complete(op, history.Info) // an earlier answer has been taken for definite
			default:
				op.Err = state.String()
				c.l.h.Complete(op, history.Fail)
			}
			if c.life == life {
				delete(c.held, h.number)
			}
		}
	})
}
