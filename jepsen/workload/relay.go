package workload

import (
	"context"
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
}

func newRelay(w *World, client string) (*relay, error) {
	r := &relay{dial: w.Dial(client), listeners: map[string]net.Listener{}}
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

func (r *relay) close() {
	r.cancel()
	for _, l := range r.listeners {
		l.Close()
	}
	r.wg.Wait()
}
