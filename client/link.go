package client

import (
	"context"
	"sync"
	"time"

	"onceq/transport/wire"
)

const (
	dialTimeout  = 3 * time.Second
	roundBase    = 50 * time.Millisecond
	roundMost    = 2 * time.Second
	newsBase     = 10 * time.Millisecond // in place of the above when a round brought news of the leader
	newsMost     = 200 * time.Millisecond
	refusedMax   = 8               // "not leader" in a row without a better address, and the link looks around
	stableLength = 5 * time.Second // a connection that lived so long was a good one
)

// subscriber wants to know which connection leads to the leader. Calls come
// one at a time and must not block; a connection that is up may have failed
// already. Every request made on a connection has its answer before down.
type subscriber interface {
	up(c *conn)
	down(c *conn)
}

// link keeps one connection to the leader. Publishes and deliveries have a link
// each, so that neither waits in the other's socket.
type link struct {
	c    *Client
	name string

	mu      sync.Mutex // guards what follows
	conn    *conn      // nil while there is none
	why     error      // why there is none
	changed chan struct{}

	// notify is held while subscribers are called, which never block, so that
	// each sees ups and downs in their order. Taken before any other lock.
	notify      sync.Mutex
	subscribers map[subscriber]bool

	misdirects chan misdirect
}

// misdirect says that conn's node does not lead, and who may.
type misdirect struct {
	conn *conn
	hint string
}

func newLink(c *Client, name string) *link {
	return &link{c: c, name: name, changed: make(chan struct{}), subscribers: map[subscriber]bool{}, misdirects: make(chan misdirect, 1)}
}

// run keeps the link up until ctx ends. first is a connection to begin with, or
// nil.
func (l *link) run(ctx context.Context, first *conn) {
	tries := backoff{base: roundBase, most: roundMost}
	hint := ""
	for cn := first; ; cn = nil {
		if cn == nil {
			if cn = l.find(ctx, &tries, hint); cn == nil {
				return
			}
		}
		hint = ""
		born := time.Now()
		l.set(cn, nil)
		var why error
		var moved bool
		hint, moved, why = l.watch(ctx, cn)
		cn.close()
		l.set(nil, why)
		if ctx.Err() != nil {
			return
		}
		l.c.o.logger.Info("connection ended", "link", l.name, "node", cn.welcome.Node, "address", cn.address, "reason", why)
		if time.Since(born) > stableLength {
			tries.reset()
		} else if !moved && !pause(ctx, tries.next()) {
			return
		}
	}
}

// watch waits until cn is not the right connection any more. moved says that
// there is somewhere else to go; hint is where.
func (l *link) watch(ctx context.Context, cn *conn) (hint string, moved bool, why error) {
	recall := func() {}
	defer func() { recall() }()
	for {
		changed := l.c.topo.news()
		switch leads, term := l.c.topo.leads(cn.welcome.Node); {
		case !leads:
			return "", true, newError(wire.CodeNotLeader, "node %s does not lead any more", cn.welcome.Node)
		case term != cn.term:
			// It lost the lead and has it again. In between it gave up what it knew of
			// its clients, and every consumer is detached.
			return "", true, newError(wire.CodeNotLeader, "node %s leads anew", cn.welcome.Node)
		}
		select {
		case <-changed:
		case quiet := <-cn.quiet:
			recall()
			recall = func() {}
			if quiet {
				recall = l.c.scout(ctx, cn)
			}
		case <-cn.ended:
			return "", false, cn.reason()
		case m := <-l.misdirects:
			if m.conn == cn {
				return m.hint, m.hint != "", newError(wire.CodeNotLeader, "node %s says that it does not lead", cn.welcome.Node)
			}
		case <-ctx.Done():
			return "", false, ErrClosed
		}
	}
}

func (l *link) set(cn *conn, why error) {
	l.notify.Lock()
	defer l.notify.Unlock()
	l.mu.Lock()
	old := l.conn
	l.conn, l.why = cn, why
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	l.c.hooks.linkChanged(l.name, old, cn, why)
	for s := range l.subscribers {
		if old != nil {
			s.down(old)
		}
		if cn != nil {
			s.up(cn)
		}
	}
}

func (l *link) subscribe(s subscriber) {
	l.notify.Lock()
	defer l.notify.Unlock()
	l.subscribers[s] = true
	l.mu.Lock()
	cn := l.conn
	l.mu.Unlock()
	if cn != nil {
		s.up(cn)
	}
}

func (l *link) unsubscribe(s subscriber) {
	l.notify.Lock()
	defer l.notify.Unlock()
	delete(l.subscribers, s)
}

// reason is why there is no connection to a leader, nil when there is one.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.conn == nil:
		return l.why
	case l.conn.refused.Load() > 0:
		return newError(wire.CodeNoLeader, "no leader: %s (%s) does not lead any more and knows of no other: a majority of the nodes must be up", l.conn.address, l.conn.welcome.Node)
	}
	return nil
}

// misdirected is told each "not leader" answer. It never blocks.
func (l *link) misdirected(cn *conn, e wire.ErrorReply) {
	hint := e.Leader
	if hint == "" || hint == cn.address {
		if cn.refused.Add(1) < refusedMax {
			return // an election is on: the topology is pushed when it is over
		}
		hint = ""
	}
	select {
	case l.misdirects <- misdirect{cn, hint}:
	default:
	}
}

// find looks for the leader until it is found (or ctx ends: nil).
func (l *link) find(ctx context.Context, tries *backoff, hint string) *conn {
	soon := backoff{base: newsBase, most: newsMost}
	for {
		before := l.c.topo.age()
		cn, other, err := l.c.round(ctx, hint)
		if cn != nil {
			return cn
		}
		hint = ""
		if other != nil && err == nil {
			err = newError(wire.CodeNoLeader, "no leader: %s (%s) knows of none: a majority of the nodes must be up", other.address, other.welcome.Node)
		}
		if ctx.Err() == nil {
			l.c.o.logger.Debug("no leader found", "link", l.name, "reason", err)
		}
		l.mu.Lock()
		l.why = err
		l.mu.Unlock()
		// A leader that is elected, or begins to serve, during the round tells so
		// after it was asked, and nobody tells it again.
		next := tries
		if l.c.topo.age() != before {
			next = &soon
		}
		more := l.wait(ctx, other, next.next())
		if other != nil {
			other.close()
		}
		if !more {
			return nil
		}
	}
}

// wait waits for d, or until a node that is reached but does not lead tells
// news of the leader.
func (l *link) wait(ctx context.Context, other *conn, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	var changed <-chan struct{}
	if other != nil {
		changed = l.c.topo.news()
	}
	select {
	case <-t.C:
	case <-changed:
	case <-ctx.Done():
		return false
	}
	return true
}
