package transporttest

import (
	"net"
	"time"
)

// conn is one end of a connection.
type conn struct {
	n             *Network
	local, remote Addr
	in, out       *pipe
	closed        bool // guarded by n.mu
}

func (c *conn) Read(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return c.in.get(b)
}

func (c *conn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return c.out.send(b)
}

// Close lets the other end read what was written, and then the end.
func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	delete(c.n.conns, c)
	c.out.end()
	c.in.unread = true
	c.in.segments = nil
	c.in.size = 0
	c.in.cond.Broadcast()
	c.in.read.set(time.Time{})
	c.out.write.set(time.Time{})
	return nil
}

// CloseWrite ends our direction only.
func (c *conn) CloseWrite() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.out.end()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadline(&c.in.read, &c.out.write, t)
}

func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in.read, nil, t) }

func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(nil, &c.out.write, t) }

func (c *conn) setDeadline(read, write *deadline, t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if read != nil {
		read.set(t)
	}
	if write != nil {
		write.set(t)
	}
	return nil
}
