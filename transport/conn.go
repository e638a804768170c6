package transport

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// ClientConfig configures a client's connection. The callbacks are called by
// the connection's reader: they must not block, nor call Close.
type ClientConfig struct {
	// Hello introduces the client. Version 0 is the newest that we speak.
	Hello wire.Hello
	// OnPush gets what the server sends without being asked. It owns the
	// payload. Default: dropped.
	OnPush func(op wire.Op, payload []byte)
	// OnWindow is called when answers have freed publish window, with what is
	// free now; after done of the publish in question. Default: none.
	OnWindow func(free int)
	// PingInterval is after how much silence the server is asked whether it
	// lives; after twice that it is given up. Default 5 s.
	PingInterval time.Duration
	// Logger. Default: none.
	Logger *slog.Logger
}

// Conn is a client's connection to one node. Its methods may be called from any
// goroutine.
type Conn struct {
	nc      net.Conn
	heard   *silence
	cfg     ClientConfig
	welcome wire.Welcome

	wake    chan struct{} // of capacity 1: there is something for the writer
	stop    chan struct{} // closed by fail: the writer ends
	done    chan struct{} // closed when the reader has ended, after all callbacks
	running sync.WaitGroup

	mu sync.Mutex // guards what follows
	// out holds whole frames.
	out   []byte
	spare []byte // the writer's other buffer
	// put counts the bytes ever put into out, and written those that the
	// socket took: a request that starts at or beyond written was not sent.
	put, written int64
	calls        map[uint32]call
	lastCorr     uint32
	publishBytes int
	requestBytes int
	err          error // why the connection has ended
	writeErr     error // why the writer has, when it was the first
}

// call is one unanswered request.
type call struct {
	done    func(op wire.Op, payload []byte, err error)
	start   int64 // see put
	size    int
	publish bool
}

// Connect shakes hands over nc, which it owns from now on, and returns a working
// connection. The error wraps a *wire.Error when the server refused. nc is
// closed on every error.
func Connect(ctx context.Context, nc net.Conn, cfg ClientConfig) (*Conn, error) {
	if cfg.Hello.Version == 0 {
		cfg.Hello.Version = wire.Version
	}
	if cfg.PingInterval <= 0 {
		cfg.PingInterval = pingInterval
	}
	cfg.Logger = loggerOr(cfg.Logger)
	heard := newSilence(nc)
	br := bufio.NewReaderSize(heard, readBufferBytes)
	frames := wire.NewFrameReader(br, wire.FrameBytesMax)
	welcome, err := greet(ctx, nc, frames, cfg.Hello)
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("connect to %s: %w", nc.RemoteAddr(), err)
	}
	c := &Conn{
		nc:      nc,
		heard:   heard,
		cfg:     cfg,
		welcome: welcome,
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		calls:   make(map[uint32]call),
	}
	c.running.Go(c.write)
	go c.read(frames) // Close waits for done
	return c, nil
}

// greet is the client's half of the handshake.
func greet(ctx context.Context, nc net.Conn, frames *wire.FrameReader, hello wire.Hello) (welcome wire.Welcome, err error) {
	if err := ctx.Err(); err != nil {
		return welcome, err
	}
	_ = nc.SetDeadline(time.Now().Add(helloTimeout))
	// When ctx ends, everything that waits here returns.
	interrupted := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = nc.SetDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !release() {
			<-interrupted
			err = ctx.Err()
		} else if err == nil {
			err = nc.SetDeadline(time.Time{})
		}
	}()
	const helloCorr = 1
	w := pack.NewWriter(append(make([]byte, 0, 256), wire.Magic...))
	appendMessage(w, wire.OpHello, false, helloCorr, hello)
	if len(w.Bytes()) > wire.HelloBytesMax {
		return welcome, fmt.Errorf("hello of %d bytes: %w", len(w.Bytes()), ErrTooLarge)
	}
	if _, err := nc.Write(w.Bytes()); err != nil {
		return welcome, err
	}
	f, err := frames.Next()
	if err != nil {
		return welcome, fmt.Errorf("no welcome, is it a node of onceq? %w", endOf(err))
	}
	switch f.Op {
	case wire.OpHello:
		if welcome, err = wire.DecodeWelcome(f.Payload); err != nil {
			return welcome, err
		}
	case wire.OpError:
		return welcome, replyError(f.Payload)
	default:
		return welcome, fmt.Errorf("welcomed with %v: %w", f.Op, pack.ErrMalformed)
	}
	if welcome.Version < wire.VersionMin || welcome.Version > hello.Version {
		return welcome, &wire.Error{ErrorReply: wire.NewErrorReply(wire.CodeUnsupportedVersion, "the server answered in protocol version %d, this client speaks %d to %d", welcome.Version, wire.VersionMin, hello.Version)}
	}
	if hello.Cluster != "" && welcome.Cluster != "" && !welcome.Was(hello.Cluster) {
		return welcome, &wire.Error{ErrorReply: wire.NewErrorReply(wire.CodeWrongCluster, "expected cluster %q, the node belongs to %q", hello.Cluster, welcome.Cluster)}
	}
	return welcome, nil
}

// replyError is an ErrorReply's payload as an error.
func replyError(payload []byte) error {
	e, err := wire.DecodeErrorReply(payload)
	if err != nil {
		return err
	}
	return &wire.Error{ErrorReply: e}
}

// Welcome is what the server said at the start.
func (c *Conn) Welcome() wire.Welcome { return c.welcome }

// Call sends a request and waits for its answer. The error is a *wire.Error
// when the server answered with one; ErrWindow, ErrTooManyRequests or
// ErrTooLarge when nothing was sent; *UnsentError or ErrConnLost when the
// connection ended. When ctx ends first, the request may still be carried out.
func (c *Conn) Call(ctx context.Context, op wire.Op, payload []byte) (wire.Op, []byte, error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	type answer struct {
		op      wire.Op
		payload []byte
		err     error
	}
	answers := make(chan answer, 1)
	err := c.Send(op, payload, func(op wire.Op, payload []byte, err error) {
		answers <- answer{op, payload, err}
	})
	if err != nil {
		return 0, nil, err
	}
	select {
	case a := <-answers:
		return a.op, a.payload, a.err
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

// Send sends a request without waiting. When it returns an error nothing was
// sent and done is not called. Otherwise done is called exactly once, with the
// answer or with an error as of Call, by the reader: it must not block. It owns
// the payload of the answer; the one of the request is free when Send returns.
func (c *Conn) Send(op wire.Op, payload []byte, done func(op wire.Op, payload []byte, err error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return &UnsentError{Err: c.err}
	}
	publish := op == wire.OpPublish
	size := len(payload)
	switch {
	case size > int(c.welcome.FrameBytesMax)-wire.FrameHeaderBytes, size > wire.PayloadBytesMax,
		publish && size > int(c.welcome.PublishWindow):
		return fmt.Errorf("%w: %v of %d bytes", ErrTooLarge, op, size)
	case len(c.calls) >= RequestsMax:
		return ErrTooManyRequests
	case publish && c.publishBytes+size > int(c.welcome.PublishWindow):
		return ErrWindow
	case !publish && c.requestBytes+size > RequestBytesMax:
		return ErrTooManyRequests
	}
	corr := c.newCorr()
	c.calls[corr] = call{done: done, start: c.put, size: size, publish: publish}
	if publish {
		c.publishBytes += size
	} else {
		c.requestBytes += size
	}
	c.append(op, false, corr, payload)
	return nil
}

// newCorr returns a correlation that no unanswered request has. 0 is for pushes.
func (c *Conn) newCorr() uint32 {
	for {
		c.lastCorr++
		if _, taken := c.calls[c.lastCorr]; !taken && c.lastCorr != 0 {
			return c.lastCorr
		}
	}
}

func (c *Conn) append(op wire.Op, reply bool, corr uint32, payload []byte) {
	before := len(c.out)
	c.out = wire.AppendFrame(c.out, op, reply, corr, payload)
	c.put += int64(len(c.out) - before)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// PublishWindowFree is how many payload bytes of publishes can be sent now.
func (c *Conn) PublishWindowFree() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.welcome.PublishWindow) - c.publishBytes
}

// Done is closed when the connection has ended and every done has been called.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection has ended, wrapping ErrConnClosed, and a
// *wire.Error when the server said why. It is nil while the connection lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close closes the connection and returns when everything of it has ended. What
// was not written yet is not sent. It may be called more than once, but not
// from a callback; those use Abort.
func (c *Conn) Close() error {
	c.fail(fmt.Errorf("%w by this side", ErrConnClosed))
	<-c.done
	return nil
}

// Abort closes the connection for a reason, without waiting.
func (c *Conn) Abort(reason error) {
	c.fail(fmt.Errorf("%w: %w", ErrConnClosed, reason))
}

// fail ends the connection. The first reason counts.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.stop)
	_ = c.nc.Close() // wakes reader and writer
}
