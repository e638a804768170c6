package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// These tests run in virtual time, over the network in memory.

func TestVirtual_CallsAndPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		h.request = echo
		h.connect = func(c *ServerConn) { c.Push(wire.OpTopology, []byte("push")) }
		w := newMemoryWorld(t, h, ServerConfig{})
		w.network.SetDelay(50 * time.Millisecond)
		pushed := make(chan string, 1)
		c := w.connect(ClientConfig{OnPush: func(_ wire.Op, payload []byte) { pushed <- string(payload) }})
		if got := <-pushed; got != "push" {
			t.Error(got)
		}
		start := time.Now()
		if _, payload, err := c.Call(t.Context(), wire.OpSettle, []byte("x")); string(payload) != "x" || err != nil {
			t.Error(payload, err)
		}
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("there and back took %v of virtual time", took)
		}
	})
}

func TestVirtual_IdleConnection_LivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		h.request = echo
		w := newMemoryWorld(t, h, ServerConfig{})
		c := w.connect(ClientConfig{})
		time.Sleep(24 * time.Hour)
		if err := c.Err(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Call(t.Context(), wire.OpSettle, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// A client that never asks must be asked.
func TestVirtual_ServerAsks_WhenTheClientOnlyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMemoryWorld(t, newHandler(), ServerConfig{})
		r := w.greeted()
		_ = r.nc.SetDeadline(time.Time{})
		for range 100 {
			f, err := r.frames.Next()
			if err != nil || f.Op != wire.OpPing || f.Reply {
				t.Fatalf("%+v, %v", f, err)
			}
			r.write(frame(wire.OpPing, true, f.Corr, nil))
		}
		start := time.Now()
		for { // and now it does not answer any more
			if _, err := r.frames.Next(); err != nil {
				break
			}
		}
		if took := time.Since(start); took < silenceFactor*pingInterval/2 || took > 2*silenceFactor*pingInterval {
			t.Errorf("given up after %v", took)
		}
		<-w.h.gone
	})
}

func TestVirtual_CutLink_BothSidesGiveUp(t *testing.T) {
	for _, cut := range []string{"both", "to the server", "to the client"} {
		t.Run(cut, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler()
				h.request = echo
				w := newMemoryWorld(t, h, ServerConfig{})
				c := w.connect(ClientConfig{})
				start := time.Now()
				switch cut {
				case "both":
					w.network.Isolate("n1")
				case "to the server":
					w.network.Cut("client", "n1")
				case "to the client":
					w.network.Cut("n1", "client")
				}
				_, _, err := c.Call(t.Context(), wire.OpSettle, nil)
				if !errors.Is(err, ErrConnLost) {
					t.Errorf("the request ends with %v", err)
				}
				<-c.Done()
				if !errors.Is(c.Err(), errSilent) && cut != "to the server" {
					t.Errorf("the client gave up for %v", c.Err())
				}
				clientTook := time.Since(start)
				<-h.gone
				serverTook := time.Since(start)
				for side, took := range map[string]time.Duration{"client": clientTook, "server": serverTook} {
					if took < 2*pingInterval || took > 4*pingInterval {
						t.Errorf("the %s gave up after %v", side, took)
					}
				}
				w.network.Heal()
			})
		})
	}
}

func TestVirtual_ShortCut_IsSurvived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		h.request = echo
		w := newMemoryWorld(t, h, ServerConfig{})
		c := w.connect(ClientConfig{})
		w.network.CutBoth("client", "n1")
		time.AfterFunc(8*time.Second, w.network.Heal)
		if _, _, err := c.Call(t.Context(), wire.OpSettle, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// TestVirtual_ClientNeverReads gathers output for a client that reads nothing,
// in three ways. Each ends with the client cut off.
func TestVirtual_ClientNeverReads_IsCutOff(t *testing.T) {
	for name, produce := range map[string]func(t *testing.T, c *ServerConn){
		"stalls": func(t *testing.T, c *ServerConn) {
			c.Push(wire.OpDeliver, make([]byte, 1<<20)) // the buffers hold less
		},
		"bytes": func(t *testing.T, c *ServerConn) {
			for range 3 * OutputBytesMax / (1 << 20) {
				c.Push(wire.OpDeliver, make([]byte, 1<<20))
				c.mu.Lock()
				if waiting := len(c.out) + c.writing; waiting > OutputBytesMax {
					t.Errorf("%d bytes wait", waiting)
				}
				c.mu.Unlock()
			}
		},
		"lazies": func(t *testing.T, c *ServerConn) {
			for range 3 * LaziesMax {
				c.PushLazy(wire.OpDeliver, 1000, func(w *pack.Writer) bool { w.Raw(make([]byte, 1000)); return true })
				c.mu.Lock()
				if len(c.lazies) > LaziesMax {
					t.Errorf("%d lazies wait", len(c.lazies))
				}
				c.mu.Unlock()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler()
				h.connect = func(c *ServerConn) { produce(t, c) }
				w := newMemoryWorld(t, h, ServerConfig{})
				r := w.greeted()
				gone := make(chan *ServerConn)
				go func() { gone <- <-h.gone }()
				for { // it lives, it only does not read
					select {
					case c := <-gone:
						if !errors.Is(c.reason, errStalled) {
							t.Errorf("cut off for %v", c.reason)
						}
						return
					case <-time.After(time.Second):
						_, _ = r.nc.Write(frame(wire.OpPing, false, 0, nil))
					}
				}
			})
		})
	}
}

// TestVirtual_LazyPushes_WaitForTheSocket: what the client does not take is not
// encoded.
func TestVirtual_LazyPushes_WaitForTheSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		encodings := 0
		const n = 1000
		h.connect = func(c *ServerConn) {
			for range n {
				c.PushLazy(wire.OpDeliver, 64<<10, func(w *pack.Writer) bool {
					encodings++ // the writer's alone
					w.Raw(make([]byte, 64<<10))
					return true
				})
			}
		}
		w := newMemoryWorld(t, h, ServerConfig{})
		r := w.greeted()
		synctest.Wait()
		if encodings > 20 {
			t.Errorf("%d of %d are encoded while nobody reads", encodings, n)
		}
		for range n {
			r.next()
		}
	})
}

// TestVirtual_SlowReader_IsNotCutOff: slow is not stalled.
func TestVirtual_SlowReader_IsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		const size = 4 << 20
		h.connect = func(c *ServerConn) { c.Push(wire.OpDeliver, make([]byte, size)) }
		w := newMemoryWorld(t, h, ServerConfig{})
		r := w.greeted()
		_ = r.nc.SetDeadline(time.Time{})
		total := 0
		buf := make([]byte, 64<<10)
		for total < size+wire.FrameHeaderBytes {
			time.Sleep(3 * time.Second)
			n, err := r.nc.Read(buf)
			if err != nil {
				t.Fatalf("after %d bytes: %v", total, err)
			}
			total += n
			r.write(frame(wire.OpPing, true, 0, nil))
		}
	})
}

func TestVirtual_HandlerThatBlocks_StallsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		release := make(chan struct{})
		h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) { <-release }
		w := newMemoryWorld(t, h, ServerConfig{})
		c := w.connect(ClientConfig{})
		for range 4 {
			if err := c.Send(wire.OpPublish, make([]byte, 1<<20), func(_ wire.Op, _ []byte, err error) {}); err != nil {
				t.Fatal(err)
			}
		}
		<-c.Done()
		if !errors.Is(c.Err(), errStalled) && !errors.Is(c.Err(), errSilent) {
			t.Error(c.Err())
		}
		close(release)
		<-h.gone
	})
}

// TestVirtual_UnsentOrLost sends while the server reads little, breaks the
// connection at some point, and compares what requests are told with what
// the server got. A request that was received must never be called unsent.
func TestVirtual_UnsentOrLost(t *testing.T) {
	for _, end := range []string{"reset", "close", "kill", "cut"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 300
				h := newHandler()
				received := make(map[uint32]bool)
				slow := make(chan struct{}, n)
				h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
					received[binary.BigEndian.Uint32(payload)] = true
					<-slow
				}
				w := newMemoryWorld(t, h, ServerConfig{})
				c := w.connect(ClientConfig{})
				lost, unsent, last := 0, 0, -1
				told := make(chan struct{})
				for i := range uint32(n) {
					payload := make([]byte, 10_000)
					binary.BigEndian.PutUint32(payload, i)
					err := c.Send(wire.OpPublish, payload, func(_ wire.Op, _ []byte, err error) {
						if int(i) != last+1 {
							t.Errorf("request %d is told after %d", i, last)
						}
						last = int(i)
						var un *UnsentError
						switch {
						case errors.Is(err, ErrConnLost):
							if lost++; unsent > 0 {
								t.Errorf("request %d may have been sent, and one before it was not", i)
							}
						case errors.As(err, &un) && errors.Is(err, ErrConnClosed):
							unsent++
							if received[i] {
								t.Errorf("request %d was received and is called unsent", i)
							}
						default:
							t.Errorf("request %d: %v", i, err)
						}
						if i == n-1 {
							close(told)
						}
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				for range 50 { // the server takes some
					slow <- struct{}{}
				}
				synctest.Wait()
				switch end {
				case "reset":
					w.network.Reset("n1")
				case "close":
					_ = c.Close()
				case "kill":
					close(slow)
					w.s.Kill()
				case "cut":
					w.network.Isolate("n1")
				}
				<-told
				<-c.Done()
				if lost == 0 || unsent == 0 && end != "kill" || lost+unsent != n {
					t.Errorf("%d lost, %d unsent", lost, unsent)
				}
				if end != "kill" {
					close(slow)
				}
				w.network.Heal()
			})
		})
	}
}

func TestVirtual_FarewellOfAServer_IsReadEvenIfOurWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		h.welcome.PublishWindow = 1 << 20
		w := newMemoryWorld(t, h, ServerConfig{})
		c := w.connect(ClientConfig{})
		// A client that has lost count of its window.
		c.mu.Lock()
		c.welcome.PublishWindow = 8 << 20
		c.mu.Unlock()
		for range 80 { // until the connection has ended
			if err := c.Send(wire.OpPublish, make([]byte, 100_000), func(wire.Op, []byte, error) {}); err != nil {
				break
			}
		}
		<-c.Done()
		if !errors.Is(c.Err(), &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeFlowControl}}) {
			t.Fatal(c.Err())
		}
	})
}

func TestVirtual_NoHello_IsClosed(t *testing.T) {
	for name, say := range map[string]string{"nothing": "", "half the magic": "ON", "half a hello": "ONCQ\x00\x00\x00\x20"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newMemoryWorld(t, newHandler(), ServerConfig{})
				r := w.raw()
				r.write([]byte(say))
				start := time.Now()
				if _, err := r.frames.Next(); err == nil {
					t.Fatal("answered")
				}
				if took := time.Since(start); took != helloTimeout {
					t.Errorf("closed after %v", took)
				}
			})
		})
	}
}

func TestVirtual_ConnectToNobodyWhoAnswers_GivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newMemoryWorld(t, newHandler(), ServerConfig{})
		nc := w.dial()
		w.network.Isolate("n1")
		_, err := Connect(t.Context(), nc, ClientConfig{})
		if err == nil || !isTimeout(err) {
			t.Fatal(err)
		}
		w.network.Heal()
		nc = w.dial()
		w.network.Isolate("n1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err = Connect(ctx, nc, ClientConfig{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		w.network.Heal()
	})
}

// TestVirtual_ServerClose_IsBounded has clients that neither read nor close.
func TestVirtual_ServerClose_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		h.connect = func(c *ServerConn) { c.Push(wire.OpDeliver, make([]byte, 1<<20)) }
		w := newMemoryWorld(t, h, ServerConfig{})
		for range 3 {
			w.greeted()
		}
		synctest.Wait() // nobody reads it now
		h.connect = nil
		w.greeted()
		w.raw()
		synctest.Wait()
		start := time.Now()
		w.end()
		if took := time.Since(start); took > farewellTimeout+lingerTimeout {
			t.Errorf("took %v", took)
		}
	})
}

func TestVirtual_IdleConnection_GivesItsBuffersBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		var server *ServerConn
		h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
			server = c
			c.Reply(corr, op, payload)
		}
		w := newMemoryWorld(t, h, ServerConfig{})
		c := w.connect(ClientConfig{})
		for range 2 {
			if _, _, err := c.Call(t.Context(), wire.OpSettle, make([]byte, 500_000)); err != nil {
				t.Fatal(err)
			}
		}
		kept := func() (n int) {
			c.mu.Lock()
			defer c.mu.Unlock()
			server.mu.Lock()
			defer server.mu.Unlock()
			return cap(c.out) + cap(c.spare) + cap(server.out) + cap(server.spare)
		}
		synctest.Wait()
		if kept() < 1_000_000 {
			t.Fatalf("%d bytes are kept while busy", kept())
		}
		time.Sleep(time.Minute)
		if kept() > 10_000 {
			t.Errorf("%d bytes are kept while idle", kept())
		}
	})
}

// A connection that is never idle keeps the buffers that it needs, and not those that it
// needed once.
func TestVirtual_BusyConnection_KeepsTheBuffersItNeeds(t *testing.T) {
	const large, little = 1_000_000, 3 * 64 << 10
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lazy %v", lazy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler()
				var server *ServerConn
				h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
					server = c
					n := 100
					if len(payload) > 0 {
						n = large
					}
					if !lazy {
						c.Reply(corr, op, make([]byte, n))
						return
					}
					if n == large {
						c.PushLazy(wire.OpTopology, n, func(w *pack.Writer) bool {
							w.Raw(make([]byte, n))
							return true
						})
					}
					c.Reply(corr, op, nil)
				}
				w := newMemoryWorld(t, h, ServerConfig{})
				c := w.connect(ClientConfig{OnPush: func(wire.Op, []byte) {}})
				asks := func(times int, payload []byte) {
					for range times {
						if _, _, err := c.Call(t.Context(), wire.OpSettle, payload); err != nil {
							t.Fatal(err)
						}
						time.Sleep(pingInterval / 10)
					}
				}
				kept := func() int {
					synctest.Wait()
					server.mu.Lock()
					defer server.mu.Unlock()
					return cap(server.out) + cap(server.spare) + cap(server.scratch.Bytes())
				}
				asks(20, []byte{1})
				if kept() < large {
					t.Errorf("%d bytes are kept, and each answer needs %d", kept(), large)
				}
				asks(20, nil)
				if kept() > little {
					t.Errorf("%d bytes are kept, and the answers are small", kept())
				}
			})
		})
	}
}

// Each connection keeps what it needs, and all of them together no more than what may wait:
// without a bound as many clients as can connect would have gigabytes kept for them.
func TestVirtual_ManyBusyConnections_KeepNoMoreThanTheirBound(t *testing.T) {
	const answer, clients, most = 500_000, 10, 2_000_000
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		var servers []*ServerConn
		h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
			if !slices.Contains(servers, c) {
				servers = append(servers, c)
			}
			c.PushLazy(wire.OpTopology, answer, func(w *pack.Writer) bool {
				w.Raw(make([]byte, answer))
				return true
			})
			c.Reply(corr, op, make([]byte, answer))
		}
		w := newMemoryWorld(t, h, ServerConfig{OutputBytes: most})
		var conns []*Conn
		for range clients {
			conns = append(conns, w.connect(ClientConfig{OnPush: func(wire.Op, []byte) {}}))
		}
		for range 3 {
			for _, c := range conns {
				if _, got, err := c.Call(t.Context(), wire.OpSettle, nil); err != nil || len(got) != answer {
					t.Fatal(len(got), err)
				}
				synctest.Wait()
			}
		}
		kept := 0
		for _, c := range servers {
			c.mu.Lock()
			kept += cap(c.out) + cap(c.spare) + cap(c.scratch.Bytes())
			c.mu.Unlock()
		}
		if kept > most || kept < most/4 {
			t.Errorf("%d bytes are kept for %d clients, the bound is %d", kept, len(servers), most)
		}
		if noted := w.s.kept.Load(); noted != int64(kept) {
			t.Errorf("%d bytes are kept, and %d noted", kept, noted)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		synctest.Wait()
		if noted := w.s.kept.Load(); noted != 0 {
			t.Errorf("nobody is there, and %d bytes are kept", noted)
		}
	})
}

func TestAbort_FromACallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		h.connect = func(c *ServerConn) { c.Push(wire.OpTopology, nil) }
		w := newMemoryWorld(t, h, ServerConfig{})
		var c *Conn
		ready := make(chan struct{})
		nc := w.dial()
		c, err := Connect(t.Context(), nc, ClientConfig{OnPush: func(wire.Op, []byte) {
			<-ready
			c.Abort(errors.New("a newer connection took over"))
		}})
		if err != nil {
			t.Fatal(err)
		}
		close(ready)
		<-c.Done()
		if !errors.Is(c.Err(), ErrConnClosed) || !strings.Contains(c.Err().Error(), "took over") {
			t.Error(c.Err())
		}
		<-h.gone
	})
}
