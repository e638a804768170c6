package raw

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node answers a handshake over a pipe and hands the connection to serve.
func node(t *testing.T, serve func(nc net.Conn, frames *wire.FrameReader)) Dialer {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		magic := make([]byte, len(wire.Magic))
		if _, err := io.ReadFull(far, magic); err != nil || string(magic) != wire.Magic {
			t.Errorf("magic %q, %v", magic, err)
			return
		}
		frames := wire.NewFrameReader(bufio.NewReader(far), wire.FrameBytesMax)
		f, err := frames.Next()
		if err != nil || f.Op != wire.OpHello {
			t.Errorf("hello: %v, %v", f.Op, err)
			return
		}
		w := pack.NewWriter(nil)
		wire.Welcome{Version: wire.Version, Cluster: "x", Node: "n1", Topology: wire.Topology{
			Leader: "n2", Nodes: []wire.NodeAddress{{Name: "n1", Address: "a:1"}, {Name: "n2", Address: "a:2"}},
		}}.Append(w)
		reply(t, far, f, wire.OpHello, w.Bytes())
		serve(far, frames)
	}()
	t.Cleanup(func() { _ = near.Close(); <-done })
	return func(context.Context, string, string) (net.Conn, error) { return near, nil }
}

func reply(t *testing.T, nc net.Conn, to wire.Frame, op wire.Op, payload []byte) {
	if _, err := nc.Write(wire.AppendFrame(nil, op, true, to.Corr, payload)); err != nil {
		t.Errorf("write: %v", err)
	}
}

func dial(t *testing.T, d Dialer, push Push) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), d, "a:1", "test", push)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCall_TellsAnswersRefusalsAndLossApart(t *testing.T) {
	t.Parallel()
	c := dial(t, node(t, func(nc net.Conn, frames *wire.FrameReader) {
		for i := 0; ; i++ {
			f, err := frames.Next()
			if err != nil {
				return
			}
			switch i {
			case 0:
				reply(t, nc, f, f.Op, f.Payload)
			case 1:
				w := pack.NewWriter(nil)
				wire.ErrorReply{Code: wire.CodeNotLeader, Leader: "a:2"}.Append(w)
				reply(t, nc, f, wire.OpError, w.Bytes())
			default:
				return // without an answer
			}
		}
	}), nil)
	if c.Welcome.Node != "n1" || c.Leader() != "a:2" {
		t.Errorf("welcome %+v, leader %q", c.Welcome, c.Leader())
	}
	payload, err := c.Call(t.Context(), wire.OpQueueShow, wire.QueueShow{Name: "q"})
	if show, derr := wire.DecodeQueueShow(payload); err != nil || derr != nil || show.Name != "q" {
		t.Errorf("answered %x, %v, %v", payload, err, derr)
	}
	_, err = c.Call(t.Context(), wire.OpQueueShow, wire.QueueShow{Name: "q"})
	if e := (*wire.Error)(nil); !errors.As(err, &e) || e.Code != wire.CodeNotLeader || e.Leader != "a:2" {
		t.Errorf("refused with %v", err)
	}
	if _, err = c.Call(t.Context(), wire.OpQueueShow, wire.QueueShow{Name: "q"}); !errors.Is(err, ErrLost) {
		t.Errorf("lost with %v", err)
	}
	<-c.Done()
	if _, err = c.Call(t.Context(), wire.OpQueueShow, wire.QueueShow{Name: "q"}); !errors.Is(err, ErrUnsent) {
		t.Errorf("on a connection that has ended: %v", err)
	}
}

func TestPush_SaysHowLongNothingCame(t *testing.T) {
	t.Parallel()
	type pushed struct {
		op  wire.Op
		gap time.Duration
	}
	got := make(chan pushed, 1)
	const silence = 30 * time.Millisecond
	dial(t, node(t, func(nc net.Conn, frames *wire.FrameReader) {
		timer := time.NewTimer(silence)
		<-timer.C
		if _, err := nc.Write(wire.AppendFrame(nil, wire.OpLost, false, 0, nil)); err != nil {
			t.Errorf("push: %v", err)
		}
		for {
			if _, err := frames.Next(); err != nil {
				return
			}
		}
	}), func(op wire.Op, _ []byte, gap time.Duration) { got <- pushed{op, gap} })
	if p := <-got; p.op != wire.OpLost || p.gap <= 0 {
		t.Errorf("pushed %+v", p)
	}
}

// TestAges_OfSeveralBehindOneSilence: each of them may be as old as it.
func TestAges_OfSeveralBehindOneSilence(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	a := newAges(start)
	for _, x := range []struct{ asked, read, age int }{
		{0, 200, 200}, // a silence
		{201, 202, 202},
		{290, 291, 291}, // handling the one before took long
		{292, 300, 9},   // it had to be waited for: what is read now came since
		{300, 301, 10},
		{301, 311, 10},
		{311, 1311, 1000}, // a silence again
		{1311, 2311, 1000},
		{2311, 2312, 1001},
		{3310, 3311, 2000}, // nobody has so much in hand
		{3312, 3313, 2},
	} {
		if got := a.of(at(x.asked), at(x.read)); got != time.Duration(x.age)*time.Millisecond {
			t.Errorf("read at %d: %v old at most, want %d ms", x.read, got, x.age)
		}
	}
}
