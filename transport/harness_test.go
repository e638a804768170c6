package transport

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onceq/transport/transporttest"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// happens bounds waiting for what must happen.
const happens = 60 * time.Second

// testHandler answers with its functions, and keeps count.
type testHandler struct {
	welcome wire.Welcome
	connect func(c *ServerConn)
	request func(c *ServerConn, corr uint32, op wire.Op, payload []byte)

	mu           sync.Mutex
	connected    map[*ServerConn]int
	disconnected map[*ServerConn]int
	late         int // requests after Disconnected or before Connected
	gone         chan *ServerConn
}

func newHandler() *testHandler {
	return &testHandler{
		welcome:      wire.Welcome{Cluster: "c1", Incarnation: 7, Node: "n1"},
		connected:    make(map[*ServerConn]int),
		disconnected: make(map[*ServerConn]int),
		gone:         make(chan *ServerConn, 1000),
	}
}

// echo answers every request with its payload.
func echo(c *ServerConn, corr uint32, op wire.Op, payload []byte) { c.Reply(corr, op, payload) }

func (h *testHandler) Welcome() wire.Welcome { return h.welcome }

func (h *testHandler) Connected(c *ServerConn) {
	h.mu.Lock()
	h.connected[c]++
	h.mu.Unlock()
	if h.connect != nil {
		h.connect(c)
	}
}

func (h *testHandler) Request(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
	h.mu.Lock()
	if h.connected[c] != 1 || h.disconnected[c] != 0 {
		h.late++
	}
	h.mu.Unlock()
	if h.request != nil {
		h.request(c, corr, op, payload)
	}
}

func (h *testHandler) Disconnected(c *ServerConn) {
	h.mu.Lock()
	h.disconnected[c]++
	h.mu.Unlock()
	h.gone <- c
}

// check is called when the server has been closed.
func (h *testHandler) check(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.late > 0 {
		t.Errorf("%d requests outside of Connected and Disconnected", h.late)
	}
	for c, n := range h.connected {
		if n != 1 || h.disconnected[c] != 1 {
			t.Errorf("connection %d: connected %d times, disconnected %d times", c.ID(), n, h.disconnected[c])
		}
	}
	if len(h.disconnected) != len(h.connected) {
		t.Errorf("%d connected, %d disconnected", len(h.connected), len(h.disconnected))
	}
}

// world is a server and how to reach it, over loopback or in memory.
type world struct {
	t       *testing.T
	h       *testHandler
	s       *Server
	network *transporttest.Network // nil over loopback
	dial    func() net.Conn
	end     func() // closes the server and checks it; called at the end if not before
}

// newWorld serves h over loopback TCP.
func newWorld(t *testing.T, h *testHandler, cfg ServerConfig) *world {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveWorld(t, h, cfg, nil, l, func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	})
}

// newMemoryWorld serves h on host "n1" of a network in memory; the clients are
// on host "client".
func newMemoryWorld(t *testing.T, h *testHandler, cfg ServerConfig) *world {
	n := transporttest.NewNetwork()
	l, err := n.Listen("n1:7450")
	if err != nil {
		t.Fatal(err)
	}
	return serveWorld(t, h, cfg, n, l, n.Dialer("client"))
}

func serveWorld(t *testing.T, h *testHandler, cfg ServerConfig, n *transporttest.Network, l net.Listener, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *world {
	w := &world{t: t, h: h, s: NewServer(h, cfg), network: n}
	served := make(chan error, 1)
	go func() { served <- w.s.Serve(l) }()
	w.dial = func() net.Conn {
		t.Helper()
		nc, err := dial(context.Background(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}
	var once sync.Once
	w.end = func() {
		once.Do(func() {
			if err := w.s.Close(); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Errorf("serve: %v", err)
			}
			h.check(t)
		})
	}
	t.Cleanup(w.end)
	return w
}

// connect returns a client's connection, which is closed at the end.
func (w *world) connect(cfg ClientConfig) *Conn {
	w.t.Helper()
	c, err := Connect(context.Background(), w.dial(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// raw is a connection without a client: the test writes what it likes.
type raw struct {
	t      *testing.T
	nc     net.Conn
	frames *wire.FrameReader
}

func (w *world) raw() *raw {
	w.t.Helper()
	nc := w.dial()
	w.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(happens))
	return &raw{t: w.t, nc: nc, frames: wire.NewFrameReader(bufio.NewReader(nc), wire.FrameBytesMax)}
}

// greeted is a raw connection after the handshake.
func (w *world) greeted() *raw {
	w.t.Helper()
	r := w.raw()
	r.write(append([]byte(wire.Magic), frame(wire.OpHello, false, 1, encoded(wire.Hello{Version: wire.Version}))...))
	if f := r.next(); f.Op != wire.OpHello || !f.Reply {
		w.t.Fatalf("greeted with %v", f.Op)
	}
	return r
}

func frame(op wire.Op, reply bool, corr uint32, payload []byte) []byte {
	return wire.AppendFrame(nil, op, reply, corr, payload)
}

func encoded(m interface{ Append(w *pack.Writer) }) []byte {
	var w pack.Writer
	m.Append(&w)
	return w.Bytes()
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	if _, err := r.nc.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// next is the next frame that is no ping.
func (r *raw) next() wire.Frame {
	r.t.Helper()
	for {
		f, err := r.frames.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		if f.Op != wire.OpPing {
			return f
		}
	}
}

// refused expects an error frame with the code, and then the end.
func (r *raw) refused(code wire.Code) wire.ErrorReply {
	r.t.Helper()
	f := r.next()
	e, err := wire.DecodeErrorReply(f.Payload)
	if f.Op != wire.OpError || err != nil || e.Code != code {
		r.t.Fatalf("%v: %+v, %v; want %v", f.Op, e, err, code)
	}
	if _, err := r.frames.Next(); err != io.EOF {
		r.t.Fatalf("after the refusal: %v", err)
	}
	_ = r.nc.Close() // the server lingers until then
	return e
}

// within fails the test when ch does not deliver.
func within[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(happens):
		t.Fatal("does not happen")
		panic("unreachable")
	}
}
