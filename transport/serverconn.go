package transport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// ServerConn is one client, as the server sees it. Its methods may be called
// from any goroutine and never block; after the end they do nothing.
type ServerConn struct {
	server       *Server
	id           uint64
	nc           net.Conn
	heard        *silence
	hello        wire.Hello
	window       int
	pingInterval time.Duration
	log          *slog.Logger

	wake chan struct{} // of capacity 1: there is something for the writer
	done chan struct{} // closed when the writer has ended

	mu sync.Mutex // guards what follows
	// out holds whole frames. The lazies belong between them, each at its
	// place.
	out     []byte
	lazies  []lazyPush
	writing int // bytes that the writer has taken and not written yet
	encoded int // bytes of lazies that are being written
	// accounted of these in the budget; began is when the writer began with the piece
	// that it is writing, the zero time when it writes nothing.
	accounted int64
	began     time.Time
	// receiving is what is kept of a frame of which a part has arrived.
	receiving int64
	// open has the payload size of each unanswered request.
	open         map[uint32]request
	publishBytes int
	requestBytes int
	// closing: nothing more is accepted, the rest is to be written by closeBy.
	closing bool
	closeBy time.Time
	// reason is why the connection was closed or cut off by us; nil when the
	// client went.
	reason error

	spare   []byte      // the writer's other buffer
	scratch pack.Writer // the writer's, for lazies
	// The most that was in out and in scratch since the last tick; the writer's.
	outMost, scratchMost int
	kept                 int64 // of these buffers, when the writer looked last
}

type request struct {
	size    int
	publish bool
}

// lazyPush is to be encoded after the first at bytes of out.
type lazyPush struct {
	at       int
	op       wire.Op
	sizeHint int
	encode   func(w *pack.Writer) bool
}

func newServerConn(s *Server, nc net.Conn, heard *silence, hello wire.Hello, welcome wire.Welcome) *ServerConn {
	return &ServerConn{
		server:       s,
		nc:           nc,
		heard:        heard,
		hello:        hello,
		window:       int(welcome.PublishWindow),
		pingInterval: s.cfg.PingInterval,
		log:          s.cfg.Logger.With("remote", nc.RemoteAddr().String(), "client", hello.Client),
		wake:         make(chan struct{}, 1),
		done:         make(chan struct{}),
		open:         make(map[uint32]request),
	}
}

// ID is unique among the connections of a server.
func (c *ServerConn) ID() uint64 { return c.id }

// RemoteAddr is the client's address, for logs.
func (c *ServerConn) RemoteAddr() string { return c.nc.RemoteAddr().String() }

// Hello is how the client introduced itself.
func (c *ServerConn) Hello() wire.Hello { return c.hello }

// Reply answers a request. A second answer to the same request goes nowhere.
func (c *ServerConn) Reply(corr uint32, op wire.Op, payload []byte) {
	if len(payload) > wire.PayloadBytesMax {
		c.log.Error("an answer does not fit a frame", "op", op.String(), "bytes", len(payload))
		c.Error(corr, wire.NewErrorReply(wire.CodeTooLarge, "the answer has %d bytes and does not fit a frame", len(payload)))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered(corr) {
		c.send(op, true, corr, payload)
	}
}

// Error answers a request with an error.
func (c *ServerConn) Error(corr uint32, e wire.ErrorReply) {
	var w pack.Writer
	e.Append(&w)
	c.Reply(corr, wire.OpError, w.Bytes())
}

// Push sends what nobody asked for.
func (c *ServerConn) Push(op wire.Op, payload []byte) {
	if len(payload) > wire.PayloadBytesMax {
		c.Close(wire.NewErrorReply(wire.CodeInternal, "a push of %v has %d bytes and does not fit a frame", op, len(payload)))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(op, false, 0, payload)
}

// PushLazy sends what nobody asked for and what is better not made before the
// client can take it. encode is called at most once, by the writer, when the
// socket takes bytes; it writes the payload, or returns false when there is
// nothing to send any more. Order among all that is sent is kept. sizeHint is
// about how many bytes it will write.
func (c *ServerConn) PushLazy(op wire.Op, sizeHint int, encode func(w *pack.Writer) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	if len(c.lazies) >= LaziesMax {
		c.cutLocked(fmt.Errorf("%w: %d pushes wait", errStalled, len(c.lazies)))
		return
	}
	c.lazies = append(c.lazies, lazyPush{at: len(c.out), op: op, sizeHint: sizeHint, encode: encode})
	c.signal()
}

// Close tells the client why, if it can, and closes. It returns at once;
// Disconnected tells when the connection has ended.
func (c *ServerConn) Close(e wire.ErrorReply) {
	var w pack.Writer
	e.Append(&w)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	c.reason = &wire.Error{ErrorReply: e}
	c.send(wire.OpError, true, 0, w.Bytes()) // 0: it answers no request
	if c.closing {                           // there was no room left for the reason
		return
	}
	c.closing = true
	c.closeBy = time.Now().Add(farewellTimeout)
	_ = c.nc.SetWriteDeadline(c.closeBy)
	c.signal()
}

// answered settles the account of a request, and says whether it was open.
func (c *ServerConn) answered(corr uint32) bool {
	req, ok := c.open[corr]
	if !ok {
		return false
	}
	delete(c.open, corr)
	if req.publish {
		c.publishBytes -= req.size
	} else {
		c.requestBytes -= req.size
	}
	return true
}

// send appends a frame, or cuts the client off when it has let too much gather.
// The caller holds mu.
func (c *ServerConn) send(op wire.Op, reply bool, corr uint32, payload []byte) {
	if c.closing {
		return
	}
	if waiting := len(c.out) + c.writing; waiting+len(payload)+wire.FrameHeaderBytes > OutputBytesMax {
		c.cutLocked(fmt.Errorf("%w: %d bytes wait", errStalled, waiting))
		return
	}
	c.out = wire.AppendFrame(c.out, op, reply, corr, payload)
	if c.account() && !c.server.output.easing.Load() {
		go c.server.ease(&c.server.output) // without mu
	}
	c.signal()
}

func (c *ServerConn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// cut ends the connection at once.
func (c *ServerConn) cut(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutLocked(reason)
}

func (c *ServerConn) cutLocked(reason error) {
	if !c.closing && c.reason == nil {
		c.reason = reason
	}
	c.closing = true
	c.closeBy = time.Time{}
	c.out, c.lazies = nil, nil
	c.account()
	c.receivesLocked(0)
	_ = c.nc.Close() // wakes reader and writer
	c.signal()
}

// run is the connection's reader.
func (c *ServerConn) run(h Handler, br *bufio.Reader, frames *wire.FrameReader) {
	go c.write() // ends before run does, see below
	h.Connected(c)
	err := c.read(h, frames)
	var bad *wire.FrameError
	switch {
	case errors.As(err, &bad):
		c.Close(wire.NewErrorReply(bad.Code, "%s", bad.Text))
		_, _ = io.Copy(io.Discard, br) // until the writer has said so, and a moment longer
	case err != nil:
		c.mu.Lock()
		byUs := c.closing
		c.mu.Unlock()
		if !byUs {
			c.log.Debug("client gone", "reason", endOf(err))
		}
	default:
		_, _ = io.Copy(io.Discard, br)
	}
	c.end()
	<-c.done
	if c.reason != nil {
		c.log.Info("client disconnected", "reason", c.reason)
	}
	h.Disconnected(c)
}

// end stops the writer when the client has gone by itself.
func (c *ServerConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing, c.closeBy = true, time.Time{}
	c.out, c.lazies = nil, nil
	c.account()
	c.receivesLocked(0)
	_ = c.nc.Close()
	c.signal()
}

// read hands requests over until the connection is closing (nil) or broken.
func (c *ServerConn) read(h Handler, frames *wire.FrameReader) error {
	for {
		f, err := frames.Next()
		if err != nil {
			return err
		}
		switch forHandler, err := c.admit(f); {
		case err != nil:
			return err
		case forHandler:
			h.Request(c, f.Corr, f.Op, f.Payload)
		}
		c.mu.Lock()
		closing := c.closing
		c.mu.Unlock()
		if closing {
			return nil
		}
	}
}

// admit checks a frame against the rules of the connection and takes its
// account. It says whether the frame is a request for the handler.
func (c *ServerConn) admit(f wire.Frame) (forHandler bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		return false, nil
	case f.Op == wire.OpPing:
		if !f.Reply {
			c.send(wire.OpPing, true, f.Corr, nil)
		}
		return false, nil
	case f.Reply || f.Op == wire.OpHello || f.Corr == 0:
		return false, &wire.FrameError{Code: wire.CodeMalformed, Text: fmt.Sprintf("a client may not send %v with reply %v and correlation %d", f.Op, f.Reply, f.Corr)}
	}
	if _, taken := c.open[f.Corr]; taken {
		return false, &wire.FrameError{Code: wire.CodeMalformed, Text: fmt.Sprintf("correlation %d is used by an unanswered request", f.Corr)}
	}
	req := request{size: len(f.Payload), publish: f.Op == wire.OpPublish}
	switch {
	case len(c.open) >= RequestsMax:
		return false, &wire.FrameError{Code: wire.CodeFlowControl, Text: fmt.Sprintf("more than %d requests are unanswered", RequestsMax)}
	case req.publish && c.publishBytes+req.size > c.window:
		return false, &wire.FrameError{Code: wire.CodeFlowControl, Text: fmt.Sprintf("%d bytes of publishes are unanswered, the window is %d", c.publishBytes+req.size, c.window)}
	case !req.publish && c.requestBytes+req.size > RequestBytesMax:
		return false, &wire.FrameError{Code: wire.CodeFlowControl, Text: fmt.Sprintf("%d bytes of requests are unanswered, the limit is %d", c.requestBytes+req.size, RequestBytesMax)}
	}
	c.open[f.Corr] = req
	if req.publish {
		c.publishBytes += req.size
	} else {
		c.requestBytes += req.size
	}
	return true, nil
}
