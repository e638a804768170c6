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
		cn, changed, why := l.conn, l.changed, l.why
		l.mu.Unlock()
		if cn != nil {
			return cn, nil
		}
		select {
		case <-changed:
		case <-l.c.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, &endedError{what: "waiting for the leader", cause: causeOf(ctx), why: why}
		}
	}
}

// call asks the leader, again and again until there is an answer or ctx ends.
// The request must be one that may be repeated. It returns the answer's
// payload; ctx ending while a copy's fate is open gives ErrOutcomeUnknown.
func (l *link) call(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) ([]byte, error) {
	payload, _, err := l.try(ctx, op, fill)
	return payload, err
}

// try is call that also says whether a copy before the one that was answered may
// have arrived, or may arrive yet.
func (l *link) try(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) (payload []byte, unknown bool, err error) {
	tries := backoff{base: 10 * time.Millisecond, most: time.Second}
	var last error
	for {
		cn, err := l.ready(ctx)
		if err == nil {
			payload, err = cn.call(ctx, op, fill)
			e := (*Error)(nil)
			switch {
			case err == nil:
				cn.refused.Store(0)
				return payload, unknown, nil
			case errors.As(err, &e) && e.transient():
				if e.Code == wire.CodeNotLeader || e.Code == wire.CodeNoLeader {
					l.misdirected(cn, wire.ErrorReply{Code: e.Code, Leader: e.leader})
				}
			case errors.As(err, &e) && e.unclear():
				unknown = true
			case errors.As(err, &e):
				return nil, unknown, e
			case errors.Is(err, errLost):
				unknown = true
			case ctx.Err() != nil:
				unknown = true
			}
			last = err
			if ctx.Err() == nil && pause(ctx, tries.next()) {
				continue
			}
			err = &endedError{what: op.String(), cause: causeOf(ctx), why: asError(last)}
		}
		if unknown {
			return nil, true, newError(wire.CodeOutcomeUnknown, "%v may or may not have happened", op).because(causeOfOr(ctx, err))
		}
		return nil, false, err
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
