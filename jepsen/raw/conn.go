// Package raw speaks to one node in frames, without any of the client library's
// care: a workload that wants to send the same copy over three connections, or to
// ack from where nobody would, says exactly what goes over the wire.
package raw

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Dialer opens a connection.
type Dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// ErrLost is the answer to a request whose connection ended: it may have been
// carried out.
var ErrLost = errors.New("connection lost")

// errNoCluster: the node has just started and does not know its cluster yet, so
// nothing that names the cluster can be asked.
var errNoCluster = errors.New("the node is not in a cluster yet")

// handshakeTimeout bounds the handshake.
const handshakeTimeout = 3 * time.Second

// Conn is a connection to one node. Two goroutines belong to it: one reads, one
// pings.
type Conn struct {
	Welcome wire.Welcome

	nc     net.Conn
	frames *wire.FrameReader
	push   Push
	done   chan struct{} // closed when the reader has ended
	pinged sync.WaitGroup
	pongs  chan uint32 // pings of the server that are to be answered

	// writing is a token: who has it writes. It is no mutex, since the other side may
	// read nothing for a while: answers are read meanwhile, and virtual time goes on.
	writing chan struct{}

	mu    sync.Mutex // guards what follows; nothing blocks under it
	calls map[uint32]chan wire.Frame
	corr  uint32
	err   error
}

// Message is anything that can be sent.
type Message interface{ Append(w *pack.Writer) }

// Push gets what the server sends unasked, on the reader. The frame was sent no earlier
// than gap ago.
type Push func(op wire.Op, payload []byte, gap time.Duration)

// Dial connects and shakes hands. push may be nil.
func Dial(ctx context.Context, dial Dialer, address, client string, push Push) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	nc, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if push == nil {
		push = func(wire.Op, []byte, time.Duration) {}
	}
	c := &Conn{
		nc: nc, push: push, done: make(chan struct{}), calls: map[uint32]chan wire.Frame{}, writing: make(chan struct{}, 1), pongs: make(chan uint32, 16),
		frames: wire.NewFrameReader(bufio.NewReader(nc), wire.FrameBytesMax),
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err = c.shake(client)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	go c.read()
	c.pinged.Go(c.ping)
	return c, nil
}

func (c *Conn) shake(client string) error {
	w := pack.NewWriter(nil)
	wire.Hello{Version: wire.Version, Client: client}.Append(w)
	if _, err := c.nc.Write(wire.AppendFrame([]byte(wire.Magic), wire.OpHello, false, 1, w.Bytes())); err != nil {
		return err
	}
	c.corr = 1
	f, err := c.frames.Next()
	if err != nil {
		return err
	}
	if f.Op == wire.OpError {
		return replyError(f.Payload)
	}
	c.Welcome, err = wire.DecodeWelcome(f.Payload)
	if err == nil && c.Welcome.Cluster == "" {
		return errNoCluster
	}
	return err
}

func replyError(payload []byte) error {
	e, err := wire.DecodeErrorReply(payload)
	if err != nil {
		return err
	}
	return &wire.Error{ErrorReply: e}
}

func (c *Conn) read() {
	defer close(c.done)
	age := newAges(time.Now())
	for {
		asked := time.Now()
		f, err := c.frames.Next()
		if err != nil {
			c.fail(err)
			break
		}
		gap := age.of(asked, time.Now())
		if !f.Reply {
			if f.Op != wire.OpPing {
				c.push(f.Op, f.Payload, gap)
				continue
			}
			select {
			case c.pongs <- f.Corr:
			default: // it has enough to answer
			}
			continue
		}
		c.mu.Lock()
		answer := c.calls[f.Corr]
		delete(c.calls, f.Corr)
		c.mu.Unlock()
		if answer != nil {
			answer <- f
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, answer := range c.calls {
		close(answer)
	}
	c.calls = nil
}

const pingInterval = 2 * time.Second

// ping keeps the server from thinking that we are gone, and answers its own pings: the
// reader waits for no writer.
func (c *Conn) ping() {
	t := time.NewTicker(pingInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			_, _ = c.send(wire.OpPing, nil) // its answer is dropped
		case corr := <-c.pongs:
			c.writing <- struct{}{}
			_ = c.nc.SetWriteDeadline(time.Now().Add(handshakeTimeout))
			_, _ = c.nc.Write(wire.AppendFrame(nil, wire.OpPing, true, corr, nil)) // the reader notices
			<-c.writing
		case <-c.done:
			return
		}
	}
}

func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	_ = c.nc.Close()
}

// send writes a request. The channel gets its reply, or is closed.
func (c *Conn) send(op wire.Op, payload []byte) (<-chan wire.Frame, error) {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	corr, answer := c.expect()
	if answer == nil {
		return nil, fmt.Errorf("not sent: %w", net.ErrClosed)
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(handshakeTimeout))
	if _, err := c.nc.Write(wire.AppendFrame(nil, op, false, corr, payload)); err != nil {
		_ = c.nc.Close()
		return answer, nil // a part may have arrived: it ends as lost
	}
	return answer, nil
}

// expect makes room for an answer; nil when the connection has ended.
func (c *Conn) expect() (corr uint32, answer chan wire.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.calls == nil {
		return 0, nil
	}
	c.corr++
	answer = make(chan wire.Frame, 1)
	c.calls[c.corr] = answer
	return c.corr, answer
}

// ErrUnsent wraps what kept a request from being written: it had no effect.
var ErrUnsent = errors.New("not sent")

// Call sends a request and waits for the payload of its answer. The error is
// ErrUnsent (no effect), *wire.Error (what the server said), or ErrLost or ctx's
// (unknown).
func (c *Conn) Call(ctx context.Context, op wire.Op, m Message) ([]byte, error) {
	w := pack.NewWriter(nil)
	m.Append(w)
	answer, err := c.send(op, w.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	select {
	case f, ok := <-answer:
		switch {
		case !ok:
			return nil, ErrLost
		case f.Op == wire.OpError:
			return nil, replyError(f.Payload)
		}
		return f.Payload, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection and waits for its goroutines. It must not be called
// by push.
func (c *Conn) Close() {
	c.fail(net.ErrClosed)
	<-c.done
	c.pinged.Wait()
}

// Leader is the address of the leader that this connection was told of.
func (c *Conn) Leader() string {
	for _, n := range c.Welcome.Topology.Nodes {
		if n.Name == c.Welcome.Topology.Leader {
			return n.Address
		}
	}
	return ""
}

// ages tells how long ago frames were sent at most. What came after a silence may have
// been sent at its beginning, and so may all that was there to be read behind it: whoever
// writes may stand still with several frames in hand.
type ages struct {
	heard time.Time // when the newest frame had been read
	since time.Time // all of this row of frames was sent after it
	began time.Time // when the first of the row had been read
}

// waited is for how long a reader finds nothing, at least, when it has read all there is.
const waited = 5 * time.Millisecond

// rowMost bounds a row: nobody has more in hand, and on a busy connection there is
// always something to read.
const rowMost = time.Second

func newAges(now time.Time) *ages { return &ages{heard: now, since: now, began: now} }

// of is the age of a frame that was waited for since asked, and has been read now.
func (a *ages) of(asked, now time.Time) time.Duration {
	if now.Sub(asked) >= waited || now.Sub(a.began) > rowMost {
		a.since, a.began = a.heard, now
	}
	a.heard = now
	return now.Sub(a.since)
}
