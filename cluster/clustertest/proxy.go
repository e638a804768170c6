package clustertest

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"onceq/transport/wire"
)

// Verdict is what becomes of a frame.
type Verdict uint8

const (
	// Pass hands it on.
	Pass Verdict = iota
	// Drop loses it; the connection lives on.
	Drop
	// Cut loses it and the connection with it.
	Cut
)

// Proxy stands between clients and nodes and loses exactly the frames that a
// test names: the network of the tests in which one reply or one request gets
// lost. Its Dial is a client's dialer.
type Proxy struct {
	wg sync.WaitGroup

	mu              sync.Mutex // guards what follows
	request, answer func(f wire.Frame) Verdict
	open            map[net.Conn]struct{} // both ends of every relay
	closed          bool
}

// NewProxy makes a proxy that ends with the test.
func NewProxy(t testing.TB) *Proxy {
	p := &Proxy{open: make(map[net.Conn]struct{})}
	t.Cleanup(p.close)
	return p
}

// OnRequest makes f judge every frame of clients. It runs on the connection's
// goroutine: while it waits, the frame and what follows it wait.
func (p *Proxy) OnRequest(f func(f wire.Frame) Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.request = f
}

// OnAnswer makes f judge every frame of nodes, alike.
func (p *Proxy) OnAnswer(f func(f wire.Frame) Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// Dial connects to a node through the proxy.
func (p *Proxy) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	node, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		node.Close()
		near.Close()
		return nil, net.ErrClosed
	}
	p.open[node], p.open[far] = struct{}{}, struct{}{}
	p.wg.Go(func() {
		p.relay(far, node, len(wire.Magic), func(f wire.Frame) Verdict { return p.judge(&p.request, f) })
	})
	p.wg.Go(func() {
		p.relay(node, far, 0, func(f wire.Frame) Verdict { return p.judge(&p.answer, f) })
	})
	return near, nil
}

func (p *Proxy) judge(rule *func(f wire.Frame) Verdict, f wire.Frame) Verdict {
	p.mu.Lock()
	judge := *rule
	p.mu.Unlock()
	if judge == nil {
		return Pass
	}
	return judge(f)
}

// relay hands frames on from one end to the other until either is closed, and
// then closes both.
func (p *Proxy) relay(from, to net.Conn, preamble int, judge func(f wire.Frame) Verdict) {
	defer func() {
		from.Close()
		to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, from)
		delete(p.open, to)
	}()
	r := bufio.NewReader(from)
	if _, err := io.CopyN(to, r, int64(preamble)); err != nil {
		return
	}
	frames := wire.NewFrameReader(r, wire.FrameBytesMax)
	for {
		f, err := frames.Next()
		if err != nil {
			return
		}
		// Whoever judges may keep the payload.
		switch judge(f) {
		case Drop:
			continue
		case Cut:
			return
		}
		if _, err := to.Write(wire.AppendFrame(nil, f.Op, f.Reply, f.Corr, f.Payload)); err != nil {
			return
		}
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	for nc := range p.open {
		nc.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
