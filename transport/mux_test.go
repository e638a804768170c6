package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/transporttest"
	"onceq/transport/wire"
)

// muxWorld is a Mux on host "n1" in memory.
type muxWorld struct {
	m    *Mux
	n    *transporttest.Network
	dial func() net.Conn
	end  func()
}

func newMuxWorld(t *testing.T) *muxWorld { return newMuxWorldWith(t, MuxConfig{}) }

func newMuxWorldWith(t *testing.T, cfg MuxConfig) *muxWorld {
	t.Helper()
	n := transporttest.NewNetwork()
	l, err := n.Listen("n1:7450")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMux(l, cfg)
	served := make(chan error, 1)
	go func() { served <- m.Serve() }()
	w := &muxWorld{m: m, n: n}
	w.dial = func() net.Conn {
		t.Helper()
		nc, err := n.Dialer("peer")(context.Background(), "tcp", "n1:7450")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	}
	var once sync.Once
	w.end = func() {
		once.Do(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
			if err := m.Close(); err != nil {
				t.Error("a second Close:", err)
			}
		})
	}
	t.Cleanup(w.end)
	return w
}

func TestMux_TellsClientsFromPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMuxWorld(t)
		for _, c := range []struct {
			l    net.Listener
			says string
		}{{w.m.Raft(), "Raft peer"}, {w.m.Clients(), "ONCQ and more"}, {w.m.Raft(), "R"}} {
			nc := w.dial()
			_, _ = nc.Write([]byte(c.says))
			closeWrite(nc)
			got, err := c.l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			// Long after the classification: its deadline is gone.
			time.Sleep(time.Hour)
			all, err := io.ReadAll(got)
			if string(all) != c.says || err != nil {
				t.Errorf("%q, %v; was %q", all, err, c.says)
			}
			_, _ = got.Write([]byte("answer"))
			closeWrite(got)
			if all, err := io.ReadAll(nc); string(all) != "answer" || err != nil {
				t.Errorf("%q, %v", all, err)
			}
			_ = got.Close()
		}
	})
}

func TestMux_Strangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMuxWorld(t)
		for name, c := range map[string]struct{ says, hears string }{
			"GET":     {"GET / HTTP/1.1\r\nHost: n1\r\n\r\n", "HTTP/1.1 400 Bad Request"},
			"POST":    {"POST / HTTP/1.1\r\nHost: n1\r\n\r\n", "HTTP/1.1 400 Bad Request"},
			"HTTP/2":  {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 400 Bad Request"},
			"TLS":     {"\x16\x03\x01\x00\x05hello", ""},
			"garbage": {"\xff\xfe\xfd", ""},
		} {
			nc := w.dial()
			_, _ = nc.Write([]byte(c.says))
			got, err := io.ReadAll(nc)
			if !strings.HasPrefix(string(got), c.hears) || c.hears == "" && len(got) > 0 {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	})
}

func TestMux_SilentConnection_IsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMuxWorld(t)
		nc := w.dial()
		start := time.Now()
		if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if took := time.Since(start); took != firstByteTimeout {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestMux_SilentConnections_AreBounded(t *testing.T) {
	t.Run("usually", func(t *testing.T) { silentAreBounded(t, MuxConfig{}, SilentMax) })
	t.Run("where little may be open", func(t *testing.T) { silentAreBounded(t, MuxConfig{SilentMax: 3}, 3) })
}

func silentAreBounded(t *testing.T, cfg MuxConfig, most int) {
	synctest.Test(t, func(t *testing.T) {
		w := newMuxWorldWith(t, cfg)
		first := w.dial()
		synctest.Wait()
		for range most - 1 {
			w.dial()
			synctest.Wait()
		}
		second := make(chan error, 1)
		_ = first.SetReadDeadline(time.Now())
		if _, err := first.Read(make([]byte, 1)); err == io.EOF {
			t.Error("closed before the limit")
		}
		_ = first.SetReadDeadline(time.Time{})
		go func() {
			_, err := first.Read(make([]byte, 1))
			second <- err
		}()
		// One more: the oldest makes room, and the newest is served.
		start := time.Now()
		good := w.dial()
		_, _ = good.Write([]byte("R"))
		if err := <-second; err != io.EOF {
			t.Error(err)
		}
		got, err := w.m.Raft().Accept()
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(start) != 0 {
			t.Error("had to wait")
		}
		_ = got.Close()
		w.m.mu.Lock()
		waiting := w.m.waiting.Len()
		w.m.mu.Unlock()
		if waiting > most {
			t.Errorf("%d connections wait", waiting)
		}
		time.Sleep(2 * firstByteTimeout)
	})
}

func TestMux_Close_EndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMuxWorld(t)
		silent, unclaimed := w.dial(), w.dial()
		_, _ = unclaimed.Write([]byte("R"))
		accepted := make(chan error, 1)
		go func() {
			_, err := w.m.Clients().Accept()
			accepted <- err
		}()
		synctest.Wait()
		w.end()
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := w.m.Raft().Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		for _, nc := range []net.Conn{silent, unclaimed} {
			if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
				t.Error(err)
			}
		}
		if err := w.m.Serve(); err != nil {
			t.Error("serve after close:", err)
		}
		if n := w.n.Conns(); n != 2 { // our own ends
			t.Errorf("%d ends are open", n)
		}
	})
}

func TestMux_OneListenerCloses_TheOtherLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMuxWorld(t)
		_ = w.m.Clients().Close()
		_ = w.m.Clients().Close()
		client, peer := w.dial(), w.dial()
		_, _ = client.Write([]byte(wire.Magic))
		_, _ = peer.Write([]byte("R"))
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		got, err := w.m.Raft().Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Close()
	})
}

// TestMux_WithServer serves clients through a Mux over loopback.
func TestMux_WithServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := NewMux(l, MuxConfig{})
	h := newHandler()
	h.request = echo
	s := NewServer(h, ServerConfig{})
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Serve(); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		if err := s.Serve(m.Clients()); err != nil {
			t.Error(err)
		}
	})
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Connect(t.Context(), nc, ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, payload, err := c.Call(t.Context(), wire.OpPublish, []byte("x")); string(payload) != "x" || err != nil {
		t.Error(payload, err)
	}
	_ = s.Close()
	within(t, c.Done())
	_ = m.Close()
	running.Wait()
	h.check(t)
}

// scriptedListener fails as its script says.
type scriptedListener struct {
	net.Listener
	errs chan error
}

func (l *scriptedListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, &net.OpError{Op: "accept", Err: err}
	default:
		return l.Listener.Accept()
	}
}

func TestAccept_OutOfDescriptors_Passes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewNetwork()
		inner, err := n.Listen("n1:1")
		if err != nil {
			t.Fatal(err)
		}
		l := &scriptedListener{Listener: inner, errs: make(chan error, 10)}
		for range 5 {
			l.errs <- syscall.EMFILE
		}
		w := serveWorld(t, newHandler(), ServerConfig{}, n, l, n.Dialer("client"))
		c := w.connect(ClientConfig{})
		_ = c.Close()
	})
	want := errors.New("the disk is on fire")
	l := &scriptedListener{errs: make(chan error, 1)}
	l.errs <- want
	if err := acceptLoop(l, make(chan struct{}), loggerOr(nil), nil); !errors.Is(err, want) {
		t.Error(err)
	}
}
