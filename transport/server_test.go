package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

func TestCall_IsAnswered(t *testing.T) {
	h := newHandler()
	h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
		switch {
		case c.Hello().Client != "tester" || c.ID() == 0 || c.RemoteAddr() == "":
			t.Errorf("%+v, id %d, at %q", c.Hello(), c.ID(), c.RemoteAddr())
		case op == wire.OpQueueShow:
			c.Error(corr, wire.NewErrorReply(wire.CodeNoQueue, "no queue %q", "x"))
			c.Reply(corr, op, []byte("a second answer goes nowhere"))
			return
		}
		c.Reply(corr, op, append(payload, '!'))
	}
	w := newWorld(t, h, ServerConfig{})
	c := w.connect(ClientConfig{Hello: wire.Hello{Client: "tester", Cluster: "c1"}})
	if got := c.Welcome(); got.Node != "n1" || got.Version != wire.Version || got.PublishWindow != PublishWindow || got.FrameBytesMax != wire.FrameBytesMax {
		t.Errorf("%+v", got)
	}
	for range 3 {
		op, payload, err := c.Call(t.Context(), wire.OpSettle, []byte("hello"))
		if op != wire.OpSettle || string(payload) != "hello!" || err != nil {
			t.Fatalf("%v %q %v", op, payload, err)
		}
		_, _, err = c.Call(t.Context(), wire.OpQueueShow, nil)
		if !errors.Is(err, &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeNoQueue}}) || errors.Is(err, ErrConnClosed) {
			t.Fatal(err)
		}
	}
	if err := c.Err(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if !errors.Is(c.Err(), ErrConnClosed) {
		t.Error(c.Err())
	}
	var unsent *UnsentError
	if _, _, err := c.Call(t.Context(), wire.OpSettle, nil); !errors.As(err, &unsent) || !errors.Is(err, ErrConnClosed) {
		t.Error(err)
	}
	within(t, h.gone)
}

func TestSend_ThousandPipelined_AnsweredInAnyOrder(t *testing.T) {
	const n = 1000
	type request struct {
		corr    uint32
		payload []byte
	}
	h := newHandler()
	var gathered []request
	h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
		gathered = append(gathered, request{corr, payload})
		if len(gathered) < n {
			return
		}
		rand.Shuffle(n, func(i, j int) { gathered[i], gathered[j] = gathered[j], gathered[i] })
		var parts sync.WaitGroup
		for part := range 4 {
			parts.Go(func() {
				for i := part; i < n; i += 4 {
					c.Reply(gathered[i].corr, op, gathered[i].payload)
				}
			})
		}
		parts.Wait()
	}
	w := newWorld(t, h, ServerConfig{})
	c := w.connect(ClientConfig{})
	answered := make([]int, n)
	all := make(chan struct{})
	left := n
	for i := range n {
		payload := binary.BigEndian.AppendUint32(nil, uint32(i))
		err := c.Send(wire.OpPublish, payload, func(op wire.Op, got []byte, err error) {
			if err != nil || op != wire.OpPublish || !bytes.Equal(got, payload) {
				t.Errorf("request %d: %v % x %v", i, op, got, err)
			}
			answered[i]++ // only the reader calls
			if left--; left == 0 {
				close(all)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	within(t, all)
	if free := c.PublishWindowFree(); free != PublishWindow {
		t.Errorf("%d bytes of the window are free after all was answered", free)
	}
	_ = c.Close()
	for i, times := range answered {
		if times != 1 {
			t.Errorf("request %d was answered %d times", i, times)
		}
	}
}

// promising makes a frame promise so many bytes after its length.
func promising(length uint32, frame []byte) []byte {
	binary.BigEndian.PutUint32(frame, length)
	binary.BigEndian.PutUint16(frame[10:], uint16(crc32.Checksum(frame[:4], crc32.MakeTable(crc32.Castagnoli))))
	return frame
}

func TestHandshake_Refusals(t *testing.T) {
	w := newWorld(t, newHandler(), ServerConfig{})
	hello := func(payload []byte) []byte {
		return append([]byte(wire.Magic), frame(wire.OpHello, false, 1, payload)...)
	}
	good := encoded(wire.Hello{Version: 1})
	flipped := hello(good)
	flipped[len(flipped)-1] ^= 1
	oversize := append([]byte(wire.Magic), promising(0x7f000000, hello(good)[len(wire.Magic):])...)
	for name, c := range map[string]struct {
		bytes []byte
		code  wire.Code
	}{
		"newer version":   {hello(encoded(wire.Hello{Version: 9})), wire.CodeUnsupportedVersion},
		"version 0":       {hello(encoded(wire.Hello{})), wire.CodeUnsupportedVersion},
		"future layout":   {hello([]byte{0x94, 9, 1, 2, 3}), wire.CodeUnsupportedVersion},
		"wrong cluster":   {hello(encoded(wire.Hello{Version: 1, Cluster: "c2"})), wire.CodeWrongCluster},
		"malformed hello": {hello([]byte{0xc0}), wire.CodeMalformed},
		"bomb":            {hello([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}), wire.CodeMalformed},
		"no payload":      {hello(nil), wire.CodeMalformed},
		"another op":      {append([]byte(wire.Magic), frame(wire.OpPublish, false, 1, good)...), wire.CodeMalformed},
		"a reply":         {append([]byte(wire.Magic), frame(wire.OpHello, true, 1, good)...), wire.CodeMalformed},
		"bad checksum":    {flipped, wire.CodeMalformed},
		"large hello":     {hello(make([]byte, wire.HelloBytesMax)), wire.CodeFrameTooLarge},
		"oversize frame":  {oversize, wire.CodeFrameTooLarge},
		"garbage":         {append([]byte(wire.Magic), strings.Repeat("\xff", 5000)...), wire.CodeFrameTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.raw()
			r.write(c.bytes)
			e := r.refused(c.code)
			if c.code == wire.CodeUnsupportedVersion && !strings.Contains(e.Text, "versions 1 to 1") {
				t.Errorf("%q does not say which versions", e.Text)
			}
			if c.code == wire.CodeWrongCluster && !strings.Contains(e.Text, `"c1"`) {
				t.Errorf("%q does not say which cluster", e.Text)
			}
		})
	}
	for name, hello := range map[wire.Code]wire.Hello{
		wire.CodeUnsupportedVersion: {Version: 9},
		wire.CodeWrongCluster:       {Cluster: "c2"},
	} {
		_, err := Connect(t.Context(), w.dial(), ClientConfig{Hello: hello})
		if !errors.Is(err, &wire.Error{ErrorReply: wire.ErrorReply{Code: name}}) {
			t.Errorf("client refused with %v, want %v", err, name)
		}
	}
	w.end()
	if len(w.h.connected) != 0 {
		t.Error("a refused client reached the handler")
	}
}

func TestHandshake_NodeInNoCluster_TakesAnybody(t *testing.T) {
	h := newHandler()
	h.welcome.Cluster = ""
	h.request = echo
	w := newWorld(t, h, ServerConfig{})
	c := w.connect(ClientConfig{Hello: wire.Hello{Cluster: "c9"}})
	if _, _, err := c.Call(t.Context(), wire.OpQueueList, nil); err != nil {
		t.Fatal(err)
	}
}

func TestServer_StrangersAtThePort(t *testing.T) {
	w := newWorld(t, newHandler(), ServerConfig{})
	for name, c := range map[string]struct{ say, hear string }{
		"GET":         {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
		"POST":        {"POST /v1/queues HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 400 Bad Request\r\n"},
		"OPTIONS":     {"OPTIONS * HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
		"TLS":         {"\x16\x03\x01\x02\x00\x01", ""},
		"garbage":     {"\x00\x01\x02\x03\x04\x05", ""},
		"near miss":   {"ONCX", ""},
		"half magic":  {"ON", ""},
		"half header": {"ONCQ\x00\x00", ""},
	} {
		r := w.raw()
		r.write([]byte(c.say))
		closeWrite(r.nc)
		got, _ := io.ReadAll(r.nc) // a reset is as good as an end
		if !strings.HasPrefix(string(got), c.hear) || c.hear == "" && len(got) > 0 {
			t.Errorf("%s: heard %q", name, got)
		}
		if c.hear != "" && !strings.Contains(string(got), "onceq command") {
			t.Errorf("%s: %q does not help", name, got)
		}
	}
}

func TestConnect_ServerIsNoOnceq(t *testing.T) {
	for name, answer := range map[string]string{
		"HTTP":    "HTTP/1.1 400 Bad Request\r\n\r\n",
		"nothing": "",
		"half":    "\x00\x00\x00\x20",
		"another": string(frame(wire.OpPublish, true, 1, nil)),
		"bomb":    string(frame(wire.OpHello, true, 1, []byte{0xdd, 0xff, 0xff, 0xff, 0xff})),
		"refusal": string(frame(wire.OpError, true, 1, []byte{0xc0})),
	} {
		near, far := pipeTCP(t)
		_, _ = far.Write([]byte(answer))
		closeWrite(far)
		if _, err := Connect(t.Context(), near, ClientConfig{}); err == nil {
			t.Errorf("%s: accepted", name)
		} else if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: left open", name)
		}
		_ = far.Close()
	}
}

func TestConnect_ContextEnds(t *testing.T) {
	near, far := pipeTCP(t)
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = far.Read(make([]byte, 1)) // the hello has come
		cancel()
	}()
	if _, err := Connect(ctx, near, ClientConfig{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestServer_FramesThatEndTheConnection(t *testing.T) {
	release := make(chan struct{})
	h := newHandler()
	h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
		go func() { // answered after the test of the connection
			<-release
			c.Reply(corr, op, nil)
		}()
	}
	w := newWorld(t, h, ServerConfig{})
	defer close(release)
	flipped := frame(wire.OpSettle, false, 5, []byte("payload"))
	flipped[20] ^= 4
	oversize := promising(1<<24, frame(wire.OpPublish, false, 5, nil))
	damaged := frame(wire.OpPublish, false, 5, nil)
	damaged[1] ^= 0x10 // a megabyte that never comes
	twice := append(frame(wire.OpSettle, false, 5, nil), frame(wire.OpSettle, false, 5, nil)...)
	for name, c := range map[string]struct {
		bytes []byte
		code  wire.Code
	}{
		"second hello":      {frame(wire.OpHello, false, 5, encoded(wire.Hello{Version: 1})), wire.CodeMalformed},
		"answer":            {frame(wire.OpSettle, true, 5, nil), wire.CodeMalformed},
		"correlation 0":     {frame(wire.OpSettle, false, 0, nil), wire.CodeMalformed},
		"correlation twice": {twice, wire.CodeMalformed},
		"bad checksum":      {flipped, wire.CodeMalformed},
		"oversize":          {oversize, wire.CodeFrameTooLarge},
		"damaged length":    {damaged, wire.CodeMalformed},
		"garbage":           {bytes.Repeat([]byte("garbage "), 10_000), wire.CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.greeted()
			r.write(c.bytes)
			r.refused(c.code)
			within(t, h.gone)
		})
	}
	t.Run("half a frame", func(t *testing.T) {
		r := w.greeted()
		r.write(frame(wire.OpPublish, false, 1, make([]byte, 100))[:50])
		_ = r.nc.Close()
		within(t, h.gone)
	})
}

func TestServer_AnswersPings(t *testing.T) {
	w := newWorld(t, newHandler(), ServerConfig{})
	r := w.greeted()
	r.write(frame(wire.OpPing, false, 77, nil))
	if f, err := r.frames.Next(); err != nil || f.Op != wire.OpPing || !f.Reply || f.Corr != 77 {
		t.Fatalf("%+v, %v", f, err)
	}
}

func TestServer_ConnectionsAreCapped(t *testing.T) {
	h := newHandler()
	h.request = echo
	w := newWorld(t, h, ServerConfig{ConnsMax: 2})
	first := w.connect(ClientConfig{})
	second := w.connect(ClientConfig{})
	_, err := Connect(t.Context(), w.dial(), ClientConfig{})
	if !errors.Is(err, &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeOverloaded}}) || !strings.Contains(err.Error(), "2 connections") {
		t.Fatal(err)
	}
	_ = first.Close()
	within(t, h.gone)
	// Disconnected comes just before the place is free.
	for {
		third, err := Connect(t.Context(), w.dial(), ClientConfig{})
		if err == nil {
			defer third.Close()
			break
		}
		if !errors.Is(err, &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeOverloaded}}) {
			t.Fatal(err)
		}
	}
	if _, _, err := second.Call(t.Context(), wire.OpQueueList, nil); err != nil {
		t.Fatal(err)
	}
}

func TestServerClose_TellsClientsWhy(t *testing.T) {
	h := newHandler()
	asked := make(chan struct{}, 1)
	h.request = func(*ServerConn, uint32, wire.Op, []byte) { asked <- struct{}{} } // never answers
	w := newWorld(t, h, ServerConfig{})
	c := w.connect(ClientConfig{})
	outcome := make(chan error, 1)
	if err := c.Send(wire.OpPublish, []byte("x"), func(_ wire.Op, _ []byte, err error) { outcome <- err }); err != nil {
		t.Fatal(err)
	}
	within(t, asked)
	w.end()
	err := within(t, outcome)
	var code *wire.Error
	if !errors.Is(err, ErrConnLost) || !errors.Is(err, ErrConnClosed) || errors.As(err, &code) {
		t.Errorf("the request ends with %v", err)
	}
	within(t, c.Done())
	if err := c.Err(); !errors.Is(err, &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeShuttingDown}}) || !errors.Is(err, ErrConnClosed) {
		t.Errorf("the connection ends with %v", err)
	}
	w.s.Kill() // after Close it does nothing
	if err := w.s.Close(); err != nil {
		t.Error(err)
	}
	l, err := newWorldListener()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.s.Serve(l); err != nil {
		t.Errorf("serve after close: %v", err)
	}
}

func TestServerKill_EndsEverything(t *testing.T) {
	h := newHandler()
	h.request = echo
	w := newWorld(t, h, ServerConfig{})
	c := w.connect(ClientConfig{})
	raw := w.raw() // is in its handshake
	w.s.Kill()
	within(t, c.Done())
	var code *wire.Error
	if errors.As(c.Err(), &code) {
		t.Errorf("killed, but said %v", c.Err())
	}
	if _, err := raw.frames.Next(); err == nil {
		t.Error("a connection in its handshake lives on")
	}
}

func TestServerConn_CloseTellsWhy_AndAnswersFirst(t *testing.T) {
	h := newHandler()
	h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
		c.Reply(corr, op, payload)
		c.Close(wire.NewErrorReply(wire.CodeOverloaded, "enough"))
		c.Close(wire.NewErrorReply(wire.CodeInternal, "a second reason does not count"))
		c.Push(wire.OpLost, nil)
	}
	w := newWorld(t, h, ServerConfig{})
	c := w.connect(ClientConfig{OnPush: func(op wire.Op, _ []byte) { t.Errorf("pushed %v after the end", op) }})
	// More than fits the socket's buffers: it arrives all the same.
	payload := bytes.Repeat([]byte("x"), wire.PayloadBytesMax)
	if _, got, err := c.Call(t.Context(), wire.OpQueueList, payload); err != nil || len(got) != len(payload) {
		t.Fatal(len(got), err)
	}
	within(t, c.Done())
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "ONCEQ-1004: enough") {
		t.Error(err)
	}
	gone := within(t, h.gone)
	gone.Reply(1, wire.OpQueueList, nil) // after the end these do nothing
	gone.Push(wire.OpLost, nil)
	gone.PushLazy(wire.OpLost, 0, func(*pack.Writer) bool { t.Error("encoded after the end"); return false })
	gone.Close(wire.ErrorReply{})
}

func TestPush_KeepsOrder_LazyOrNot(t *testing.T) {
	h := newHandler()
	const n = 2000
	h.connect = func(c *ServerConn) {
		for i := range n {
			text := binary.BigEndian.AppendUint32(nil, uint32(i))
			switch i % 4 {
			case 0:
				c.Push(wire.OpDeliver, text)
			case 1:
				c.PushLazy(wire.OpLost, 4, func(w *pack.Writer) bool { w.Raw(text); return true })
			case 2:
				c.PushLazy(wire.OpTopology, 1<<20, func(w *pack.Writer) bool { w.Raw(text); return false })
			case 3: // large enough to be written on its own
				c.PushLazy(wire.OpLost, -1, func(w *pack.Writer) bool { w.Raw(text); w.Raw(make([]byte, 1000*(i%300))); return true })
			}
		}
	}
	w := newWorld(t, h, ServerConfig{})
	got := make(chan uint32, n)
	w.connect(ClientConfig{OnPush: func(op wire.Op, payload []byte) {
		if op == wire.OpTopology {
			t.Error("what had nothing to send was sent")
		}
		got <- binary.BigEndian.Uint32(payload)
	}})
	for i := range uint32(n) {
		if i%4 == 2 {
			continue
		}
		if g := within(t, got); g != i {
			t.Fatalf("push %d in the place of %d", g, i)
		}
	}
}

func TestAnswersThatDoNotFit(t *testing.T) {
	h := newHandler()
	h.request = func(c *ServerConn, corr uint32, op wire.Op, payload []byte) {
		switch op {
		case wire.OpQueueList:
			c.Reply(corr, op, make([]byte, wire.PayloadBytesMax+1))
		case wire.OpMembers:
			c.Push(wire.OpTopology, make([]byte, wire.PayloadBytesMax+1))
		case wire.OpDigest:
			c.PushLazy(wire.OpDeliver, 0, func(w *pack.Writer) bool { w.Raw(make([]byte, wire.PayloadBytesMax+1)); return true })
		}
	}
	w := newWorld(t, h, ServerConfig{})
	c := w.connect(ClientConfig{})
	if _, _, err := c.Call(t.Context(), wire.OpQueueList, nil); !errors.Is(err, &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeTooLarge}}) {
		t.Error(err)
	}
	if _, _, err := c.Call(t.Context(), wire.OpMembers, nil); !errors.Is(err, ErrConnLost) {
		t.Error(err)
	}
	if !errors.Is(c.Err(), &wire.Error{ErrorReply: wire.ErrorReply{Code: wire.CodeInternal}}) {
		t.Error(c.Err())
	}
	c = w.connect(ClientConfig{})
	if _, _, err := c.Call(t.Context(), wire.OpDigest, nil); !errors.Is(err, ErrConnLost) {
		t.Error(err)
	}
}
