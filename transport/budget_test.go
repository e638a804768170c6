package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Each slow client is within its own bound, and all of them together are too much:
// who has been slow for the longest goes, also when it takes a little now and then, and
// who reads does not notice.
func TestVirtual_ManySlowClients_AreBoundedTogether(t *testing.T) {
	const answer, slow, most = 1 << 20, 10, 4
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lazy %v", lazy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler()
				h.request = func(c *ServerConn, corr uint32, op wire.Op, _ []byte) {
					body := make([]byte, answer)
					if !lazy {
						c.Reply(corr, op, body)
						return
					}
					c.PushLazy(wire.OpTopology, answer, func(w *pack.Writer) bool {
						w.Raw(body)
						return true
					})
					c.Reply(corr, op, nil)
				}
				w := newMemoryWorld(t, h, ServerConfig{OutputBytes: most*answer + answer/2})
				var raws []*raw
				for i := range slow {
					r := w.greeted()
					_ = r.nc.SetDeadline(time.Time{})
					r.write(frame(wire.OpSettle, false, 1, nil))
					raws = append(raws, r)
					time.Sleep(time.Second)
					for _, r := range raws { // it answers, and takes a little
						var b [100]byte
						if _, err := r.nc.Read(b[:]); err == nil {
							_, _ = r.nc.Write(frame(wire.OpPing, true, 1<<20, nil))
						}
					}
					if waits := w.s.output.held.Load(); waits > int64(w.s.cfg.OutputBytes) {
						t.Fatalf("after %d clients %d bytes wait", i+1, waits)
					}
				}
				reader := w.connect(ClientConfig{OnPush: func(wire.Op, []byte) {}})
				for range 20 {
					if _, _, err := reader.Call(context.Background(), wire.OpSettle, nil); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if gone := len(h.gone); gone < slow-most || gone >= slow {
					t.Errorf("%d of %d clients were cut off", gone, slow)
				}
				for range len(h.gone) {
					if c := <-h.gone; c.ID() > slow-1 {
						t.Errorf("client %d was cut off, and others were slow before it", c.ID())
					}
				}
				for _, r := range raws {
					_ = r.nc.Close()
				}
				_ = reader.Close()
				synctest.Wait()
				if waits := w.s.output.held.Load(); waits != 0 {
					t.Errorf("nobody is there, and %d bytes wait", waits)
				}
			})
		})
	}
}

// Each has little to wait for, and all together too much.
func TestVirtual_VeryManySlowClients_AreBoundedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, answer, most = 60, easeLeast / 2, 10 * easeLeast
		h := newHandler()
		h.request = func(c *ServerConn, corr uint32, op wire.Op, _ []byte) { c.Reply(corr, op, make([]byte, answer)) }
		w := newMemoryWorld(t, h, ServerConfig{OutputBytes: most})
		for range clients {
			r := w.greeted()
			for i := range uint32(8) { // seven fill the connection
				_, _ = r.nc.Write(frame(wire.OpSettle, false, i+1, nil)) // unless it is cut off
				synctest.Wait()
			}
			if waits := w.s.output.held.Load(); waits > most {
				t.Fatalf("%d bytes wait", waits)
			}
		}
	})
}

// Who has much to read, and reads it, goes on: others have taken nothing since they came.
func TestVirtual_WhoReadsMuch_IsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const answer, idlers = 1 << 20, 6
		body := make([]byte, answer)
		h := newHandler()
		h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
			for range payload[0] {
				c.PushLazy(wire.OpTopology, answer, func(w *pack.Writer) bool {
					w.Raw(body)
					return true
				})
			}
			c.Reply(corr, op, nil)
		}
		w := newMemoryWorld(t, h, ServerConfig{OutputBytes: 4*answer + answer/2})
		ask := func(answers byte) *raw {
			r := w.greeted()
			_ = r.nc.SetDeadline(time.Time{})
			r.write(frame(wire.OpSettle, false, 1, []byte{answers}))
			return r
		}
		reader := ask(200)
		read := make(chan struct{})
		go func() { // a megabyte each 200 ms, for longer than the others are there
			defer close(read)
			for {
				if _, err := io.CopyN(io.Discard, reader.nc, answer); err != nil {
					return
				}
				_, _ = reader.nc.Write(frame(wire.OpPing, true, 1, nil))
				time.Sleep(200 * time.Millisecond)
			}
		}()
		for range idlers {
			time.Sleep(time.Second)
			ask(1) // and reads nothing
			synctest.Wait()
		}
		if len(h.gone) == 0 {
			t.Error("nobody was cut off, there is room for all")
		}
		for range len(h.gone) {
			if c := <-h.gone; c.ID() == 1 {
				t.Errorf("who reads a megabyte each 200 ms was cut off: %v", c.reason)
			}
		}
		_ = reader.nc.Close()
		<-read
	})
}

// Each half of a frame is within the bound of a connection, and all of them together are
// too much: who has stopped sending goes, however much it sent before and although a byte
// comes now and then, and who keeps sending does not notice, however long it takes.
func TestVirtual_ManyHalfFrames_AreBoundedTogether(t *testing.T) {
	const half, tricklers, most = 1<<20 + 64, 12, 4 // each half has room for 2 MiB
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		h.request = echo
		w := newMemoryWorld(t, h, ServerConfig{InputBytes: most*2<<20 + 3<<20})
		whole := frame(wire.OpPublish, false, 1, make([]byte, 7<<20))
		steady := w.greeted() // client 1
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for range 3 {
				steady.sendsSlowly(1 << 20) // in 13 s
			}
		}()
		time.Sleep(time.Second) // its frame is the oldest
		var raws []*raw
		for i := range tricklers {
			r := w.greeted()
			_ = r.nc.SetDeadline(time.Time{})
			r.write(whole[:half])
			raws = append(raws, r)
			for range 2 {
				time.Sleep(time.Second)
				for _, r := range raws {
					_, _ = r.nc.Write(whole[half : half+1]) // unless it is cut off
				}
			}
			synctest.Wait()
			if held := w.s.input.held.Load(); held > w.s.input.most || held < 2<<20 {
				t.Fatalf("after %d clients %d bytes are held", i+1, held)
			}
		}
		if gone := len(h.gone); gone < tricklers-most-1 || gone == tricklers {
			t.Errorf("%d of %d clients were cut off", gone, tricklers)
		}
		for range len(h.gone) {
			if c := <-h.gone; c.ID() == 1 || !errors.Is(c.reason, errTrickles) {
				t.Errorf("client %d was cut off: %v", c.ID(), c.reason)
			}
		}
		<-sent
		for _, r := range append(raws, steady) {
			_ = r.nc.Close()
		}
		synctest.Wait()
		if held := w.s.input.held.Load(); held != 0 {
			t.Errorf("nobody is there, and %d bytes are held", held)
		}
	})
}

// Each has sent little, and all together too much: they go before somebody who has sent
// more and keeps sending.
func TestVirtual_VeryManyHalfFrames_AreBoundedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const little, most = easeLeast / 2, 2 << 20
		h := newHandler()
		h.request = echo
		w := newMemoryWorld(t, h, ServerConfig{InputBytes: most})
		for range most / little {
			r := w.greeted()
			r.write(frame(wire.OpPublish, false, 1, make([]byte, little))[:100])
		}
		time.Sleep(frameGrace + time.Second)
		if held := w.s.input.held.Load(); held != most || len(h.gone) > 0 {
			t.Fatalf("%d bytes are held, %d clients gone", held, len(h.gone))
		}
		steady := w.greeted()
		steady.sendsSlowly(4 * easeLeast)
		if gone := len(h.gone); gone < 4*easeLeast/little || gone > most/little/2 {
			t.Errorf("%d of %d clients were cut off", gone, most/little)
		}
	})
}

// sendsSlowly sends a request of so many bytes, a little above the rate at which one falls
// behind, and expects it back.
func (r *raw) sendsSlowly(bytes int) {
	r.t.Helper()
	_ = r.nc.SetDeadline(time.Time{})
	f := frame(wire.OpSettle, false, 1, make([]byte, bytes))
	for len(f) > 0 {
		n := min(len(f), 8<<10)
		if _, err := r.nc.Write(f[:n]); err != nil {
			r.t.Errorf("who sends steadily: %v", err)
			return
		}
		f = f[n:]
		time.Sleep(100 * time.Millisecond)
	}
	if f, err := r.frames.Next(); err != nil || f.Op != wire.OpSettle || len(f.Payload) != bytes {
		r.t.Errorf("answered with %v of %d bytes, %v", f.Op, len(f.Payload), err)
	}
}

// What is complete belongs to the handler and is bounded by the window: it counts no
// longer, and nobody is cut off for it.
func TestVirtual_WholeFrames_AreNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		h.request = echo
		w := newMemoryWorld(t, h, ServerConfig{InputBytes: 4 << 20})
		var conns []*Conn
		for range 8 {
			c := w.connect(ClientConfig{})
			for range 4 {
				if _, _, err := c.Call(t.Context(), wire.OpPublish, make([]byte, 1<<20)); err != nil {
					t.Fatal(err)
				}
			}
			conns = append(conns, c)
		}
		synctest.Wait()
		if held := w.s.input.held.Load(); held != 0 || len(h.gone) > 0 {
			t.Errorf("%d bytes are held, %d of %d clients were cut off", held, len(h.gone), len(conns))
		}
	})
}

// What is kept of half a frame makes room as soon as its connection is cut off.
func TestVirtual_HalfFrame_EndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var server *ServerConn
		h := newHandler()
		h.connect = func(c *ServerConn) { server = c }
		w := newMemoryWorld(t, h, ServerConfig{})
		r := w.greeted()
		r.write(frame(wire.OpPublish, false, 1, make([]byte, 1<<20))[:100_000])
		synctest.Wait()
		if held := w.s.input.held.Load(); held != 128<<10 {
			t.Fatalf("%d bytes are held", held)
		}
		server.cut(errKilled)
		if held := w.s.input.held.Load(); held != 0 {
			t.Fatalf("%d bytes are held of a connection that was cut off", held)
		}
		within(t, h.gone)
	})
}
