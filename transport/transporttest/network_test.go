package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns a connection from a to b.
func pair(t *testing.T, n *Network) (near, far net.Conn) {
	t.Helper()
	l, err := n.Listen("b:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = n.Dialer("a")(context.Background(), "tcp", l.Addr().String())
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

// bubble runs f with a network in virtual time.
func bubble(t *testing.T, f func(t *testing.T, n *Network)) {
	synctest.Test(t, func(t *testing.T) { f(t, NewNetwork()) })
}

func write(t *testing.T, nc net.Conn, text string) {
	t.Helper()
	if n, err := nc.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
}

func expect(t *testing.T, nc net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(nc, b); err != nil || string(b) != text {
		t.Fatalf("%q, %v; want %q", b, err, text)
	}
}

func TestConn_CarriesBytesInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		near, far := pair(t, n)
		if near.RemoteAddr().String() != far.LocalAddr().String() || near.LocalAddr().String() != far.RemoteAddr().String() {
			t.Error(near.LocalAddr(), near.RemoteAddr(), far.LocalAddr(), far.RemoteAddr())
		}
		sent := make([]byte, 3<<20)
		rng := rand.New(rand.NewPCG(1, 1))
		for i := range sent {
			sent[i] = byte(rng.Uint32())
		}
		n.SetDelay(time.Millisecond)
		var writing sync.WaitGroup
		writing.Go(func() {
			for rest := sent; len(rest) > 0; {
				k := min(len(rest), 1+rng.IntN(100_000))
				if _, err := near.Write(rest[:k]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[k:]
			}
			_ = near.Close()
		})
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
		}
		writing.Wait()
	})
}

func TestConn_BufferIsBounded_AndDeadlinesHold(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		near, far := pair(t, n)
		_ = near.SetWriteDeadline(time.Now().Add(time.Minute))
		start := time.Now()
		k, err := near.Write(make([]byte, 10*bufferBytes))
		if k != bufferBytes || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("%d, %v after %v", k, err, time.Since(start))
		}
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Error("no timeout:", err)
		}
		_ = near.SetWriteDeadline(time.Time{})
		written := make(chan error)
		go func() {
			_, err := near.Write([]byte("more"))
			written <- err
		}()
		synctest.Wait()
		select {
		case <-written:
			t.Error("written into a full buffer")
		default:
		}
		if _, err := io.ReadFull(far, make([]byte, bufferBytes)); err != nil {
			t.Error(err)
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
		expect(t, far, "more")

		start = time.Now()
		_ = far.SetReadDeadline(start.Add(time.Hour))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour {
			t.Error(err, time.Since(start))
		}
		// A deadline that is set while somebody waits counts too.
		_ = far.SetDeadline(time.Time{})
		go func() {
			time.Sleep(time.Second)
			_ = far.SetReadDeadline(time.Now())
		}()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		write(t, near, "late")
		_ = far.SetReadDeadline(time.Time{})
		expect(t, far, "late")
	})
}

func TestConn_Close(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		near, far := pair(t, n)
		write(t, near, "last words")
		if err := near.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error("write after CloseWrite:", err)
		}
		expect(t, far, "last words")
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		write(t, far, "answer")
		expect(t, near, "answer")
		reading := make(chan error)
		go func() {
			_, err := near.Read(make([]byte, 1))
			reading <- err
		}()
		synctest.Wait()
		_ = near.Close()
		if err := <-reading; !errors.Is(err, net.ErrClosed) {
			t.Error("our own reader:", err)
		}
		if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Error("write to a closed end:", err)
		}
		if err := near.Close(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := near.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		_ = far.Close()
		if n.Conns() != 0 {
			t.Errorf("%d ends are open", n.Conns())
		}
	})
}

func TestSetDelay(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		n.SetDelay(20 * time.Millisecond)
		start := time.Now()
		near, far := pair(t, n)
		if took := time.Since(start); took != 40*time.Millisecond {
			t.Errorf("dial took %v", took)
		}
		start = time.Now()
		write(t, near, "x")
		if time.Since(start) != 0 {
			t.Error("the writer waits for the delay")
		}
		expect(t, far, "x")
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("arrived after %v", took)
		}
	})
}

func TestCut_IsOneWay_AndLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		near, far := pair(t, n)
		write(t, near, "arrived,")
		n.Cut("a", "b")
		write(t, near, "stalled,")
		write(t, far, "other way")
		expect(t, near, "other way")
		expect(t, far, "arrived,")
		_ = far.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("came through a cut:", err)
		}
		_ = far.SetReadDeadline(time.Time{})
		n.Heal()
		write(t, near, "after")
		expect(t, far, "stalled,after")
	})
}

func TestCut_WhileUnderWay_Stalls(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		near, far := pair(t, n)
		n.SetDelay(time.Second)
		write(t, near, "x")
		n.CutBoth("a", "b")
		time.AfterFunc(time.Minute, n.Heal)
		start := time.Now()
		expect(t, far, "x")
		if took := time.Since(start); took != time.Minute+time.Second {
			t.Errorf("arrived after %v", took)
		}
	})
}

func TestCut_HidesThatTheOtherEndClosed(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		near, far := pair(t, n)
		n.Isolate("b")
		_ = far.Close()
		write(t, near, "nobody says that you are gone")
		_ = near.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		_ = near.SetReadDeadline(time.Time{})
		n.Heal()
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
	})
}

func TestDial(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		dial := n.Dialer("a")
		if _, err := dial(t.Context(), "tcp", "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error("nobody listens:", err)
		}
		l, err := n.Listen("b:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Listen("b:1"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Error("listens twice:", err)
		}
		for _, cut := range []func(){func() { n.Cut("a", "b") }, func() { n.Cut("b", "a") }, func() { n.Isolate("a") }} {
			cut()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := dial(ctx, "tcp", "b:1"); !errors.Is(err, context.DeadlineExceeded) {
				t.Error("through a cut:", err)
			}
			cancel()
			time.AfterFunc(time.Hour, n.Heal)
			nc, err := dial(t.Context(), "tcp", "b:1")
			if err != nil {
				t.Error("healed while dialling:", err)
			} else {
				_ = nc.Close()
			}
		}
		n.Isolate("b") // what is on one host stays on it
		local, err := n.Dialer("b")(t.Context(), "tcp", "b:1")
		if err != nil {
			t.Fatal(err)
		}
		_ = local.Close()
		n.Heal()
		for range backlogMax {
			nc, err := dial(t.Context(), "tcp", "b:1")
			if err != nil {
				break
			}
			defer nc.Close()
		}
		if _, err := dial(t.Context(), "tcp", "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error("nobody accepts:", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestReset_BreaksBothEnds_AlsoOverACut(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		near, far := pair(t, n)
		n.Isolate("b")
		reading := make(chan error)
		go func() {
			_, err := far.Read(make([]byte, 1))
			reading <- err
		}()
		synctest.Wait()
		n.Reset("a")
		if err := <-reading; !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
}

func TestRestart_FreesTheAddress(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		l, err := n.Listen("b:1")
		if err != nil {
			t.Fatal(err)
		}
		nc, err := n.Dialer("a")(t.Context(), "tcp", "b:1") // is not accepted
		if err != nil {
			t.Fatal(err)
		}
		accepting := make(chan error)
		n.Restart("b")
		go func() {
			_, err := l.Accept()
			accepting <- err
		}()
		if err := <-accepting; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		_ = nc.Close()
		again, err := n.Listen("b:1")
		if err != nil {
			t.Fatal(err)
		}
		_ = again.Close()
		if n.Conns() != 0 {
			t.Errorf("%d ends are open", n.Conns())
		}
	})
}

func TestPowerOff_NothingLeavesTheHost_UntilPowerOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		l, err := n.Listen("b:1")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		nc, err := n.Dialer("a")(t.Context(), "tcp", "b:1")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		n.PowerOff("b")
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection from before: %v", err)
		}
		n.Heal() // undoes cuts, and this is none
		for _, c := range [][2]string{{"a", "b:1"}, {"b", "a:1"}} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := n.Dialer(c[0])(ctx, "tcp", c[1]); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s dials %s without power: %v", c[0], c[1], err)
			}
			cancel()
		}
		n.PowerOn("b")
		again, err := n.Dialer("a")(t.Context(), "tcp", "b:1")
		if err != nil {
			t.Fatal(err)
		}
		_ = again.Close()
	})
}
