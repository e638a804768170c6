package workload

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"onceq/jepsen/raw"
)

// relay lets another process use a client's way to the nodes, on which the faults of
// connections are made: a listener for each node, and what comes there goes that way.
type relay struct {
	dial      raw.Dialer
	listeners map[string]net.Listener // by address of the node
	wg        sync.WaitGroup
	ctx       context.Context // ends with close
	cancel    context.CancelFunc

	mu     sync.Mutex // guards what follows
	joined map[net.Conn]bool
}

func newRelay(w *World, client string) (*relay, error) {
	if w.Virtual {
		return nil, errors.New("no client is in a process of its own in virtual time")
	}
	r := &relay{dial: w.Dial(client), listeners: map[string]net.Listener{}, joined: map[net.Conn]bool{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, address := range w.Addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			r.close()
			return nil, err
		}
		r.listeners[address] = l
		r.wg.Go(func() { r.serve(l, address) })
	}
	return r, nil
}

// via is where to dial for each node.
func (r *relay) via() map[string]string {
	via := map[string]string{}
	for address, l := range r.listeners {
		via[address] = l.Addr().String()
	}
	return via
}

// dialVia dials what via has for an address, in the other process.
func dialVia(via map[string]string) raw.Dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if at, ok := via[address]; ok {
			address = at
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}

func (r *relay) serve(l net.Listener, address string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.join(near, address) })
	}
}

// join passes bytes on until one side has ended, and ends the other.
func (r *relay) join(near net.Conn, address string) {
	defer near.Close()
	far, err := r.dial(r.ctx, "tcp", address)
	if err != nil {
		return
	}
	defer far.Close()
	r.note(far, true)
	defer r.note(far, false)
	stop := context.AfterFunc(r.ctx, func() {
		near.Close()
		far.Close()
	})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(far, near)
		far.Close()
		near.Close()
	}()
	_, _ = io.Copy(near, far)
	near.Close()
	far.Close()
	<-done
}

func (r *relay) note(far net.Conn, joined bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.joined[far] = joined; !joined {
		delete(r.joined, far)
	}
}

// hangUp ends what is joined now: either side sees the end of its connection.
func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for far := range r.joined {
		far.Close()
	}
}

func (r *relay) close() {
	r.cancel()
	for _, l := range r.listeners {
		l.Close()
	}
	r.wg.Wait()
}
