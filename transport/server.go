package transport

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Handler is what a Server needs of its owner. All methods are called on the
// reader of the connection in question, so none may block: while one does,
// nothing of that client is heard.
type Handler interface {
	// Welcome is what the next client is answered. Zero limits take their
	// defaults.
	Welcome() wire.Welcome
	// Connected is called when the client has been welcomed, before its first
	// request. What has changed since Welcome was called is pushed here.
	Connected(c *ServerConn)
	// Request hands over one request. It must be answered exactly once, by
	// Reply or Error with its correlation, from any goroutine, at any time. The
	// payload belongs to the handler.
	Request(c *ServerConn, corr uint32, op wire.Op, payload []byte)
	// Disconnected is called exactly once for each Connected, after the last
	// Request. What is still answered or pushed goes nowhere.
	Disconnected(c *ServerConn)
}

// ServerConfig configures a Server. The zero value takes all defaults.
type ServerConfig struct {
	// Logger gets connections that are refused or cut off, with the reason.
	// Default: none.
	Logger *slog.Logger
	// ConnsMax bounds the connections of clients. One costs about 40 KiB while
	// idle. Default ConnsMax.
	ConnsMax int
	// PingInterval is after how much silence a client is asked whether it
	// lives; after twice that it is given up. Default 5 s.
	PingInterval time.Duration
	// OutputBytes bounds the bytes that wait to be written to all clients together:
	// above it the slowest are cut off. As much again is kept for what comes next. Default
	// OutputBytesAll.
	OutputBytes int
	// InputBytes bounds what is kept of half-received frames of all clients together:
	// above it those are cut off that are the furthest behind. Default InputBytesAll.
	InputBytes int
}

func (c ServerConfig) withDefaults() ServerConfig {
	c.Logger = loggerOr(c.Logger)
	if c.ConnsMax <= 0 {
		c.ConnsMax = ConnsMax
	}
	if c.PingInterval <= 0 {
		c.PingInterval = pingInterval
	}
	if c.OutputBytes <= 0 {
		c.OutputBytes = OutputBytesAll
	}
	if c.InputBytes <= 0 {
		c.InputBytes = InputBytesAll
	}
	return c
}

// Server serves clients.
type Server struct {
	handler Handler
	cfg     ServerConfig
	stop    chan struct{}
	running sync.WaitGroup // Serve, and a reader for each connection
	input   budget
	output  budget

	// kept is what all connections keep between writes.
	kept atomic.Int64

	mu        sync.Mutex // guards what follows
	closed    bool
	listeners map[net.Listener]struct{}
	// conns has every connection that counts against ConnsMax, nil while its
	// handshake goes on.
	conns    map[net.Conn]*ServerConn
	refusals int
	nextID   uint64
}

// NewServer returns a server that asks h.
func NewServer(h Handler, cfg ServerConfig) *Server {
	cfg = cfg.withDefaults()
	return &Server{
		handler:   h,
		cfg:       cfg,
		input:     newInputBudget(cfg.InputBytes),
		output:    newOutputBudget(cfg.OutputBytes),
		stop:      make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[net.Conn]*ServerConn),
	}
}

// Serve accepts clients from l until Close, and then returns nil; else why it
// cannot go on. It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	return acceptLoop(l, s.stop, s.cfg.Logger, s.accept)
}

// Close tells every client that this node is shutting down, closes all
// connections and waits until the handler has heard of each end. It takes no
// longer than farewellTimeout and lingerTimeout. It may be called more than
// once, but not from a Handler method.
func (s *Server) Close() error {
	s.end(func(c *ServerConn) {
		c.Close(wire.NewErrorReply(wire.CodeShuttingDown, "this node is shutting down"))
	})
	return nil
}

// Kill is Close without a word to anybody, as if the process had ended.
func (s *Server) Kill() {
	s.end(func(c *ServerConn) { c.cut(errKilled) })
}

var errKilled = fmt.Errorf("%w by this side", ErrConnClosed)

func (s *Server) end(each func(c *ServerConn)) {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	for l := range s.listeners {
		_ = l.Close()
	}
	open := make([]*ServerConn, 0, len(s.conns))
	for nc, c := range s.conns {
		if c == nil {
			_ = nc.Close() // in its handshake
		} else {
			open = append(open, c)
		}
	}
	s.mu.Unlock()
	for _, c := range open {
		each(c)
	}
	s.running.Wait()
}

// accept starts the reader of nc, or refuses it.
func (s *Server) accept(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		_ = nc.Close()
	case len(s.conns) < s.cfg.ConnsMax:
		s.conns[nc] = nil
		s.running.Go(func() { s.serve(nc) })
	case s.refusals < refusalsMax:
		s.refusals++
		s.running.Go(func() { s.refuseFull(nc) })
	default:
		_ = nc.Close()
	}
}

// refuseFull tells nc that there are too many connections.
func (s *Server) refuseFull(nc net.Conn) {
	reply := wire.NewErrorReply(wire.CodeOverloaded, "this node serves %d connections already, which is its limit", s.cfg.ConnsMax)
	s.cfg.Logger.Warn("connection refused, there are too many", "remote", nc.RemoteAddr().String(), "limit", s.cfg.ConnsMax)
	s.refuse(nc, nc, 0, reply)
	s.mu.Lock()
	s.refusals--
	s.mu.Unlock()
}

// refuse answers the handshake with an error and closes nc.
func (s *Server) refuse(nc net.Conn, r io.Reader, corr uint32, e wire.ErrorReply) {
	var w pack.Writer
	appendMessage(&w, wire.OpError, true, corr, e)
	_ = nc.SetWriteDeadline(time.Now().Add(farewellTimeout))
	if _, err := nc.Write(w.Bytes()); err == nil {
		linger(nc, r)
	}
	_ = nc.Close()
}

// serve is the reader of one connection, from handshake to end.
func (s *Server) serve(nc net.Conn) {
	defer s.forget(nc)
	heard := newSilence(nc)
	br := bufio.NewReaderSize(heard, readBufferBytes)
	frames := wire.NewFrameReader(br, wire.HelloBytesMax)
	hello, welcome, ok := s.handshake(nc, br, frames)
	if !ok {
		return
	}
	frames.SetBytesMax(int(welcome.FrameBytesMax))
	c := newServerConn(s, nc, heard, hello, welcome)
	frames.SetHeld(c.receives)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = nc.Close()
		return
	}
	s.nextID++
	c.id = s.nextID
	s.conns[nc] = c
	s.mu.Unlock()
	c.run(s.handler, br, frames)
}

func (s *Server) forget(nc net.Conn) {
	s.mu.Lock()
	delete(s.conns, nc)
	s.mu.Unlock()
	_ = nc.Close()
}

// handshake reads the magic and the Hello and answers them. When it is not ok
// nc has been answered as far as possible and is closed.
func (s *Server) handshake(nc net.Conn, br *bufio.Reader, frames *wire.FrameReader) (hello wire.Hello, welcome wire.Welcome, ok bool) {
	log := s.cfg.Logger.With("remote", nc.RemoteAddr().String())
	_ = nc.SetDeadline(time.Now().Add(helloTimeout))
	var magic [len(wire.Magic)]byte
	if n, err := io.ReadFull(br, magic[:]); err != nil {
		log.Debug("connection ended before it said what it is", "bytes", n, "error", err)
		_ = nc.Close()
		return hello, welcome, false
	}
	if string(magic[:]) != wire.Magic {
		what := answerStranger(nc, string(magic[:]))
		log.Info("connection speaks another protocol", "protocol", what)
		_ = nc.Close()
		return hello, welcome, false
	}
	f, err := frames.Next()
	if err != nil {
		log.Info("no hello from a client", "error", err)
		if fe, isFrame := err.(*wire.FrameError); isFrame {
			s.refuse(nc, br, 0, wire.NewErrorReply(fe.Code, "hello: %s", fe.Text))
		} else {
			_ = nc.Close()
		}
		return hello, welcome, false
	}
	welcome = welcomeDefaults(s.handler.Welcome())
	hello, bad := judgeHello(f, welcome)
	if bad != nil {
		log.Info("client refused", "client", hello.Client, "error", bad)
		s.refuse(nc, br, f.Corr, bad.ErrorReply)
		return hello, welcome, false
	}
	var w pack.Writer
	appendMessage(&w, wire.OpHello, true, f.Corr, welcome)
	if _, err := nc.Write(w.Bytes()); err != nil {
		log.Debug("client did not take its welcome", "error", err)
		_ = nc.Close()
		return hello, welcome, false
	}
	_ = nc.SetDeadline(time.Time{})
	return hello, welcome, true
}

func welcomeDefaults(w wire.Welcome) wire.Welcome {
	if w.Version == 0 {
		w.Version = wire.Version
	}
	if w.PublishWindow == 0 {
		w.PublishWindow = PublishWindow
	}
	if w.FrameBytesMax == 0 || w.FrameBytesMax > wire.FrameBytesMax {
		w.FrameBytesMax = wire.FrameBytesMax
	}
	return w
}

// judgeHello says whether the client of this first frame may stay.
func judgeHello(f wire.Frame, welcome wire.Welcome) (wire.Hello, *wire.Error) {
	refused := func(code wire.Code, format string, args ...any) *wire.Error {
		return &wire.Error{ErrorReply: wire.NewErrorReply(code, format, args...)}
	}
	if f.Op != wire.OpHello || f.Reply {
		return wire.Hello{}, refused(wire.CodeMalformed, "the first frame must be a hello, not %v", f.Op)
	}
	// The version comes first and is judged first, since the rest of the hello of
	// another version may look different.
	version, err := wire.HelloVersion(f.Payload)
	if err != nil {
		return wire.Hello{}, refused(wire.CodeMalformed, "%v", err)
	}
	if version < wire.VersionMin || version > wire.Version {
		return wire.Hello{}, refused(wire.CodeUnsupportedVersion, "this server speaks protocol versions %d to %d, the client %d", wire.VersionMin, wire.Version, version)
	}
	hello, err := wire.DecodeHello(f.Payload)
	if err != nil {
		return hello, refused(wire.CodeMalformed, "%v", err)
	}
	// A node that is in no cluster yet contradicts nobody. A client that knows what
	// this cluster was restored from is in the right place.
	if hello.Cluster != "" && welcome.Cluster != "" && !welcome.Was(hello.Cluster) {
		return hello, refused(wire.CodeWrongCluster, "the client expects cluster %q, this node belongs to %q", hello.Cluster, welcome.Cluster)
	}
	return hello, nil
}

// appendMessage appends a whole frame to w.
func appendMessage(w *pack.Writer, op wire.Op, reply bool, corr uint32, m interface{ Append(w *pack.Writer) }) {
	start := wire.BeginFrame(w)
	m.Append(w)
	wire.EndFrame(w, start, op, reply, corr)
}
