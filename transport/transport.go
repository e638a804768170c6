package transport

import (
	"context"
	"log/slog"
	"net"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Mux shares one port.
type Mux struct{}

func NewMux(l net.Listener, log *slog.Logger) *Mux { panic("stub") }
func (m *Mux) Clients() net.Listener               { panic("stub") }
func (m *Mux) Raft() net.Listener                  { panic("stub") }
func (m *Mux) Serve() error                        { panic("stub") }
func (m *Mux) Close() error                        { panic("stub") }

// Handler is what the server needs of its owner.
type Handler interface {
	Welcome() wire.Welcome
	Connected(c *ServerConn)
	Request(c *ServerConn, corr uint32, op wire.Op, payload []byte)
	Disconnected(c *ServerConn)
}

// ServerConfig configures a Server; the zero value is good.
type ServerConfig struct {
	Logger *slog.Logger
}

// Server serves client connections.
type Server struct{}

func NewServer(h Handler, cfg ServerConfig) *Server { panic("stub") }
func (s *Server) Serve(l net.Listener) error        { panic("stub") }
func (s *Server) Close() error                      { panic("stub") }

// ServerConn is one client's connection.
type ServerConn struct{}

func (c *ServerConn) ID() uint64                                    { panic("stub") }
func (c *ServerConn) RemoteAddr() string                            { panic("stub") }
func (c *ServerConn) Hello() wire.Hello                             { panic("stub") }
func (c *ServerConn) Reply(corr uint32, op wire.Op, payload []byte) { panic("stub") }
func (c *ServerConn) Error(corr uint32, e wire.ErrorReply)          { panic("stub") }
func (c *ServerConn) Push(op wire.Op, payload []byte)               { panic("stub") }
func (c *ServerConn) PushLazy(op wire.Op, sizeHint int, encode func(w *pack.Writer) bool) {
	panic("stub")
}
func (c *ServerConn) Close(e wire.ErrorReply) { panic("stub") }

// ClientConfig configures a client's connection.
type ClientConfig struct {
	Hello        wire.Hello
	OnPush       func(op wire.Op, payload []byte) // on the reader; must not block; owns payload
	OnWindow     func(free int)                   // answers freed publish window; on the reader, must not block
	PingInterval time.Duration
	Logger       *slog.Logger
}

// Conn is a client's connection.
type Conn struct{}

func Connect(ctx context.Context, nc net.Conn, cfg ClientConfig) (*Conn, error) { panic("stub") }
func (c *Conn) Welcome() wire.Welcome                                           { panic("stub") }
func (c *Conn) Call(ctx context.Context, op wire.Op, payload []byte) (wire.Op, []byte, error) {
	panic("stub")
}
func (c *Conn) Send(op wire.Op, payload []byte, done func(op wire.Op, payload []byte, err error)) error {
	panic("stub")
}
func (c *Conn) PublishWindowFree() int { panic("stub") }
func (c *Conn) Done() <-chan struct{}  { panic("stub") }
func (c *Conn) Err() error             { panic("stub") }
func (c *Conn) Close() error           { panic("stub") }
