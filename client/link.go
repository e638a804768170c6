package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const (
	dialTimeout  = 3 * time.Second
	roundBase    = 50 * time.Millisecond
	roundMost    = 2 * time.Second
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
		why, hint, moved = l.watch(ctx, cn)
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
func (l *link) watch(ctx context.Context, cn *conn) (why error, hint string, moved bool) {
	for {
		changed := l.c.topo.news()
		switch leads, term := l.c.topo.leads(cn.welcome.Node); {
		case !leads:
			return newError(wire.CodeNotLeader, "node %s does not lead any more", cn.welcome.Node), "", true
		case term != cn.term:
			// It lost the lead and has it again. In between it gave up what it knew of
			// its clients, and every consumer is detached.
			return newError(wire.CodeNotLeader, "node %s leads anew", cn.welcome.Node), "", true
		}
		select {
		case <-changed:
		case <-cn.ended:
			return cn.reason(), "", false
		case m := <-l.misdirects:
			if m.conn == cn {
				return newError(wire.CodeNotLeader, "node %s says that it does not lead", cn.welcome.Node), m.hint, m.hint != ""
			}
		case <-ctx.Done():
			return ErrClosed, "", false
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

// reason is why there is no connection, nil when there is one.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		return nil
	}
	return l.why
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
	for {
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
		more := l.wait(ctx, other, tries.next())
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

// ready waits for a connection to the leader.
func (l *link) ready(ctx context.Context) (*conn, error) {
	for {
		l.mu.Lock()
		cn, changed, why := l.conn, l.changed, l.why
		l.mu.Unlock()
		if cn != nil {
			return cn, nil
		}
		select {
		case <-changed:
		case <-l.c.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, &endedError{what: "waiting for the leader", cause: causeOf(ctx), why: why}
		}
	}
}

// call asks the leader, again and again until there is an answer or ctx ends.
// The request must be one that may be repeated. It returns the answer's
// payload; ctx ending while a copy's fate is open gives ErrOutcomeUnknown.
func (l *link) call(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) ([]byte, error) {
	tries := backoff{base: 10 * time.Millisecond, most: time.Second}
	unknown := false
	var last error
	for {
		cn, err := l.ready(ctx)
		if err == nil {
			var payload []byte
			payload, err = cn.call(ctx, op, fill)
			e := (*Error)(nil)
			switch {
			case err == nil:
				cn.refused.Store(0)
				return payload, nil
			case errors.As(err, &e) && e.transient():
				if e.Code == wire.CodeNotLeader || e.Code == wire.CodeNoLeader {
					l.misdirected(cn, wire.ErrorReply{Code: e.Code, Leader: e.leader})
				}
			case errors.As(err, &e) && e.unclear():
				unknown = true
			case errors.As(err, &e):
				return nil, e
			case errors.Is(err, errLost):
				unknown = true
			case ctx.Err() != nil:
				unknown = true
			}
			last = err
			if ctx.Err() == nil && pause(ctx, tries.next()) {
				continue
			}
			err = &endedError{what: op.String(), cause: causeOf(ctx), why: asError(last)}
		}
		if unknown {
			return nil, newError(wire.CodeOutcomeUnknown, "%v may or may not have happened", op).because(causeOfOr(ctx, err))
		}
		return nil, err
	}
}

func asError(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return nil
}

func causeOfOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return causeOf(ctx)
	}
	return err
}

// round tries every known address once, the leader's first. It returns a
// connection to the leader, or one to a node that does not lead, or why no node
// could be reached.
func (c *Client) round(ctx context.Context, hint string) (leader, other *conn, err error) {
	var reasons []string
	var codes []wire.Code
	tried := map[string]bool{}
	for {
		address := c.nextAddress(hint, tried)
		if address == "" || ctx.Err() != nil {
			break
		}
		tried[address] = true
		cn, err := c.connect(ctx, address)
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", address, plain(err)))
			if e := (*Error)(nil); errors.As(err, &e) {
				codes = append(codes, e.Code)
			}
			continue
		}
		if leads, term := c.topo.leads(cn.welcome.Node); leads {
			cn.term = term
			if other != nil {
				other.close()
			}
			return cn, nil, nil
		}
		if other != nil {
			other.close()
		}
		other = cn
	}
	if other != nil {
		return nil, other, nil
	}
	if ctx.Err() != nil {
		return nil, nil, newError(wire.CodeUnreachable, "cannot reach any node (tried %s)", strings.Join(reasons, "; ")).because(causeOf(ctx))
	}
	// When all say the same, that is the error.
	if len(codes) == len(reasons) && len(codes) > 0 && len(slices.Compact(codes)) == 1 {
		return nil, nil, newError(codes[0], "no node can be used (tried %s)", strings.Join(reasons, "; "))
	}
	return nil, nil, newError(wire.CodeUnreachable, "cannot reach any node (tried %s): check the addresses, and that the nodes are up", strings.Join(reasons, "; "))
}

// plain leaves out what net says around the reason: the address is there already.
func plain(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if sys := (*os.SyscallError)(nil); errors.As(err, &sys) {
		err = sys.Err
	}
	return err
}

// nextAddress is the best address not tried yet, "" when all were.
func (c *Client) nextAddress(hint string, tried map[string]bool) string {
	for _, a := range []string{hint, c.topo.leader()} {
		if a != "" && !tried[a] {
			return a
		}
	}
	all := slices.DeleteFunc(c.topo.addresses(), func(a string) bool { return tried[a] })
	if len(all) == 0 {
		return ""
	}
	return all[rand.N(len(all))]
}

// connect dials a node and checks that it belongs to this cluster.
func (c *Client) connect(ctx context.Context, address string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	hello := wire.Hello{Version: wire.Version, Client: c.o.client(), Cluster: c.topo.clusterID()}
	cn, err := func() (*conn, error) {
		nc, err := c.o.dial(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		cn, err := connect(ctx, nc, address, hello, c.push)
		if err != nil {
			return nil, err
		}
		if err := c.topo.welcome(cn.welcome); err != nil {
			cn.close()
			return nil, err
		}
		return cn, nil
	}()
	if err != nil {
		c.connectErrors.Add(1)
		return nil, err
	}
	c.connects.Add(1)
	return cn, nil
}
