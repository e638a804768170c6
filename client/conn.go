package client

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const (
	// A node can stop without a word: its process frozen, its machine gone. It must
	// be given up, and the next leader found, well within the grace that the
	// cluster gives consumers after a change of leader, or they lose their leases
	// although they live.
	pingInterval    = time.Second
	silentTicksMax  = 3 // so many intervals without a byte, and the connection is given up
	requestsMax     = 4096
	readBufferBytes = 64 << 10
	keepBufferBytes = 1 << 20 // a larger write buffer is given back to the collector
)

var (
	// errLost is given to a request of which a byte may have been written when its
	// connection ended: the server may have received it.
	errLost = errors.New("connection lost: the request may have been received")
	// errUnsent is given to a request of which no byte was written: nobody has
	// seen it.
	errUnsent = errors.New("connection ended before the request was sent")
	// errWindow: the publish does not fit into what is left of the window.
	errWindow = errors.New("publish window is full")
	errBusy   = errors.New("too many unanswered requests on this connection")
	errSilent = errors.New("the server has been silent for too long")
)

// replyFunc gets the answer to a request, exactly once, on the connection's
// reader: it must not block. err is nil, errLost or errUnsent.
type replyFunc func(op wire.Op, payload []byte, err error)

type request struct {
	position uint64 // in the stream of bytes written
	publish  int    // bytes it takes from the publish window
	reply    replyFunc
}

// conn is one connection. Three goroutines belong to it: one reads, one writes,
// one listens for silence. They end together, and then every request that
// is still open is told, in the order they were made, whether a byte of it may
// have left.
type conn struct {
	nc      net.Conn
	address string
	welcome wire.Welcome
	term    uint64 // in which its node leads, when a link has it
	frames  *wire.FrameReader
	onPush  func(c *conn, op wire.Op, payload []byte)
	started time.Time

	heard   atomic.Bool
	heardAt atomic.Int64 // since started
	refused atomic.Int32 // "not leader" in a row

	mu       sync.Mutex // guards what follows; nothing blocks under it
	out      pack.Writer
	outStart uint64 // position of the first byte of out
	written  uint64 // bytes before it may have left
	requests map[uint32]request
	corr     uint32
	window   int      // publish bytes that may still be sent
	waiting  []func() // called once when window has grown
	err      error

	quiet    chan bool // cap 1: whether nothing has come in for a while, when that changes
	wake     chan struct{}
	ended    chan struct{} // closed when err is set
	finished chan struct{} // closed when all has ended and every request has its answer
	writers  sync.WaitGroup
}

// connect shakes hands on nc, which belongs to the conn from then on.
func connect(ctx context.Context, nc net.Conn, address string, hello wire.Hello, onPush func(*conn, wire.Op, []byte)) (*conn, error) {
	c := &conn{
		nc: nc, address: address, onPush: onPush, started: time.Now(),
		requests: map[uint32]request{}, quiet: make(chan bool, 1),
		wake: make(chan struct{}, 1), ended: make(chan struct{}), finished: make(chan struct{}),
	}
	c.frames = wire.NewFrameReader(bufio.NewReaderSize(hearing{c}, readBufferBytes), wire.FrameBytesMax)
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err := c.handshake(hello)
	if !stop() && err == nil {
		err = causeOf(ctx)
	}
	if err != nil {
		_ = nc.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("handshake: %w", causeOf(ctx))
		}
		return nil, err
	}
	c.window = int(c.welcome.PublishWindow)
	c.writers.Add(2)
	go c.write()
	go c.listen()
	go c.read()
	return c, nil
}

func (c *conn) handshake(hello wire.Hello) error {
	w := pack.NewWriter([]byte(wire.Magic))
	start := wire.BeginFrame(w)
	hello.Append(w)
	wire.EndFrame(w, start, wire.OpHello, false, 0)
	if _, err := c.nc.Write(w.Bytes()); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	f, err := c.frames.Next()
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if f.Op == wire.OpError {
		e, err := wire.DecodeErrorReply(f.Payload)
		if err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		return fromReply(e)
	}
	if f.Op != wire.OpHello || !f.Reply {
		return fmt.Errorf("handshake: %v in place of a welcome", f.Op)
	}
	if c.welcome, err = wire.DecodeWelcome(f.Payload); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if v := c.welcome.Version; v < wire.VersionMin || v > wire.Version {
		return newError(wire.CodeUnsupportedVersion, "the server speaks protocol version %d, this client %d to %d: upgrade the older one",
			v, wire.VersionMin, wire.Version)
	}
	return nil
}

// hearing notes that the other side is alive.
type hearing struct{ c *conn }

func (h hearing) Read(p []byte) (int, error) {
	n, err := h.c.nc.Read(p)
	if n > 0 {
		h.c.heard.Store(true)
		h.c.heardAt.Store(int64(time.Since(h.c.started)))
	}
	return n, err
}

// lastHeard is when the last byte came in.
func (c *conn) lastHeard() time.Time { return c.started.Add(time.Duration(c.heardAt.Load())) }

// send queues a request, whose payload fill writes. With an error nothing is
// sent and reply is not called. fill runs under the connection's lock.
func (c *conn) send(op wire.Op, fill func(w *pack.Writer), reply replyFunc) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sendLocked(op, fill, reply, 0)
}

// publish is send for a publish frame of at most bytes. With errWindow, room is
// called once, on the reader, when an answer may have made room.
func (c *conn) publish(bytes int, fill func(w *pack.Writer), reply replyFunc, room func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && (bytes > c.window || len(c.requests) >= requestsMax) {
		if bytes > int(c.welcome.PublishWindow) {
			return newError(wire.CodeTooLarge, "a publish of %d bytes does not fit the server's window of %d", bytes, c.welcome.PublishWindow)
		}
		c.waiting = append(c.waiting, room)
		return errWindow
	}
	return c.sendLocked(wire.OpPublish, fill, reply, bytes)
}

func (c *conn) sendLocked(op wire.Op, fill func(w *pack.Writer), reply replyFunc, publish int) error {
	if c.err != nil {
		// Only in words: why the server closed the connection says nothing of this
		// request, and must not be taken for the answer to it.
		return fmt.Errorf("%w: %v", errUnsent, c.err)
	}
	if len(c.requests) >= requestsMax {
		return errBusy
	}
	start := wire.BeginFrame(&c.out)
	if fill != nil {
		fill(&c.out)
	}
	if size := c.out.Len() - start; size > wire.FrameBytesMax || size > int(c.welcome.FrameBytesMax) {
		c.out.Truncate(start)
		return newError(wire.CodeFrameTooLarge, "a request of %d bytes, the server accepts %d", size, min(wire.FrameBytesMax, int(c.welcome.FrameBytesMax)))
	}
	c.corr++
	for _, taken := c.requests[c.corr]; taken || c.corr == 0; _, taken = c.requests[c.corr] {
		c.corr++
	}
	wire.EndFrame(&c.out, start, op, false, c.corr)
	c.window -= publish
	c.requests[c.corr] = request{c.outStart + uint64(start), publish, reply}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// answer is what came back for a call.
type answer struct {
	op      wire.Op
	payload []byte
	err     error
}

// call sends a request and waits. The error is *Error when the server said so,
// errLost or errUnsent, or ctx's: then the request may still happen.
func (c *conn) call(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) ([]byte, error) {
	ch := make(chan answer, 1)
	if err := c.send(op, fill, func(op wire.Op, payload []byte, err error) { ch <- answer{op, payload, err} }); err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			return nil, e
		}
		return nil, fmt.Errorf("%w: %w", errUnsent, err)
	}
	select {
	case a := <-ch:
		return a.result(op)
	case <-ctx.Done():
		return nil, causeOf(ctx)
	}
}

func (a answer) result(asked wire.Op) ([]byte, error) {
	switch {
	case a.err != nil:
		return nil, a.err
	case a.op == wire.OpError:
		return nil, replyError(a.payload)
	case a.op != asked:
		return nil, newError(wire.CodeInternal, "%v answered with %v", asked, a.op)
	}
	return a.payload, nil
}

// replyError decodes an error reply. One that cannot be read says nothing, so
// the outcome is unknown.
func replyError(payload []byte) *Error {
	e, err := wire.DecodeErrorReply(payload)
	if err != nil {
		return newError(wire.CodeOutcomeUnknown, "unreadable answer").because(err)
	}
	return fromReply(e)
}

func (c *conn) write() {
	defer c.writers.Done()
	var mine pack.Writer
	for {
		select {
		case <-c.wake:
		case <-c.ended:
			return
		}
		for {
			c.mu.Lock()
			if c.err != nil || c.out.Len() == 0 {
				c.mu.Unlock()
				break
			}
			mine, c.out = c.out, mine
			start := c.outStart
			c.outStart += uint64(mine.Len())
			c.written = c.outStart
			c.mu.Unlock()

			n, err := c.nc.Write(mine.Bytes())
			if err != nil {
				c.mu.Lock()
				c.written = start + uint64(n)
				c.mu.Unlock()
				c.fail(fmt.Errorf("write: %w", err))
				return
			}
			if mine.Len() > keepBufferBytes {
				mine.Take()
			}
			mine.Reset()
		}
	}
}

// listen counts its own ticks without a sign of life, not elapsed time: a
// process that was stopped for a minute has heard nothing and proves nothing.
func (c *conn) listen() {
	defer c.writers.Done()
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	silent := 0
	for {
		select {
		case <-tick.C:
		case <-c.ended:
			return
		}
		before := silent
		silent++
		if c.heard.Swap(false) {
			silent = 0
		}
		if silent >= silentTicksMax {
			c.fail(errSilent)
			return
		}
		if (silent > 0) != (before > 0) {
			select {
			case <-c.quiet: // it was not taken, and is not true any more
			default:
			}
			c.quiet <- silent > 0
		}
		// One that cannot be queued is no loss: silence is what is counted.
		_ = c.send(wire.OpPing, nil, func(wire.Op, []byte, error) {})
	}
}

func (c *conn) read() {
	for {
		f, err := c.frames.Next()
		if err != nil {
			c.fail(fmt.Errorf("read: %w", err))
			break
		}
		if !f.Reply {
			c.onPush(c, f.Op, f.Payload)
			continue
		}
		c.mu.Lock()
		r, ok := c.requests[f.Corr]
		delete(c.requests, f.Corr)
		c.window += r.publish
		waiting := c.waiting
		c.waiting = nil
		c.mu.Unlock()
		if !ok {
			// Without a correlation there is nothing to answer: the server says why
			// it closes.
			if f.Op == wire.OpError {
				c.fail(replyError(f.Payload))
			} else {
				c.fail(fmt.Errorf("read: reply %d to no request", f.Corr))
			}
			break
		}
		r.reply(f.Op, f.Payload, nil)
		for _, room := range waiting {
			room()
		}
	}
	c.writers.Wait()
	c.mu.Lock()
	open := make([]request, 0, len(c.requests))
	for _, r := range c.requests {
		open = append(open, r)
	}
	clear(c.requests)
	written := c.written
	c.mu.Unlock()
	slices.SortFunc(open, func(a, b request) int { return cmp.Compare(a.position, b.position) })
	for _, r := range open {
		if r.position >= written {
			r.reply(0, nil, errUnsent)
		} else {
			r.reply(0, nil, errLost)
		}
	}
	close(c.finished)
}

// fail ends the connection for a reason; the first one counts.
func (c *conn) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
		close(c.ended)
	}
	c.mu.Unlock()
	if first {
		_ = c.nc.Close()
	}
}

// reason is why the connection ended.
func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// close ends the connection and waits until every request has its answer. It
// must not be called on the reader.
func (c *conn) close() {
	c.fail(net.ErrClosed)
	<-c.finished
}
