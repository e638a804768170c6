package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// queued is a large request that waits until those before it are answered. The
// connection sends it, so no turn is lost with whoever waited for it.
type queued struct {
	op     wire.Op
	bytes  int // at most
	fill   func(w *pack.Writer)
	answer chan answer // cap 1
}

func (q *queued) reply(op wire.Op, payload []byte, err error) { q.answer <- answer{op, payload, err} }

// callInLine is call for a large request, of at most so many bytes: it stands in line
// when there is no room for it. With 0 bytes it does not.
func (c *conn) callInLine(ctx context.Context, op wire.Op, bytes int, fill func(w *pack.Writer)) ([]byte, error) {
	q := &queued{op, bytes, fill, make(chan answer, 1)}
	if err := c.sendInLine(q); err != nil {
		return nil, notSent(err)
	}
	select {
	case a := <-q.answer:
		return a.result(op)
	case <-ctx.Done():
		if c.leave(q) {
			return nil, errUnsent
		}
		return nil, &unanswered{causeOf(ctx), ctx.Err()}
	}
}

// sendInLine is send for a request that stands in line when there is no room for its
// bytes. Then it gets its answer also when the connection ends before it was sent.
func (c *conn) sendInLine(q *queued) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && q.bytes > 0 && (len(c.line) > 0 || !c.hasRoomFor(q)) {
		c.line = append(c.line, q)
		return nil
	}
	return c.sendLocked(q.op, q.fill, q.reply, 0)
}

func (c *conn) hasRoomFor(q *queued) bool {
	// One that does not fit a frame waits for no more than a frame, and is refused then.
	return c.bytes+min(q.bytes, wire.FrameBytesMax) <= wire.RequestBytesMax-requestBytesSpare && c.counts[kindOf(q.op)] < requestsMax
}

// advance sends those in line for which there is room.
func (c *conn) advance() {
	for c.err == nil && len(c.line) > 0 && c.hasRoomFor(c.line[0]) {
		q := c.line[0]
		c.line = slices.Delete(c.line, 0, 1)
		if err := c.sendLocked(q.op, q.fill, q.reply, 0); err != nil {
			q.reply(0, nil, notSent(err))
		}
	}
}

// leave takes a request out of the line; false when it is not in it (any more).
func (c *conn) leave(q *queued) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.line, q)
	if i < 0 {
		return false
	}
	c.line = slices.Delete(c.line, i, i+1)
	c.advance() // the next may fit where this one did not
	return true
}

// notSent is the error of a call whose request was not sent.
func notSent(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return fmt.Errorf("%w: %w", errUnsent, err)
}
