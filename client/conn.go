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
	pingInterval   = time.Second
	listenInterval = pingInterval / 4 // how often silence is counted
	silentTicksMax = 16               // so many of those without a byte, and the connection is given up
	// waitedTicksQuiet of those without a byte while an answer is awaited, the last two
	// behind a ping, and another node may know more: a leader that stands still is
	// succeeded sooner than it is given up.
	waitedTicksQuiet = 3
	// stoodLeast without a tick, and the process has stood still.
	stoodLeast = 2 * listenInterval
	// requestsMax of each kind of request may be open; all kinds together are fewer than
	// a server takes.
	requestsMax = 4096
	// What is unanswered and no publish may have wire.RequestBytesMax, or the server closes
	// the connection. Requests larger than requestBytesSmall leave requestBytesSpare of that
	// to the others.
	requestBytesSmall = 64 << 10
	requestBytesSpare = 4 << 20
	readBufferBytes   = 64 << 10
	keepBufferBytes   = 1 << 20 // a larger write buffer is given back to the collector
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
	// errBusy: too many requests of this kind are open, or all have too many bytes.
	errBusy   = errors.New("too many unanswered requests on this connection")
	errSilent = errors.New("the server has been silent for too long")
)

// replyFunc gets the answer to a request, exactly once, on the connection's
// reader: it must not block. err is nil, errLost or errUnsent.
type replyFunc func(op wire.Op, payload []byte, err error)

type request struct {
	kind     kind
	position uint64 // in the stream of bytes written
	publish  int    // bytes it takes from the publish window
	bytes    int    // of its payload, when it is no publish
	reply    replyFunc
}

// kind is whose requests count together. There may be as many of one as there are of
// messages that the program is at, or of its goroutines; the others do not wait for that:
// pings, without which a connection is taken for dead, settles, without which leases run
// out, and publishes.
type kind uint8

const (
	anyOther kind = iota
	publishes
	joins    // ack-and-publishes
	receives // they wait at the server
	settles
	pings
	kinds
)

const _ = uint(wire.RequestsMax - int(kinds)*requestsMax) // it is not negative

func kindOf(op wire.Op) kind {
	switch op {
	case wire.OpPublish:
		return publishes
	case wire.OpAckPublish:
		return joins
	case wire.OpReceive:
		return receives
	case wire.OpSettle:
		return settles
	case wire.OpPing:
		return pings
	}
	return anyOther
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
	heardAt atomic.Int64 // since started: when the last byte was read
	ticked  atomic.Int64 // since started: the last tick of listen
	wall    atomic.Int64 // what the wall clock was ahead of that, in nanoseconds; 0: not known yet
	stood   atomic.Int32 // times that the process stood still, and what came in meanwhile may still be read
	refused atomic.Int32 // "not leader" in a row

	mu       sync.Mutex // guards what follows; nothing blocks under it
	out      pack.Writer
	outStart uint64 // position of the first byte of out
	written  uint64 // bytes before it may have left
	requests map[uint32]request
	counts   [kinds]int // of requests
	corr     uint32
	window   int       // publish bytes that may still be sent
	waiting  []*waiter // for the window, in the order in which they came
	turn     *waiter   // who may publish although others wait: its turn has come
	bytes    int       // of the requests that are no publishes
	line     []*queued // large requests that wait for bytes, in the order in which they came
	err      error
	endedOld bool      // it ended after the process had stood still, before an answer to that
	heardBy  time.Time // when the last byte was read before it ended

	quiet    chan bool // cap 1: whether an answer is awaited in vain for a while, when that changes
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
	c.tick(time.Now())
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

// send queues a request, whose payload fill writes. With an error nothing is
// sent and reply is not called. fill runs under the connection's lock.
func (c *conn) send(op wire.Op, fill func(w *pack.Writer), reply replyFunc) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sendLocked(op, fill, reply, 0)
}

// publish is send for a publish frame of at most bytes. With errWindow, w.room is
// called when there is room; others who come meanwhile stand behind w, or one that
// publishes all the time would take every byte that becomes free. Without a w the frame
// goes at once or not at all: one that carries nothing.
func (c *conn) publish(bytes int, fill func(w *pack.Writer), reply replyFunc, w *waiter) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.sendLocked(wire.OpPublish, fill, reply, bytes)
	}
	if bytes > int(c.welcome.PublishWindow) {
		return newError(wire.CodeTooLarge, "a publish of %d bytes does not fit the server's window of %d", bytes, c.welcome.PublishWindow)
	}
	if w == nil {
		if !c.hasRoom(bytes) {
			return errWindow
		}
		return c.sendLocked(wire.OpPublish, fill, reply, bytes)
	}
	mine := c.turn == w
	if mine {
		c.turn = nil
	}
	if w.bytes = bytes; !c.hasRoom(bytes) || len(c.waiting) > 0 && !mine {
		switch {
		case slices.Contains(c.waiting, w):
		case mine:
			c.waiting = slices.Insert(c.waiting, 0, w)
		default:
			c.waiting = append(c.waiting, w)
		}
		return errWindow
	}
	return c.sendLocked(wire.OpPublish, fill, reply, bytes)
}

// waiter is who publishes over a connection, and waits for its window now and then.
type waiter struct {
	room  func() // called on the reader, without a lock
	bytes int    // of what is to be sent; guarded by conn.mu
}

func (c *conn) hasRoom(bytes int) bool {
	return bytes <= c.window && c.counts[publishes] < requestsMax
}

// serve gives those who wait a turn each, while the first of them has room.
func (c *conn) serve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) > 0 && c.hasRoom(c.waiting[0].bytes) {
		w := c.waiting[0]
		c.waiting = slices.Delete(c.waiting, 0, 1)
		c.turn = w
		c.mu.Unlock()
		w.room()
		c.mu.Lock()
		c.turn = nil // it may have had nothing to send
	}
}

func (c *conn) sendLocked(op wire.Op, fill func(w *pack.Writer), reply replyFunc, publish int) error {
	if c.err != nil {
		// Only in words: why the server closed the connection says nothing of this
		// request, and must not be taken for the answer to it.
		return fmt.Errorf("%w: %v", errUnsent, c.err)
	}
	kind := kindOf(op)
	if c.counts[kind] >= requestsMax {
		return errBusy
	}
	start := wire.BeginFrame(&c.out)
	if fill != nil {
		fill(&c.out)
	}
	size, bytes := c.out.Len()-start, 0
	if op != wire.OpPublish {
		bytes = size - wire.FrameHeaderBytes
	}
	switch {
	case size > wire.FrameBytesMax || size > int(c.welcome.FrameBytesMax):
		c.out.Truncate(start)
		return newError(wire.CodeFrameTooLarge, "a request of %d bytes, the server accepts %d", size, min(wire.FrameBytesMax, int(c.welcome.FrameBytesMax)))
	case bytes > 0 && c.bytes+bytes > mostRequestBytes(bytes):
		c.out.Truncate(start)
		return errBusy
	}
	c.corr++
	for _, taken := c.requests[c.corr]; taken || c.corr == 0; _, taken = c.requests[c.corr] {
		c.corr++
	}
	wire.EndFrame(&c.out, start, op, false, c.corr)
	c.window -= publish
	c.bytes += bytes
	c.counts[kind]++
	c.requests[c.corr] = request{kind, c.outStart + uint64(start), publish, bytes, reply}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// mostRequestBytes is how many bytes of requests may be open with one of so many: small
// ones, such as what keeps leases alive, find room beside any number of large ones.
func mostRequestBytes(bytes int) int {
	if bytes > requestBytesSmall {
		return wire.RequestBytesMax - requestBytesSpare
	}
	return wire.RequestBytesMax
}

// answer is what came back for a call.
type answer struct {
	op      wire.Op
	payload []byte
	err     error
}

// call sends a request and waits. The error is *Error when the server said so,
// errLost or errUnsent, or unanswered: then the request may still happen.
func (c *conn) call(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) ([]byte, error) {
	return c.callInLine(ctx, op, 0, fill)
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
//
// A node that has nothing to say is not silent, nor is one whose disk is slow: it
// answers pings. They go out each pingInterval, and sooner while an answer is awaited
// and nothing comes in.
func (c *conn) listen() {
	defer c.writers.Done()
	tick := time.NewTicker(listenInterval)
	defer tick.Stop()
	silent, waited, quiet := 0, 0, false
	unasked := 0 // times that the process stood still, and no ping could be queued since
	for ticks := 1; ; ticks++ {
		select {
		case <-tick.C:
		case <-c.ended:
			return
		}
		if c.stoodStill(time.Now()) {
			c.stood.Add(1) // before the tick is noted, see mayBeOld
			unasked++
		}
		c.tick(time.Now())
		// What is answered now stands behind all that had come in.
		for ; unasked > 0; unasked-- {
			if c.send(wire.OpPing, nil, func(_ wire.Op, _ []byte, err error) {
				if err == nil {
					c.stood.Add(-1)
				}
			}) != nil {
				break
			}
		}
		silent++
		waited++
		if c.heard.Swap(false) {
			silent, waited = 0, 0
		}
		if silent >= silentTicksMax {
			c.fail(errSilent)
			return
		}
		// From when an answer is awaited: the silence before it means nothing.
		awaits := c.open() > 0
		if !awaits {
			waited = 0
		}
		if now := waited >= waitedTicksQuiet; now != quiet {
			quiet = now
			select {
			case <-c.quiet: // it was not taken, and is not true any more
			default:
			}
			c.quiet <- quiet
		}
		if ticks%int(pingInterval/listenInterval) == 0 || waited > 0 {
			// One that cannot be queued is no loss: silence is what is counted.
			_ = c.send(wire.OpPing, nil, func(wire.Op, []byte, error) {})
		}
	}
}

// tick notes that the process runs.
func (c *conn) tick(now time.Time) {
	c.ticked.Store(int64(now.Sub(c.started)))
	c.wall.Store(c.ahead(now))
}

func (c *conn) ahead(now time.Time) int64 { return now.UnixNano() - int64(now.Sub(c.started)) }

// stoodStill says that the process was stopped until just now: nobody has ticked; or the
// machine was, and its monotonic clock with it: the wall clock has run on alone. That one
// is set now and then as well, which costs a question.
func (c *conn) stoodStill(now time.Time) bool {
	if now.Sub(c.started)-time.Duration(c.ticked.Load()) >= stoodLeast {
		return true
	}
	wall := c.wall.Load()
	return wall != 0 && c.ahead(now)-wall >= int64(stoodLeast)
}

// mayBeOld says that the process was stopped, and that no answer has come since: what is
// read now may have come in long ago, and what was known may not be true any more. Whoever
// asks may go on before listen does, so the tick is looked at first: listen counts the
// stop before it ticks.
func (c *conn) mayBeOld(now time.Time) bool { return c.stoodStill(now) || c.stood.Load() > 0 }

// open is how many requests have no answer yet.
func (c *conn) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.requests)
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
		if ok {
			delete(c.requests, f.Corr)
			c.counts[r.kind]--
			c.window += r.publish
			c.bytes -= r.bytes
			c.advance()
		}
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
		c.serve()
	}
	c.writers.Wait()
	c.mu.Lock()
	open := make([]request, 0, len(c.requests))
	for _, r := range c.requests {
		open = append(open, r)
	}
	clear(c.requests)
	line := c.line
	c.line = nil
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
	for _, q := range line {
		q.reply(0, nil, errUnsent)
	}
	close(c.finished)
}

// fail ends the connection for a reason; the first one counts.
func (c *conn) fail(err error) {
	now := time.Now()
	old := c.mayBeOld(now) // later nobody ticks any more
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err, c.endedOld = err, old
		// Reckoned from now: the machine may have been suspended since the connection was
		// made, and the wall clock have gone on alone.
		c.heardBy = now.Add(time.Duration(c.heardAt.Load()) - now.Sub(c.started))
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

// heardUntil is the moment up to which the other side was heard for certain, of a
// connection that has ended.
func (c *conn) heardUntil() (at time.Time, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heardBy, !c.endedOld
}

// close ends the connection and waits until every request has its answer. It
// must not be called on the reader.
func (c *conn) close() {
	c.fail(net.ErrClosed)
	<-c.finished
}
