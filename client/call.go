package client

import (
	"context"
	"errors"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// ready waits for a connection to the leader.
func (l *link) ready(ctx context.Context) (*conn, error) {
	for {
		l.mu.Lock()
		cn, changed := l.conn, l.changed
		l.mu.Unlock()
		if cn != nil {
			return cn, nil
		}
		select {
		case <-changed:
		case <-l.c.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			// What is known by now: the looks for a leader go on while this waits.
			return nil, &endedError{what: "waiting for the leader", cause: causeOf(ctx), why: l.reason()}
		}
	}
}

// current is the connection to the leader, nil for none.
func (l *link) current() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// call asks the leader, again and again until there is an answer or ctx ends.
// The request must be one that may be repeated. It returns the answer's
// payload; ctx ending while a copy's fate is open gives ErrOutcomeUnknown. What the
// server has answered is told by answerOf alone, since errors may wrap the cause of ctx.
func (l *link) call(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) ([]byte, error) {
	payload, _, err := l.try(ctx, op, fill)
	return payload, err
}

// try is call that also says whether a copy before the one that was answered may
// have arrived, or may arrive yet.
func (l *link) try(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) (payload []byte, unknown bool, err error) {
	return l.tryInLine(ctx, op, 0, fill)
}

// tryInLine is try for a large request, of at most so many bytes: see conn.callInLine.
func (l *link) tryInLine(ctx context.Context, op wire.Op, bytes int, fill func(w *pack.Writer)) (payload []byte, unknown bool, err error) {
	payload, unknown, err = l.repeat(ctx, op, bytes, fill)
	if unknown && err != nil && answerOf(err) == nil {
		err = newError(wire.CodeOutcomeUnknown, "%v may or may not have happened", op).because(causeOfOr(ctx, err))
	}
	return payload, unknown, err
}

// read is call for a request that changes nothing: there is no outcome that could be
// unknown, and without an answer nothing was read.
func (l *link) read(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) ([]byte, error) {
	payload, _, err := l.repeat(ctx, op, 0, fill)
	if ended, ok := err.(*endedError); ok {
		why := ended.why
		if why == nil || answered(why, wire.CodeOutcomeUnknown) {
			why = l.reason()
		}
		err = &endedError{what: op.String(), read: true, cause: ended.cause, why: why}
	}
	return payload, err
}

// repeat sends copies of a request until one is answered. An error that is no answer says
// why there is none, and unknown whether a copy without an answer may have arrived.
func (l *link) repeat(ctx context.Context, op wire.Op, bytes int, fill func(w *pack.Writer)) (payload []byte, unknown bool, err error) {
	tries := backoff{base: 10 * time.Millisecond, most: time.Second}
	var last error
	for {
		cn, err := l.ready(ctx)
		if err == nil {
			payload, err = cn.callInLine(ctx, op, bytes, fill)
			e := answerOf(err)
			switch {
			case err == nil:
				cn.refused.Store(0)
				return payload, unknown, nil
			case e != nil && e.transient():
				if e.Code == wire.CodeNotLeader || e.Code == wire.CodeNoLeader {
					l.misdirected(cn, wire.ErrorReply{Code: e.Code, Leader: e.leader})
				}
			case e != nil && e.unclear():
				unknown = true
			case e != nil:
				return nil, unknown, e
			case errors.Is(err, errLost):
				unknown = true
			case ctx.Err() != nil && !errors.Is(err, errUnsent):
				unknown = true
			}
			last = err
			if ctx.Err() == nil && pause(ctx, tries.next()) {
				continue
			}
			err = &endedError{what: op.String(), cause: causeOf(ctx), why: asError(last)}
		}
		return nil, unknown, err
	}
}

func asError(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return nil
}

func causeOfOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return causeOf(ctx)
	}
	return err
}
