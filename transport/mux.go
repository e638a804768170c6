package transport

import (
	"container/list"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"onceq/transport/wire"
)

// raftFirst is the first byte of a raft peer's connection.
const raftFirst = 'R'

// Mux shares one port between clients and raft peers. It tells them apart by
// the first byte, which stays in the connection that it hands out.
type Mux struct {
	l       net.Listener
	cfg     MuxConfig
	clients *muxListener
	raft    *muxListener
	stop    chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	// waiting holds the connections that are not handed out yet, oldest
	// first.
	waiting *list.List
}

// MuxConfig configures a Mux. The zero value takes all defaults.
type MuxConfig struct {
	// Logger gets connections that nobody serves. Default: none.
	Logger *slog.Logger
	// SilentMax bounds the connections that have not shown their first byte. The
	// oldest one makes room. Default SilentMax.
	SilentMax int
}

func (c MuxConfig) withDefaults() MuxConfig {
	c.Logger = loggerOr(c.Logger)
	if c.SilentMax <= 0 {
		c.SilentMax = SilentMax
	}
	return c
}

// NewMux returns a Mux that accepts from l, which it owns from now on.
func NewMux(l net.Listener, cfg MuxConfig) *Mux {
	return &Mux{
		l:       l,
		cfg:     cfg.withDefaults(),
		clients: newMuxListener(l.Addr()),
		raft:    newMuxListener(l.Addr()),
		stop:    make(chan struct{}),
		waiting: list.New(),
	}
}

// Clients returns the listener of client connections. Closing it closes
// clients that come later, and leaves the port open for peers.
func (m *Mux) Clients() net.Listener { return m.clients }

// Raft returns the listener of raft peers' connections, alike.
func (m *Mux) Raft() net.Listener { return m.raft }

// Serve accepts until Close, and then returns nil; else why it cannot go on.
func (m *Mux) Serve() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.running.Add(1)
	m.mu.Unlock()
	defer m.running.Done()
	return acceptLoop(m.l, m.stop, m.cfg.Logger, m.accept)
}

// Close closes the port, both listeners and the connections that have not been
// handed out, and waits for what Serve started. It may be called more than
// once.
func (m *Mux) Close() error {
	m.mu.Lock()
	var err error
	if !m.closed {
		m.closed = true
		close(m.stop)
		err = m.l.Close()
		for e := m.waiting.Front(); e != nil; e = e.Next() {
			_ = e.Value.(net.Conn).Close()
		}
	}
	m.mu.Unlock()
	_ = m.clients.Close()
	_ = m.raft.Close()
	m.running.Wait()
	return err
}

func (m *Mux) accept(nc net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		_ = nc.Close()
		return
	}
	if m.waiting.Len() >= m.cfg.SilentMax {
		// Whoever means it shows its first byte at once, so the oldest one is
		// the likeliest to mean harm. Its goroutine ends by this.
		oldest := m.waiting.Remove(m.waiting.Front()).(net.Conn)
		m.cfg.Logger.Warn("too many connections that say nothing, the oldest is closed", "remote", oldest.RemoteAddr().String(), "limit", m.cfg.SilentMax)
		_ = oldest.Close()
	}
	place := m.waiting.PushBack(nc)
	m.running.Go(func() { m.classify(nc, place) })
}

func (m *Mux) classify(nc net.Conn, place *list.Element) {
	to, first := m.recognise(nc)
	if to != nil {
		to.hand(&replayConn{Conn: nc, first: first})
	} else {
		_ = nc.Close()
	}
	m.mu.Lock()
	m.waiting.Remove(place) // no-op when it had to make room
	m.mu.Unlock()
}

// recognise reads as much as it needs. It returns nil for strangers.
func (m *Mux) recognise(nc net.Conn) (*muxListener, []byte) {
	_ = nc.SetReadDeadline(time.Now().Add(firstByteTimeout))
	first := make([]byte, 1, len(wire.Magic))
	if _, err := io.ReadFull(nc, first); err != nil {
		m.cfg.Logger.Debug("connection said nothing", "remote", nc.RemoteAddr().String(), "error", err)
		return nil, nil
	}
	switch first[0] {
	case wire.Magic[0]: // the server looks at the rest of it
		_ = nc.SetReadDeadline(time.Time{})
		return m.clients, first
	case raftFirst:
		_ = nc.SetReadDeadline(time.Time{})
		return m.raft, first
	}
	n, _ := io.ReadFull(nc, first[1:cap(first)]) // as much as there is
	what := answerStranger(nc, string(first[:1+n]))
	m.cfg.Logger.Info("connection speaks another protocol", "remote", nc.RemoteAddr().String(), "protocol", what)
	return nil, nil
}

// muxListener is one of the two listeners.
type muxListener struct {
	addr  net.Addr
	conns chan net.Conn
	stop  chan struct{}
	once  sync.Once
}

func newMuxListener(addr net.Addr) *muxListener {
	return &muxListener{addr: addr, conns: make(chan net.Conn), stop: make(chan struct{})}
}

// hand gives nc to whoever accepts, or closes it with the listener.
func (l *muxListener) hand(nc net.Conn) {
	select {
	case l.conns <- nc:
	case <-l.stop:
		_ = nc.Close()
	}
}

func (l *muxListener) Accept() (net.Conn, error) {
	// A closed listener stays closed even while connections wait.
	select {
	case <-l.stop:
		return nil, net.ErrClosed
	default:
	}
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.stop:
		return nil, net.ErrClosed
	}
}

func (l *muxListener) Close() error {
	l.once.Do(func() { close(l.stop) })
	return nil
}

func (l *muxListener) Addr() net.Addr { return l.addr }

// replayConn gives first back before what follows on the connection. Like any
// connection it is read by one goroutine at a time.
type replayConn struct {
	net.Conn
	first []byte
}

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends our direction, if the connection can.
func (c *replayConn) CloseWrite() error {
	closeWrite(c.Conn)
	return nil
}
