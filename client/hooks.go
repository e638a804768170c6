package client

import "sync"

// ConnectionEvent says that one of a client's connections came or went. A client
// has a connection for publishes and requests, and one for deliveries and acks
// once it consumes.
type ConnectionEvent struct {
	// Link is "produce" or "consume".
	Link string
	// Connected is false when the connection has ended.
	Connected bool
	// Node and Address are the node's, the leader at that moment.
	Node, Address string
	// Err says why the connection ended: ErrClosed after Close.
	Err error
}

// WithConnectionHook makes the client call f when a connection to the leader came
// or went, for logs, metrics and health checks. Nothing needs to be done about
// it: the client connects again by itself. Calls come one at a time, in order,
// from a goroutine of their own; of an f that is slow, the oldest events are
// left out beyond 64. Close waits for the last.
func WithConnectionHook(f func(ConnectionEvent)) Option { return func(o *options) { o.hook = f } }

// hookEventsMax is how many events wait for a slow hook.
const hookEventsMax = 64

// hooks calls the program's hook. A nil one does nothing.
type hooks struct {
	call  func(ConnectionEvent)
	ended chan struct{}

	mu     sync.Mutex // guards what follows
	more   *sync.Cond
	events []ConnectionEvent
	closed bool
}

func newHooks(call func(ConnectionEvent)) *hooks {
	if call == nil {
		return nil
	}
	h := &hooks{call: call, ended: make(chan struct{})}
	h.more = sync.NewCond(&h.mu)
	go h.run()
	return h
}

// run calls the hook until close, with all that has happened before.
func (h *hooks) run() {
	defer close(h.ended)
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		for len(h.events) == 0 {
			if h.closed {
				return
			}
			h.more.Wait()
		}
		e := h.events[0]
		h.events = h.events[1:]
		h.mu.Unlock()
		h.call(e)
		h.mu.Lock()
	}
}

// linkChanged notes what a link has lost and found. It never blocks.
func (h *hooks) linkChanged(link string, old, now *conn, why error) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if old != nil {
		h.events = append(h.events, ConnectionEvent{Link: link, Node: old.welcome.Node, Address: old.address, Err: why})
	}
	if now != nil {
		h.events = append(h.events, ConnectionEvent{Link: link, Connected: true, Node: now.welcome.Node, Address: now.address})
	}
	if n := len(h.events) - hookEventsMax; n > 0 {
		h.events = append(h.events[:0:0], h.events[n:]...)
	}
	h.more.Signal()
}

// close waits for the last call.
func (h *hooks) close() {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.closed = true
	h.more.Signal()
	h.mu.Unlock()
	<-h.ended
}
