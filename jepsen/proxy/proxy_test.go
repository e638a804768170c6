package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onceq/transport/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitMax bounds "it happens".
const waitMax = 60 * time.Second

// server answers each request with its payload, and keeps what it got.
type server struct {
	l   net.Listener
	wg  sync.WaitGroup
	mu  sync.Mutex
	got []wire.Frame
}

func serve(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{l: l}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.conn(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); s.wg.Wait() })
	return s
}

func (s *server) conn(c net.Conn) {
	defer c.Close()
	magic := make([]byte, len(wire.Magic))
	if _, err := io.ReadFull(c, magic); err != nil || string(magic) != wire.Magic {
		return
	}
	frames := wire.NewFrameReader(c, wire.FrameBytesMax)
	for {
		f, err := frames.Next()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.got = append(s.got, f)
		s.mu.Unlock()
		if _, err := c.Write(wire.AppendFrame(nil, f.Op, true, f.Corr, f.Payload)); err != nil {
			return
		}
	}
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

type client struct {
	net.Conn
	frames *wire.FrameReader
}

func dial(t *testing.T, n *Net, s *server) *client {
	t.Helper()
	c, err := n.Dialer("c")(t.Context(), "tcp", s.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(waitMax))
	if _, err := c.Write([]byte(wire.Magic)); err != nil {
		t.Fatal(err)
	}
	return &client{c, wire.NewFrameReader(c, wire.FrameBytesMax)}
}

func (c *client) ask(t *testing.T, op wire.Op, corr uint32, text string) {
	t.Helper()
	if _, err := c.Write(wire.AppendFrame(nil, op, false, corr, []byte(text))); err != nil {
		t.Fatal(err)
	}
}

func (c *client) want(t *testing.T, corr uint32, text string) {
	t.Helper()
	f, err := c.frames.Next()
	if err != nil || f.Corr != corr || !bytes.Equal(f.Payload, []byte(text)) {
		t.Fatalf("got %+v, %v, want reply %d %q", f, err, corr, text)
	}
}

func network(t *testing.T, tap Tap) (*Net, *server) {
	s := serve(t)
	n := New(tap)
	t.Cleanup(n.Close)
	n.Node("n1", s.l.Addr().String())
	return n, s
}

func TestNet_PassesFramesBothWays(t *testing.T) {
	t.Parallel()
	n, s := network(t, nil)
	c := dial(t, n, s)
	big := string(bytes.Repeat([]byte("x"), 1<<20))
	for i, text := range []string{"", "hello", big} {
		c.ask(t, wire.OpPublish, uint32(i+1), text)
		c.want(t, uint32(i+1), text)
	}
}

func TestNet_LosesTheReplyAndNotTheRequest(t *testing.T) {
	t.Parallel()
	n, s := network(t, nil)
	c := dial(t, n, s)
	loss := n.LoseReplies("n1", "", 1, wire.OpPublish)
	c.ask(t, wire.OpSettle, 1, "a") // another op passes
	c.want(t, 1, "a")
	c.ask(t, wire.OpPublish, 2, "b")
	if f, err := c.frames.Next(); err == nil {
		t.Fatalf("got %+v, want the connection to end", f)
	}
	<-loss.Done()
	if !n.Asked(wire.OpPublish) || !n.Asked(wire.OpSettle) || n.Asked(wire.OpReceive) {
		t.Error("the ops that were asked for are others than it says")
	}
	if s.count() != 2 {
		t.Errorf("the server got %d requests, want 2", s.count())
	}
	c = dial(t, n, s)
	c.ask(t, wire.OpPublish, 1, "c") // only one was to be lost
	c.want(t, 1, "c")
	if lost := n.Stop(loss); lost != 1 {
		t.Errorf("%d lost, want 1", lost)
	}
}

func TestNet_HeldFramesPassWhenReleased(t *testing.T) {
	t.Parallel()
	n, s := network(t, nil)
	c := dial(t, n, s)
	c.ask(t, wire.OpPing, 1, "")
	c.want(t, 1, "")
	var told []time.Duration
	n.TellHeld(func(_ string, from, to time.Time) { told = append(told, to.Sub(from)) })
	n.Hold("n1", ToClient, true)
	n.Hold("n1", ToClient, true)
	n.Hold("n1", ToServer, true)
	n.Hold("n1", ToServer, false)
	c.ask(t, wire.OpPing, 2, "a")
	c.ask(t, wire.OpPing, 3, "b")
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if f, err := c.frames.Next(); err == nil {
		t.Fatalf("%+v passed while it was held", f)
	}
	_ = c.SetReadDeadline(time.Now().Add(waitMax))
	n.Hold("n1", ToClient, false)
	c.want(t, 2, "a")
	c.want(t, 3, "b")
	n.Heal()
	n.Hold("n1", ToClient, true)
	n.Heal()
	if len(told) != 2 || told[0] <= 0 {
		t.Errorf("told of %v, want the two stretches in which nothing passed to clients", told)
	}
}

func TestNet_WhatAClientSentBeforeItWasGoneArrivesLate(t *testing.T) {
	t.Parallel()
	n, s := network(t, nil)
	c := dial(t, n, s)
	c.ask(t, wire.OpPing, 1, "")
	c.want(t, 1, "")
	if k := n.Stood("n1"); k != 0 {
		t.Errorf("%d frames were held, and nothing holds them", k)
	}
	n.Hold("n1", ToServer, true)
	c.ask(t, wire.OpPublish, 2, "late")
	_ = c.Close()
	other := dial(t, n, s)
	for began := time.Now(); n.Stood("n1") == 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > waitMax {
			t.Fatal("the frame is not counted as held")
		}
	}
	n.Hold("n1", ToServer, false)
	other.ask(t, wire.OpPing, 1, "")
	other.want(t, 1, "")
	deadline := time.Now().Add(waitMax)
	for s.count() != 3 {
		if time.Now().After(deadline) {
			t.Fatalf("the server got %d requests, want 3", s.count())
		}
		time.Sleep(time.Millisecond)
	}
	for n.Links("n1") != 1 {
		if time.Now().After(deadline) {
			t.Fatalf("%d links live, want 1", n.Links("n1"))
		}
		time.Sleep(time.Millisecond)
	}
}

func TestNet_CutResetsAndRefuseRefuses(t *testing.T) {
	t.Parallel()
	closed := make(chan Link, 10)
	n, s := network(t, tapFuncs{closed: func(l Link) { closed <- l }})
	c := dial(t, n, s)
	c.ask(t, wire.OpPing, 1, "")
	c.want(t, 1, "")
	if got := n.Cut("n1", "somebody else"); got != 0 {
		t.Errorf("cut %d links of somebody else", got)
	}
	if got := n.Cut("n1", "c"); got != 1 {
		t.Errorf("cut %d links, want 1", got)
	}
	if _, err := c.frames.Next(); err == nil {
		t.Error("the connection lives on")
	}
	if l := <-closed; l.Client != "c" || l.Node != "n1" {
		t.Errorf("the tap is told of %+v", l)
	}
	n.Refuse("n1", true)
	if _, err := n.Dialer("c")(context.Background(), "tcp", s.l.Addr().String()); err == nil {
		t.Error("a connection is made while they are refused")
	}
	n.Heal()
	c = dial(t, n, s)
	c.ask(t, wire.OpPing, 1, "")
	c.want(t, 1, "")
}

func TestNet_DelayKeepsTheOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := 0
	n, s := network(t, tapFuncs{frame: func(_ Link, d Direction, _ wire.Frame) {
		mu.Lock()
		defer mu.Unlock()
		seen++
	}})
	c := dial(t, n, s)
	n.Delay("n1", time.Millisecond, 2*time.Millisecond)
	const many = 50
	for i := range many {
		c.ask(t, wire.OpPing, uint32(i+1), "x")
	}
	for i := range many {
		c.want(t, uint32(i+1), "x")
	}
	if late := n.Late("n1"); late != 2*many {
		t.Errorf("%d frames were delayed, want %d", late, 2*many)
	}
	mu.Lock()
	defer mu.Unlock()
	if seen != 2*many {
		t.Errorf("the tap saw %d frames, want %d", seen, 2*many)
	}
}

type tapFuncs struct {
	frame  func(l Link, d Direction, f wire.Frame)
	closed func(l Link)
}

func (f tapFuncs) Frame(l Link, d Direction, fr wire.Frame) {
	if f.frame != nil {
		f.frame(l, d, fr)
	}
}

func (f tapFuncs) Closed(l Link) {
	if f.closed != nil {
		f.closed(l)
	}
}

func TestRefuseRequests_WhatIsBehindGoesThrough(t *testing.T) {
	t.Parallel()
	n, s := New(nil), serve(t)
	t.Cleanup(n.Close)
	n.Node("n1", s.l.Addr().String())
	c := dial(t, n, s)
	r := n.RefuseRequests("n1", wire.CodeOverloaded, wire.OpPublish)
	c.ask(t, wire.OpSettle, 1, "another kind")
	c.want(t, 1, "another kind")
	c.ask(t, wire.OpPublish, 2, "first")
	f, err := c.frames.Next()
	if err != nil || f.Op != wire.OpError || !f.Reply || f.Corr != 2 {
		t.Fatalf("got %+v, %v", f, err)
	}
	if e, err := wire.DecodeErrorReply(f.Payload); err != nil || e.Code != wire.CodeOverloaded || !e.Retriable {
		t.Errorf("refused with %+v, %v", e, err)
	}
	c.ask(t, wire.OpPublish, 3, "second")
	c.want(t, 3, "second")
	if k := n.StopRefusing(r); k != 1 || s.count() != 2 {
		t.Errorf("%d were refused, the server got %d", k, s.count())
	}
}

func TestLinger_TheNodeNoticesLater(t *testing.T) {
	t.Parallel()
	n, s := New(nil), serve(t)
	t.Cleanup(n.Close)
	n.Node("n1", s.l.Addr().String())
	n.Linger("n1", time.Hour)
	old := dial(t, n, s)
	old.ask(t, wire.OpSettle, 1, "before")
	old.want(t, 1, "before")
	if k := n.CutClients("n1"); k != 1 {
		t.Errorf("%d connections were cut", k)
	}
	if _, err := old.frames.Next(); err == nil {
		t.Error("the client has not noticed")
	}
	fresh := dial(t, n, s)
	fresh.ask(t, wire.OpSettle, 2, "after")
	fresh.want(t, 2, "after")
	if k := n.Links("n1"); k != 2 {
		t.Errorf("the node has %d connections, the old one is still open on its side", k)
	}
}

func TestGarble_AFlippedBitEndsTheConnection(t *testing.T) {
	t.Parallel()
	n, s := New(nil), serve(t)
	t.Cleanup(n.Close)
	n.Node("n1", s.l.Addr().String())
	c := dial(t, n, s)
	c.ask(t, wire.OpSettle, 1, "as it is")
	c.want(t, 1, "as it is")
	n.Garble("n1", 1)
	c.ask(t, wire.OpSettle, 2, strings.Repeat("x", 1<<16))
	if f, err := c.frames.Next(); err == nil {
		t.Errorf("a garbled frame was answered: %+v", f)
	}
	if n.Garbled() == 0 {
		t.Error("no frame was garbled")
	}
}
