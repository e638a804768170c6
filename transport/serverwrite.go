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
	tick := time.NewTicker(c.pingInterval / 2)
	defer tick.Stop()
	busy := false
	for {
		select {
		case <-c.wake:
			busy = true
		case <-tick.C:
			if !busy {
				c.slim()
			}
			busy = false
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
	out, lazies, closing = c.out, c.lazies, c.closing
	c.out, c.lazies = c.spare[:0], nil
	c.spare = nil
	c.writing = len(out)
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
	c.spare = out
}

// emit writes out with the lazies in their places.
func (c *ServerConn) emit(out []byte, lazies []lazyPush) error {
	if len(lazies) == 0 {
		return c.writeAll(out)
	}
	w := &c.scratch
	w.Reset()
	flush := func() error {
		err := c.writeAll(w.Bytes())
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

// slim gives the buffers of an idle connection back.
func (c *ServerConn) slim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) == 0 && len(c.lazies) == 0 {
		c.out, c.spare = nil, nil
		c.scratch.Take()
	}
}

// part says that nothing more comes, and gives the client a moment to read what
// came before its reader stops waiting.
func (c *ServerConn) part() {
	closeWrite(c.nc)
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
}
