package transport

import (
	"fmt"
	"time"

	"onceq/transport/wire"
)

// write is the connection's writer. It ends when the rest has been written
// after Close, or when the connection is broken.
func (c *ServerConn) write() {
	defer close(c.done)
	defer c.keepNone()
	tick := time.NewTicker(c.pingInterval / 2)
	defer tick.Stop()
	for {
		select {
		case <-c.wake:
		case <-tick.C:
			c.slim()
			c.keepAlive()
		}
		for {
			out, lazies, closing := c.take()
			if len(out) == 0 && len(lazies) == 0 {
				if closing {
					c.part()
					return
				}
				break
			}
			if err := c.emit(out, lazies); err != nil {
				if isTimeout(err) {
					err = errStalled
				}
				c.cut(err)
				return
			}
			c.written(out)
		}
	}
}

// take gives the writer all that has gathered.
func (c *ServerConn) take() (out []byte, lazies []lazyPush, closing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Time{}
	if len(c.out) == 0 && len(c.lazies) == 0 {
		if c.out == nil { // what gathers next has a buffer
			c.out, c.spare = c.spare, nil
		}
		return nil, nil, c.closing
	}
	out, lazies, closing = c.out, c.lazies, c.closing
	c.out, c.lazies = c.spare, nil
	c.spare = nil
	c.writing = len(out)
	c.outMost = max(c.outMost, len(out))
	c.began = time.Now()
	return out, lazies, closing
}

// written takes the buffer back for what gathers next.
func (c *ServerConn) written(out []byte) {
	if !worthKeeping(out) {
		out = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = 0
	c.spare = out[:0]
	c.account()
	c.keep()
}

// emit writes out with the lazies in their places.
func (c *ServerConn) emit(out []byte, lazies []lazyPush) error {
	if len(lazies) == 0 {
		return c.writeAll(out)
	}
	w := &c.scratch
	w.Reset()
	flush := func() error {
		c.scratchMost = max(c.scratchMost, w.Len())
		c.writes(w.Len())
		err := c.writeAll(w.Bytes())
		c.writes(0)
		if !worthKeeping(w.Bytes()) {
			w.Take()
		}
		w.Reset()
		return err
	}
	done := 0
	for i := 0; i <= len(lazies); i++ {
		next := len(out)
		if i < len(lazies) {
			next = lazies[i].at
		}
		w.Raw(out[done:next])
		done = next
		if i == len(lazies) {
			break
		}
		if err := c.encode(lazies[i]); err != nil {
			return err
		}
		if w.Len() >= lazyWriteBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// writes notes how much of what was encoded is being written. Each piece has a beginning of
// its own: who has much to read and reads it is not slow, however long all of it takes.
func (c *ServerConn) writes(n int) {
	c.mu.Lock()
	c.encoded = n
	if n > 0 {
		c.began = time.Now()
	}
	over := c.account()
	c.mu.Unlock()
	if over {
		c.server.ease(&c.server.output)
	}
}

// encode appends the frame of one lazy push to the scratch, or nothing.
func (c *ServerConn) encode(l lazyPush) error {
	w := &c.scratch
	w.Grow(min(max(l.sizeHint, 0), wire.PayloadBytesMax) + wire.FrameHeaderBytes)
	start := wire.BeginFrame(w)
	if !l.encode(w) {
		w.Truncate(start)
		return nil
	}
	if size := w.Len() - start; size > wire.FrameBytesMax {
		c.log.Error("a push does not fit a frame", "op", l.op.String(), "bytes", size)
		return fmt.Errorf("push of %v has %d bytes and does not fit a frame", l.op, size)
	}
	wire.EndFrame(w, start, l.op, false, 0)
	return nil
}

// writeAll writes b. A peer that takes nothing for stallTimeout, or not all by
// closeBy, is a timeout; one that takes little is only slow. A write that times
// out does not say when it last moved, so it is looked at more often.
func (c *ServerConn) writeAll(b []byte) error {
	moved := time.Now()
	for len(b) > 0 {
		c.mu.Lock()
		closing, deadline := c.closing, c.closeBy
		if !closing {
			deadline = time.Now().Add(stallLook)
		}
		// Under the lock, so that it cannot undo the deadline of Close.
		err := c.nc.SetWriteDeadline(deadline)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		n, err := c.nc.Write(b)
		b = b[n:]
		if err == nil {
			continue
		}
		now := time.Now()
		if n > 0 {
			moved = now
		}
		late := closing && !now.Before(deadline)
		if !isTimeout(err) || now.Sub(moved) >= stallTimeout || late {
			return err
		}
	}
	return nil
}

// keepAlive asks a silent client whether it lives, and gives up one that does
// not answer.
func (c *ServerConn) keepAlive() {
	switch silent := c.heard.length(); {
	case silent >= silenceFactor*c.pingInterval:
		c.cut(fmt.Errorf("%w for %v", errSilent, silent.Round(time.Millisecond)))
	case silent >= c.pingInterval:
		c.mu.Lock()
		c.send(wire.OpPing, false, 0, nil)
		c.mu.Unlock()
	}
}

// slim gives back what the connection has not needed of its buffers since the last
// tick: all of it when it is idle.
func (c *ServerConn) slim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) == 0 && !needed(c.out, c.outMost) {
		c.out = nil
	}
	if !needed(c.spare, c.outMost) {
		c.spare = nil
	}
	if !needed(c.scratch.Bytes(), c.scratchMost) {
		c.scratch.Take()
	}
	c.outMost, c.scratchMost = 0, 0
	c.keep()
}

// keep notes what the connection keeps between writes, and gives back what is too much for
// all of them together: nobody is cut off for it, the next write is made anew. The writer
// calls it, and holds c.mu.
func (c *ServerConn) keep() {
	kept := func() int64 { return int64(cap(c.out) + cap(c.spare) + cap(c.scratch.Bytes())) }
	n := kept()
	if all := c.server.kept.Add(n - c.kept); all > c.server.output.most {
		c.kept = n
		c.spare = nil
		c.scratch.Take()
		if len(c.out) == 0 {
			c.out = nil
		}
		n = kept()
		c.server.kept.Add(n - c.kept)
	}
	c.kept = n
}

// keepNone is the writer's end.
func (c *ServerConn) keepNone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server.kept.Add(-c.kept)
	c.kept = 0
}

// part says that nothing more comes, and gives the client a moment to read what
// came before its reader stops waiting.
func (c *ServerConn) part() {
	closeWrite(c.nc)
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
}
