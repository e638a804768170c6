package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"onceq/transport/wire"
)

// Direction is one way over a link.
type Direction int

// The directions.
const (
	ToServer Direction = iota
	ToClient
	directions
)

// Tap sees what passes. It is called by the goroutines of a link, in order for
// each direction, and must not block.
type Tap interface {
	// Frame is called before a frame is passed on.
	Frame(l Link, d Direction, f wire.Frame)
	// Closed is called once when the link has ended.
	Closed(l Link)
}

// Link names one connection.
type Link struct {
	Number       int
	Client, Node string
}

// Net is the network between clients and nodes.
type Net struct {
	tap  Tap
	tell func(node string, from, to time.Time)

	garbled atomic.Int64      // frames
	asked   [256]atomic.Int64 // requests that were passed on, by op

	mu      sync.Mutex // guards what follows
	nodes   map[string]*rules
	byAddr  map[string]string // address to node
	links   map[*link]bool
	number  int
	closed  bool
	changed chan struct{} // closed and replaced when a rule changes
	running sync.WaitGroup
}

// rules are what happens to the links of one node.
type rules struct {
	held    [directions]bool
	since   time.Time // when the way to clients was held
	refused bool
	delay   time.Duration
	jitter  time.Duration
	lose    []*Loss
	refuse  []*Refusal
	linger  time.Duration
	garble  int // one frame in so many
	late    int // frames that were delayed
	stood   int // frames that were held
}

// New makes a network without faults. tap may be nil.
func New(tap Tap) *Net {
	return &Net{tap: tap, nodes: map[string]*rules{}, byAddr: map[string]string{}, links: map[*link]bool{}, changed: make(chan struct{})}
}

// Node makes a node known by its address.
func (n *Net) Node(name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[name] = &rules{}
	n.byAddr[address] = name
}

var (
	errRefused = errors.New("connection refused (by the proxy)")
	errClosed  = errors.New("the proxy is closed")
)

// Dialer is the way of one client to all nodes.
func (n *Net) Dialer(client string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		n.mu.Lock()
		name, ok := n.byAddr[address]
		refused := ok && n.nodes[name].refused
		n.mu.Unlock()
		switch {
		case !ok:
			return nil, fmt.Errorf("dial %s: no node is known there", address)
		case refused:
			return nil, fmt.Errorf("dial %s: %w", address, errRefused)
		}
		server, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		near, far, err := pair(ctx)
		if err != nil {
			_ = server.Close()
			return nil, err
		}
		if err := n.join(client, name, far, server); err != nil {
			_, _, _ = near.Close(), far.Close(), server.Close()
			return nil, err
		}
		return near, nil
	}
}

// pair is a connection to ourselves: both of its ends.
func pair(ctx context.Context) (near, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	near, err = (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	far, err = l.Accept() // the dial has succeeded: it is there
	if err == nil && far.RemoteAddr().String() != near.LocalAddr().String() {
		err = errors.New("a stranger has connected")
		_ = far.Close()
	}
	if err != nil {
		_ = near.Close()
	}
	return near, far, err
}

// Loss is a number of replies to lose.
type Loss struct {
	ops    []wire.Op
	client string
	left   int
	lost   int
	done   chan struct{} // closed when none is left
}

// Done is closed when all have been lost.
func (l *Loss) Done() <-chan struct{} { return l.done }

// LoseReplies makes node's next replies to requests of the given ops get lost,
// each with its connection: the request was carried out, and the client does not
// learn of it. client may be "" for all.
func (n *Net) LoseReplies(node, client string, count int, ops ...wire.Op) *Loss {
	l := &Loss{ops: ops, client: client, left: count, done: make(chan struct{})}
	n.change(node, func(r *rules) { r.lose = append(r.lose, l) })
	return l
}

// Stop ends a Loss and returns how many replies were lost.
func (n *Net) Stop(l *Loss) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.nodes {
		r.lose = slices.DeleteFunc(r.lose, func(x *Loss) bool { return x == l })
	}
	return l.lost
}

// Hold stops a direction of all links of a node: nothing passes until it is
// released, and nothing is lost.
func (n *Net) Hold(node string, d Direction, on bool) {
	n.change(node, func(r *rules) { n.hold(node, r, d, on) })
}

// TellHeld has f told of each stretch in which nothing passed from a node to its
// clients. It is called before anything else is, and f must not block.
func (n *Net) TellHeld(f func(node string, from, to time.Time)) { n.tell = f }

// hold is called with mu held.
func (n *Net) hold(node string, r *rules, d Direction, on bool) {
	if d == ToClient && r.held[d] != on {
		if on {
			r.since = time.Now()
		} else if n.tell != nil {
			n.tell(node, r.since, time.Now())
		}
	}
	r.held[d] = on
}

// Refuse refuses new connections to a node.
func (n *Net) Refuse(node string, on bool) { n.change(node, func(r *rules) { r.refused = on }) }

// Delay makes each frame of a node's links wait for delay and up to jitter more,
// both ways.
func (n *Net) Delay(node string, delay, jitter time.Duration) {
	n.change(node, func(r *rules) { r.delay, r.jitter = delay, jitter })
}

// Late is how many frames of a node's links were delayed since the last Heal.
func (n *Net) Late(node string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[node].late
}

// Stood is how many frames of a node's links were held since the last Heal.
func (n *Net) Stood(node string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[node].stood
}

// Asked says whether any client has asked for an op.
func (n *Net) Asked(op wire.Op) bool { return n.asked[op].Load() > 0 }

// Heal takes back every rule.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, r := range n.nodes {
		n.hold(name, r, ToClient, false)
		*r = rules{}
	}
	n.wake()
}

func (n *Net) change(node string, f func(r *rules)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.nodes[node]; r != nil {
		f(r)
	}
	n.wake()
}

func (n *Net) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Cut resets the live connections between a client and a node, "" for all, and
// returns how many there were.
func (n *Net) Cut(node, client string) int {
	n.mu.Lock()
	var cut []*link
	for l := range n.links {
		if (node == "" || l.Node == node) && (client == "" || l.Client == client) {
			cut = append(cut, l)
		}
	}
	n.mu.Unlock()
	for _, l := range cut {
		l.end(true)
	}
	return len(cut)
}

// Close ends all connections and waits until nothing runs any more.
func (n *Net) Close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.Cut("", "")
	n.running.Wait()
}

// due is when a frame may pass that has arrived now.
func (n *Net) due(node string) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.nodes[node]
	d := r.delay
	if r.jitter > 0 {
		d += rand.N(r.jitter)
	}
	if d == 0 {
		return time.Time{}
	}
	r.late++
	return time.Now().Add(d)
}

// held says whether a direction is held now, and gives a channel that is closed
// when that may have changed. first is whether a frame asks for the first time.
func (n *Net) held(node string, d Direction, first bool) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.nodes[node]
	if first && r.held[d] {
		r.stood++
	}
	return r.held[d], n.changed
}

// loses says whether the reply to a request of op is to be lost.
func (n *Net) loses(l Link, op wire.Op) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.nodes[l.Node].lose {
		if x.left > 0 && (x.client == "" || x.client == l.Client) && slices.Contains(x.ops, op) {
			x.left--
			x.lost++
			if x.left == 0 {
				close(x.done)
			}
			return true
		}
	}
	return false
}

// Links counts the live connections to a node.
func (n *Net) Links(node string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for l := range n.links {
		if l.Node == node {
			count++
		}
	}
	return count
}
