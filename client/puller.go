package client

import (
	"slices"
	"sync"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// puller is a consumer that asks for messages. Its deliveries are numbered and
// settled like those of Consume; there is no attachment. At most one Receive at a
// time uses it: the number that it expects next is what names a request.
type puller struct {
	s *consumer
	// unsure is the first number of a receive of which a copy may take something
	// that nobody is told of; 0: none. It belongs to whoever uses the puller.
	unsure uint64

	// Guarded by Client.mu.
	idle bool // nobody uses it
	used bool // since the loop looked
}

// pullerLook is how often a puller looks whether it is needed and what became of
// deliveries that were never settled, until it knows the queue's lease time.
const pullerLook = 30 * time.Second

// takePuller returns a puller of a queue that nobody uses, or another.
func (c *Client) takePuller(queue string) *puller {
	c.mu.Lock()
	if idle := c.pullers[queue]; len(idle) > 0 {
		p := idle[len(idle)-1]
		c.pullers[queue] = idle[:len(idle)-1]
		p.idle, p.used = false, true
		c.mu.Unlock()
		return p
	}
	c.wg.Add(1) // the caller is in it already
	c.mu.Unlock()
	s := &consumer{
		c: c, queue: queue, pulls: true, o: consumeOptions{prefetch: prefetchMax, manual: true},
		retry: backoff{base: 20 * time.Millisecond, most: time.Second}, wake: make(chan struct{}, 1),
	}
	s.more = sync.NewCond(&s.mu)
	s.mu.Lock()
	s.newLife()
	s.mu.Unlock()
	c.consume.subscribe(s)
	p := &puller{s: s, used: true}
	go func() {
		defer c.wg.Done()
		defer s.end()
		p.loop()
	}()
	return p
}

// putPuller gives a puller back.
func (c *Client) putPuller(p *puller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.idle = true
	c.pullers[p.s.queue] = append(c.pullers[p.s.queue], p)
}

// dismiss lets a puller end when its deliveries have their answers, without being
// used again.
func (c *Client) dismiss(p *puller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.idle = true
}

// retire takes a puller out of use that was idle since the last look.
func (c *Client) retire(p *puller) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := p.used
	p.used = false
	if !p.idle || used {
		return false
	}
	left := slices.DeleteFunc(c.pullers[p.s.queue], func(x *puller) bool { return x == p })
	if c.pullers[p.s.queue] = left; len(left) == 0 {
		delete(c.pullers, p.s.queue)
	}
	return true
}

// loop tries again what had no answer, until nobody needs the puller or the client
// is closed.
func (p *puller) loop() {
	s := p.s
	look := time.NewTimer(pullerLook)
	defer look.Stop()
	again := time.NewTimer(time.Hour)
	again.Stop()
	defer again.Stop()
	armed := false
	for {
		s.mu.Lock()
		if s.retrying && !armed {
			again.Reset(s.retry.next())
			armed = true
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-again.C:
			s.mu.Lock()
			armed, s.retrying = false, false
			s.attach()
			s.pumpSettles()
			s.mu.Unlock()
		case <-look.C:
			s.mu.Lock()
			open, every := len(s.life.open), pullerLook
			if s.life.leaseTime > 0 {
				every = s.life.leaseTime
			}
			s.askForLost()
			s.mu.Unlock()
			if open == 0 && s.c.retire(p) {
				return
			}
			look.Reset(every)
		case <-s.c.ctx.Done():
			s.mu.Lock()
			s.loseAll(func(*Delivery) error { return ErrClosed })
			s.mu.Unlock()
			return
		}
	}
}

// resume is attach for a puller, which needs none: what has no definite answer is
// settled again on the new connection.
func (s *consumer) resume() {
	s.attached = true
	s.retry.reset()
	s.settleAgain()
}

// takeReady hands over what was pushed for the receive that has its answer.
func (s *consumer) takeReady() []*Delivery {
	var out []*Delivery
	for _, d := range s.ready[s.head:] {
		if d.answered {
			continue
		}
		var err error
		if d.message, err = wire.DecodeMessage(d.raw); err != nil {
			s.c.o.logger.Error("message does not decode", "message", d.place, "error", err)
			s.settleLocked(d, verdictFor(err))
			continue
		}
		d.raw, d.phase, d.started = nil, running, time.Now()
		out = append(out, d)
	}
	s.clearReady()
	return out
}

// abandon forgets deliveries from a number on that no Receive has handed over.
func (s *consumer) abandon(first uint64, st wire.LeaseState) {
	for number := first; number < s.life.next; number++ {
		if d := s.life.open[number]; d != nil {
			s.lose(d, st)
		}
	}
	s.clearReady()
}

// skipTo goes on with the number that the machine will give next.
func (s *consumer) skipTo(next uint64) {
	if l := s.life; next > l.next {
		if len(l.open) == 0 {
			l.low = next
		}
		l.next = next
	}
}

// askForLost asks after deliveries that nobody has settled, or has been handed, and whose
// lease must have run out: nobody tells a puller what timers took. An extension by next to nothing
// is answered with what became of them, and ends a lease that is held all the same.
func (s *consumer) askForLost() {
	l, cn, now := s.life, s.conn, time.Now()
	if cn == nil || !s.attached || s.extending {
		return
	}
	asked := l.ranges(func(d *Delivery) bool {
		return d.verb == 0 && (d.phase == running || d.phase == buffered) && now.After(d.deadline.Add(l.leaseTime))
	})
	if len(asked) == 0 {
		return
	}
	request := s.extendRequest(asked, atOnce)
	err := cn.send(wire.OpSettle, func(w *pack.Writer) { request.Append(w) }, func(op wire.Op, payload []byte, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.extending = false
		states, err := s.settleAnswer(l, cn, op, payload, err)
		if err != nil || s.life != l {
			return
		}
		for _, st := range states {
			for n := max(st.From, l.low); n <= st.To && n < l.next; n++ {
				if d := l.open[n]; d != nil && d.verb == 0 && st.State != wire.LeaseHeld && contains(asked, n) {
					s.lose(d, st.State)
				}
			}
		}
	})
	s.extending = err == nil
}
