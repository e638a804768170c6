package transport

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"onceq/transport/wire"
)

// read is the connection's reader. It makes every callback.
func (c *Conn) read(frames *wire.FrameReader) {
	defer close(c.done)
	for {
		f, err := frames.Next()
		if err == nil {
			err = c.receive(f)
		}
		if err != nil {
			c.fail(fmt.Errorf("%w: %w", ErrConnClosed, c.endReason(err)))
			break
		}
	}
	c.running.Wait() // now it is known what was written
	c.settle()
}

// endReason is why the connection ends when reading does so with err: when the
// writer gave the server a last moment, it is the writer's reason, unless the
// server used the moment.
func (c *Conn) endReason(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var said *wire.Error
	if c.writeErr != nil && !errors.As(err, &said) {
		return c.writeErr
	}
	return endOf(err)
}

// receive handles one frame; an error ends the connection.
func (c *Conn) receive(f wire.Frame) error {
	switch {
	case f.Op == wire.OpPing:
		if !f.Reply {
			c.mu.Lock()
			// What waits to be written says as much as an answer would, and a
			// server that only pings cannot make us gather answers.
			if c.err == nil && len(c.out) == 0 {
				c.append(wire.OpPing, true, f.Corr, nil)
			}
			c.mu.Unlock()
		}
	case f.Op == wire.OpError && f.Corr == 0:
		return replyError(f.Payload) // the server says why it closes
	case f.Reply:
		return c.answer(f)
	case c.cfg.OnPush != nil:
		c.cfg.OnPush(f.Op, f.Payload)
	}
	return nil
}

func (c *Conn) answer(f wire.Frame) error {
	c.mu.Lock()
	call, ok := c.calls[f.Corr]
	if ok {
		delete(c.calls, f.Corr)
		if call.publish {
			c.publishBytes -= call.size
		} else {
			c.requestBytes -= call.size
		}
	}
	c.mu.Unlock()
	if !ok {
		return &wire.FrameError{Code: wire.CodeMalformed, Text: fmt.Sprintf("answer %v to a request %d that was not made", f.Op, f.Corr)}
	}
	if f.Op == wire.OpError {
		call.done(f.Op, f.Payload, replyError(f.Payload))
	} else {
		call.done(f.Op, f.Payload, nil)
	}
	if call.publish && c.cfg.OnWindow != nil {
		c.cfg.OnWindow(c.PublishWindowFree())
	}
	return nil
}

// settle tells every unanswered request, in the order of sending, whether the
// server may have it.
func (c *Conn) settle() {
	c.mu.Lock()
	calls := make([]call, 0, len(c.calls))
	for _, call := range c.calls {
		calls = append(calls, call)
	}
	clear(c.calls)
	reason, written := c.err, c.written
	c.out, c.spare = nil, nil
	c.mu.Unlock()
	slices.SortFunc(calls, func(a, b call) int { return cmp.Compare(a.start, b.start) })
	for _, call := range calls {
		if call.start >= written {
			call.done(0, nil, &UnsentError{Err: reason})
		} else {
			call.done(0, nil, lostError(reason))
		}
	}
}

// write is the connection's writer.
func (c *Conn) write() {
	tick := time.NewTicker(c.cfg.PingInterval / 2)
	defer tick.Stop()
	busy := false
	for {
		select {
		case <-c.stop:
			return
		case <-c.wake:
			busy = true
		case <-tick.C:
			c.keepAlive(!busy)
			busy = false
		}
		for {
			out := c.take()
			if len(out) == 0 {
				break
			}
			if err := c.writeAll(out); err != nil {
				c.failWrite(err)
				return
			}
			c.giveBack(out)
		}
	}
}

// failWrite ends the connection after a failed write. A server that closed has
// said why before, and that may still wait to be read: the reader gets a moment
// for it.
func (c *Conn) failWrite(err error) {
	if isTimeout(err) {
		c.fail(fmt.Errorf("%w: %w", ErrConnClosed, errStalled))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeErr = err
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
}

func (c *Conn) take() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil // what is left stays unsent
	}
	out := c.out
	c.out, c.spare = c.spare[:0], nil
	return out
}

func (c *Conn) giveBack(out []byte) {
	if !worthKeeping(out) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spare = out
}

// writeAll writes b and keeps count. A server that takes nothing for
// stallTimeout is a timeout. A write that times out does not say when it last
// moved, so it is looked at more often.
func (c *Conn) writeAll(b []byte) error {
	moved := time.Now()
	for len(b) > 0 {
		if err := c.nc.SetWriteDeadline(time.Now().Add(stallLook)); err != nil {
			return err
		}
		n, err := c.nc.Write(b)
		b = b[n:]
		c.mu.Lock()
		c.written += int64(n)
		c.mu.Unlock()
		if err == nil {
			continue
		}
		now := time.Now()
		if n > 0 {
			moved = now
		}
		if !isTimeout(err) || now.Sub(moved) >= stallTimeout {
			return err
		}
	}
	return nil
}

// keepAlive asks a silent server whether it lives, and gives up one that does
// not answer. An idle connection gives its buffers back.
func (c *Conn) keepAlive(idle bool) {
	silent := c.heard.length()
	if silent >= silenceFactor*c.cfg.PingInterval {
		c.fail(fmt.Errorf("%w: %w for %v", ErrConnClosed, errSilent, silent.Round(time.Millisecond)))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	if idle && len(c.out) == 0 {
		c.out, c.spare = nil, nil
	}
	if silent >= c.cfg.PingInterval {
		c.append(wire.OpPing, false, 0, nil)
	}
}
