package transport

import (
	"fmt"
	"sync/atomic"
	"time"
)

// budget bounds what all clients together make the server keep in memory. One client
// has a bound of its own; a thousand of them would still hold gigabytes. There is one
// for what is being received and one for what waits to be written.
//
// Above it clients are cut off, and nobody waits: a server that does not read hears no
// acks, and whoever waits for room holds what others wait for.
type budget struct {
	most   int64
	held   atomic.Int64
	easing atomic.Bool
	// part is what the client has of it, and where it stands: whose time is the earliest
	// is the slowest. Whoever is behind goes before those who are not. The caller holds
	// c.mu.
	part func(c *ServerConn) (bytes int64, at time.Time, behind bool)
	// excess is the reason that a client is cut off for.
	excess func(bytes, most int64) error
}

func newOutputBudget(most int) budget {
	return budget{
		most: int64(most),
		part: func(c *ServerConn) (int64, time.Time, bool) { return c.accounted, c.began, false },
		excess: func(bytes, most int64) error {
			return fmt.Errorf("%w: %d bytes wait for it, and for all clients together more than %d", errStalled, bytes, most)
		},
	}
}

func newInputBudget(most int) budget {
	return budget{
		most: int64(most),
		part: func(c *ServerConn) (int64, time.Time, bool) {
			by := c.heard.pace.by()
			return c.receiving, by, by.Before(time.Now())
		},
		excess: func(bytes, most int64) error {
			return fmt.Errorf("%w: %d bytes are kept for its frame, and for those of all clients together more than %d", errTrickles, bytes, most)
		},
	}
}

// changes notes that one client has n bytes now and had old. It says whether all of them
// together have too much: who has let go of c.mu calls ease then.
func (b *budget) changes(old, n int64) (over bool) {
	return b.held.Add(n-old) > b.most
}

// account notes what waits for the client now. The caller holds c.mu.
func (c *ServerConn) account() (over bool) {
	n := int64(len(c.out) + c.writing + c.encoded)
	if c.cutOff() {
		n = 0
	}
	over = c.server.output.changes(c.accounted, n)
	c.accounted = n
	return over
}

// receives notes that n bytes are kept for a frame of which a part has arrived. The
// reader calls it.
func (c *ServerConn) receives(n int) {
	c.mu.Lock()
	if c.receiving == 0 {
		c.heard.pace.begins()
	}
	over := c.receivesLocked(n)
	c.mu.Unlock()
	if over {
		c.server.ease(&c.server.input)
	}
}

func (c *ServerConn) receivesLocked(n int) (over bool) {
	if c.cutOff() {
		n = 0
	}
	over = c.server.input.changes(c.receiving, int64(n))
	c.receiving = int64(n)
	return over
}

// cutOff says whether the connection has ended without a farewell, or after one. The
// caller holds c.mu.
func (c *ServerConn) cutOff() bool { return c.closing && c.closeBy.IsZero() }

// ease cuts clients off until the rest has room, in a goroutine of its own: first who
// has been taking the longest over what is being written to it, or is the furthest
// behind with what it sends. Who moves little at a time has no advantage over who moves
// nothing.
func (s *Server) ease(b *budget) {
	if b.easing.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !b.easing.CompareAndSwap(false, true) {
		return
	}
	s.running.Go(func() {
		for b.held.Load() > b.most && s.cutSlowest(b) {
		}
		b.easing.Store(false)
	})
}

// cutSlowest is false when nobody has a part in b. Who has little is cut off only where
// nobody has much, unless it is behind and those are not.
func (s *Server) cutSlowest(b *budget) bool {
	s.mu.Lock()
	open := make([]*ServerConn, 0, len(s.conns))
	for _, c := range s.conns {
		if c != nil {
			open = append(open, c)
		}
	}
	s.mu.Unlock()
	var slowest *ServerConn
	var first time.Time
	worst := 0
	for _, c := range open {
		c.mu.Lock()
		bytes, at, behind := b.part(c)
		c.mu.Unlock()
		if bytes == 0 || at.IsZero() {
			continue
		}
		rank := 0
		if bytes >= easeLeast {
			rank++
		}
		if behind {
			rank += 2
		}
		if slowest == nil || rank > worst || rank == worst && at.Before(first) {
			slowest, first, worst = c, at, rank
		}
	}
	if slowest == nil {
		return false
	}
	slowest.mu.Lock()
	defer slowest.mu.Unlock()
	if bytes, at, _ := b.part(slowest); bytes > 0 && !at.IsZero() { // else it has got on
		slowest.cutLocked(b.excess(bytes, b.most))
	}
	return true
}
