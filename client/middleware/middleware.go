// Package middleware has what handlers of a program often have in common: a line
// in the log for each message, a bound on the time, a say in what becomes of a
// message whose handler panicked.
//
//	err := c.Consume(ctx, "orders", handle, client.WithMiddleware(
//		middleware.Log(slog.Default()),
//		middleware.Recover(nil),
//		middleware.Timeout(30*time.Second),
//	))
//
// The first is the outermost, so here the log has the errors that the others
// make.
package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"onceq/client"
)

// Log writes a line for each message that was handled: at level info, or warn
// when the handler returned an error. Attributes: message, biz_id, attempt,
// duration, error.
func Log(l *slog.Logger) client.Middleware {
	return func(next client.Handler) client.Handler {
		return func(ctx context.Context, d *client.Delivery) error {
			began := time.Now()
			err := next(ctx, d)
			level, text := slog.LevelInfo, "message handled"
			attrs := []slog.Attr{
				slog.String("message", d.ID().String()), slog.String("biz_id", d.BizID()),
				slog.Int("attempt", d.Attempt()), slog.Duration("duration", time.Since(began)),
			}
			if err != nil {
				level, text = slog.LevelWarn, "message not handled"
				attrs = append(attrs, slog.Any("error", err))
			}
			l.LogAttrs(ctx, level, text, attrs...)
			return err
		}
	}
}

// ErrTimeout is the cause that a handler's context ends with after Timeout.
var ErrTimeout = errors.New("the handler's time is over")

// Timeout ends the handler's context after d, with the cause ErrTimeout. It does
// not stop a handler that does not look at its context; WithAutoExtend does bound
// for how long such a one keeps its message.
func Timeout(d time.Duration) client.Middleware {
	return func(next client.Handler) client.Handler {
		return func(ctx context.Context, m *client.Delivery) error {
			ctx, cancel := context.WithTimeoutCause(ctx, d, ErrTimeout)
			defer cancel()
			return next(ctx, m)
		}
	}
}

// Recover turns a panic of the handler into an error. decide says which, and so
// what becomes of the message (client.DeadLetter, client.RetryAfter); nil gives it
// back with the panic's text. Without this middleware Consume recovers too, logs the
// stack, and gives the message back without telling others what the panic said.
func Recover(decide func(d *client.Delivery, panicked any, stack []byte) error) client.Middleware {
	if decide == nil {
		decide = func(_ *client.Delivery, panicked any, _ []byte) error {
			return fmt.Errorf("handler panicked: %v", panicked)
		}
	}
	return func(next client.Handler) client.Handler {
		return func(ctx context.Context, d *client.Delivery) (err error) {
			returned := false
			defer func() {
				// A goroutine that ends itself (runtime.Goexit) is no panic.
				if r := recover(); r != nil && !returned {
					err = decide(d, r, debug.Stack())
				}
			}()
			err = next(ctx, d)
			returned = true
			return err
		}
	}
}
