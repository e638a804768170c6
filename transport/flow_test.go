package transport

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"onceq/transport/wire"
)

func newWorldListener() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// pipeTCP returns two ends of a loopback connection.
func pipeTCP(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := newWorldListener()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

// holder keeps requests unanswered until told.
type holder struct {
	held chan heldRequest
}

type heldRequest struct {
	*ServerConn
	corr uint32
}

func (h *holder) request(c *ServerConn, corr uint32, op wire.Op, _ []byte) {
	h.held <- heldRequest{c, corr}
}

func TestServer_ClientBeyondItsWindow_IsClosed(t *testing.T) {
	h := newHandler()
	h.welcome.PublishWindow = 1000
	held := &holder{held: make(chan heldRequest, 100)}
	h.request = held.request
	w := newWorld(t, h, ServerConfig{})
	r := w.greeted()
	r.write(frame(wire.OpPublish, false, 1, make([]byte, 600)))
	r.write(frame(wire.OpPublish, false, 2, make([]byte, 400))) // full to the byte
	r.write(frame(wire.OpSettle, false, 3, make([]byte, 5000))) // no publish: does not count
	within(t, held.held)
	second := within(t, held.held)
	within(t, held.held)
	second.Reply(second.corr, wire.OpPublish, nil)
	second.Reply(second.corr, wire.OpPublish, nil) // frees nothing more
	if f := r.next(); f.Corr != 2 {
		t.Fatalf("%+v", f)
	}
	r.write(frame(wire.OpPublish, false, 4, make([]byte, 400)))
	within(t, held.held)
	r.write(frame(wire.OpPublish, false, 5, make([]byte, 1)))
	r.refused(wire.CodeFlowControl)
	within(t, h.gone)
	if len(held.held) != 0 {
		t.Error("the publish beyond the window reached the handler")
	}
}

func TestServer_TooManyUnansweredRequests_IsClosed(t *testing.T) {
	h := newHandler()
	var n atomic.Int64
	h.request = func(*ServerConn, uint32, wire.Op, []byte) { n.Add(1) }
	w := newWorld(t, h, ServerConfig{})
	r := w.greeted()
	var all []byte
	for corr := uint32(1); corr <= RequestsMax+1; corr++ {
		all = wire.AppendFrame(all, wire.OpSettle, false, corr, nil)
	}
	r.write(all)
	r.refused(wire.CodeFlowControl)
	within(t, h.gone)
	if n.Load() != RequestsMax {
		t.Errorf("%d requests reached the handler", n.Load())
	}

	n.Store(0)
	r = w.greeted()
	large := make([]byte, RequestBytesMax/4)
	for corr := uint32(1); corr <= 4; corr++ {
		r.write(frame(wire.OpSettle, false, corr, large))
	}
	r.write(frame(wire.OpSettle, false, 5, []byte{1}))
	r.refused(wire.CodeFlowControl)
	within(t, h.gone)
	if n.Load() != 4 {
		t.Errorf("%d large requests reached the handler", n.Load())
	}
}

func TestSend_KeepsTheWindow(t *testing.T) {
	h := newHandler()
	h.welcome.PublishWindow = 1000
	held := &holder{held: make(chan heldRequest, 100)}
	h.request = held.request
	w := newWorld(t, h, ServerConfig{})
	freed := make(chan int, 10)
	answered := make(chan error, 10)
	c := w.connect(ClientConfig{OnWindow: func(free int) { freed <- free }})
	done := func(_ wire.Op, _ []byte, err error) { answered <- err }
	send := func(op wire.Op, n int) error { return c.Send(op, make([]byte, n), done) }
	never := func(wire.Op, []byte, error) { t.Error("a request that was refused is called back") }

	if err := c.Send(wire.OpPublish, make([]byte, 1001), never); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more than the window: %v", err)
	}
	if err := c.Send(wire.OpSettle, make([]byte, wire.PayloadBytesMax+1), never); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more than a frame: %v", err)
	}
	if err := errors.Join(send(wire.OpPublish, 600), send(wire.OpPublish, 400)); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(wire.OpPublish, make([]byte, 1), never); !errors.Is(err, ErrWindow) {
		t.Errorf("window full: %v", err)
	}
	if c.PublishWindowFree() != 0 {
		t.Errorf("%d free", c.PublishWindowFree())
	}
	if err := send(wire.OpSettle, 5000); err != nil {
		t.Errorf("a settle does not wait for publishes: %v", err)
	}
	first := within(t, held.held)
	first.Error(first.corr, wire.NewErrorReply(wire.CodeOverloaded, "later"))
	if err := within(t, answered); !errors.Is(err, &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeOverloaded}}) {
		t.Error(err)
	}
	if free := within(t, freed); free != 600 || c.PublishWindowFree() != 600 {
		t.Errorf("%d free after the first answer", free)
	}
	if err := send(wire.OpPublish, 600); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	for range 3 {
		if err := within(t, answered); !errors.Is(err, ErrConnClosed) {
			t.Error(err)
		}
	}
	if len(freed) != 0 {
		t.Error("the end of the connection freed window")
	}
}

func TestSend_BoundsOtherRequests(t *testing.T) {
	w := newWorld(t, newHandler(), ServerConfig{}) // never answers
	c := w.connect(ClientConfig{})
	ended := 0
	done := func(_ wire.Op, _ []byte, err error) {
		if !errors.Is(err, ErrConnClosed) {
			t.Error(err)
		}
		ended++
	}
	for range 4 {
		if err := c.Send(wire.OpSettle, make([]byte, RequestBytesMax/4), done); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Send(wire.OpSettle, []byte{1}, done); !errors.Is(err, ErrTooManyRequests) {
		t.Errorf("more bytes than allowed: %v", err)
	}
	for range RequestsMax - 4 {
		if err := c.Send(wire.OpSettle, nil, done); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Send(wire.OpSettle, nil, done); !errors.Is(err, ErrTooManyRequests) {
		t.Errorf("more requests than allowed: %v", err)
	}
	_ = c.Close()
	if ended != RequestsMax {
		t.Errorf("%d requests were told of the end", ended)
	}
}

func TestCall_ContextEnds_AnswerComesLater(t *testing.T) {
	h := newHandler()
	held := &holder{held: make(chan heldRequest, 1)}
	h.request = held.request
	w := newWorld(t, h, ServerConfig{})
	c := w.connect(ClientConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := c.Call(ctx, wire.OpSettle, nil)
		ended <- err
	}()
	first := within(t, held.held)
	cancel()
	if err := within(t, ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	first.Reply(first.corr, wire.OpSettle, nil)
	go c.Call(t.Context(), wire.OpDigest, nil)
	second := within(t, held.held)
	second.Reply(second.corr, wire.OpDigest, nil)
	if c.Err() != nil {
		t.Error("an answer that nobody waits for ended the connection")
	}
	if _, _, err := c.Call(ctx, wire.OpSettle, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestClient_ServerAnswersWhatWasNotAsked_Ends(t *testing.T) {
	for name, stray := range map[string][]byte{
		"answer":  frame(wire.OpPublish, true, 99, nil),
		"garbage": bytes.Repeat([]byte{0xee}, 100),
		"half":    frame(wire.OpDeliver, false, 0, make([]byte, 50))[:30],
		"bomb":    frame(wire.OpError, false, 0, []byte{0xdd, 0xff, 0xff, 0xff, 0xff}),
	} {
		near, far := pipeTCP(t)
		go func() {
			_, _ = far.Write(append(frame(wire.OpHello, true, 1, encoded(welcomeDefaults(wire.Welcome{}))), stray...))
			closeWrite(far)
		}()
		c, err := Connect(t.Context(), near, ClientConfig{})
		if err != nil {
			t.Fatal(name, err)
		}
		within(t, c.Done())
		if err := c.Err(); !errors.Is(err, ErrConnClosed) {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.Close()
		_ = far.Close()
	}
}
