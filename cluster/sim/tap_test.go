package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"sync"

	"onceq/jepsen/proxy"
	"onceq/transport/wire"
)

// tapped is a client's connection whose frames a proxy.Tap sees.
type tapped struct {
	net.Conn
	tap  proxy.Tap
	link proxy.Link
	in   taken
	once sync.Once

	mu  sync.Mutex // guards out: several write
	out taken
}

// taken are the bytes of one direction that make no whole frame yet.
type taken struct {
	b     []byte
	begun bool // the magic is over
}

func (t *taken) take(p []byte, magic bool, frame func(f wire.Frame)) {
	t.b = append(t.b, p...)
	if magic && !t.begun {
		if len(t.b) < len(wire.Magic) {
			return
		}
		t.b, t.begun = t.b[len(wire.Magic):], true
	}
	for len(t.b) >= 4 {
		n := 4 + int(binary.BigEndian.Uint32(t.b))
		if len(t.b) < n {
			return
		}
		f, err := wire.NewFrameReader(bytes.NewReader(t.b[:n]), wire.FrameBytesMax).Next()
		if err != nil {
			return
		}
		frame(f)
		t.b = t.b[n:]
	}
}

func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.take(p[:n], false, func(f wire.Frame) { c.tap.Frame(c.link, proxy.ToClient, f) })
	return n, err
}

func (c *tapped) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.out.take(p, true, func(f wire.Frame) { c.tap.Frame(c.link, proxy.ToServer, f) })
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *tapped) Close() error {
	c.once.Do(func() { c.tap.Closed(c.link) })
	return c.Conn.Close()
}

// hosts gives each client a host of its own on the network, and remembers them in
// the order in which they came.
type hosts struct {
	w   *World
	tap proxy.Tap

	mu    sync.Mutex // guards what follows
	names []string
	links int
}

func (h *hosts) dial(name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	dial := h.w.Net.Dialer(name)
	h.mu.Lock()
	h.names = append(h.names, name)
	h.mu.Unlock()
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		h.mu.Lock()
		h.links++
		link := proxy.Link{Number: h.links, Client: name, Node: address}
		h.mu.Unlock()
		return &tapped{Conn: c, tap: h.tap, link: link}, nil
	}
}

// young are the newest hosts: the older ones have mostly gone.
func (h *hosts) young() []string {
	const few = 12
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.names[max(0, len(h.names)-few):]...)
}
