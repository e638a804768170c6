package inbox

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"onceq/client"
)

// Store remembers which messages are done. Memory and Bolt make one; a program
// may bring its own.
type Store interface {
	// Do calls handle unless key is remembered, and remembers key when handle has
	// returned nil; it returns handle's error as it is. A key is remembered when Do
	// returns nil. While handle runs for a key, others with the same key wait; when
	// ctx ends before it is their turn Do returns its cause and handle is not called.
	Do(ctx context.Context, key string, handle func() error) (seen bool, err error)
}

type options struct {
	group  string
	table  string
	ttl    time.Duration
	logger *slog.Logger
}

// Option changes how Handler, SQL and CreateTable work.
type Option func(*options)

// WithGroup names what is done with the messages. A message is remembered for one
// group; what other groups have done with it does not count. Default "".
func WithGroup(name string) Option { return func(o *options) { o.group = name } }

// WithLogger logs to l what is no error of a message: that old ids could not be
// removed. The default discards.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// groupBytesMax keeps group, queue and biz-id together below what the indexes of
// databases take (PostgreSQL: 2,704 bytes).
const groupBytesMax = 255

func newOptions(opts []Option) options {
	o := options{table: tableDefault, logger: slog.New(slog.DiscardHandler)}
	for _, f := range opts {
		f(&o)
	}
	if len(o.group) > groupBytesMax || strings.ContainsRune(o.group, 0) || strings.ToValidUTF8(o.group, "") != o.group {
		panic(fmt.Sprintf("inbox: group name %.300q: up to %d bytes of text are accepted", o.group, groupBytesMax))
	}
	return o
}

// Handler returns a handler for Consume that calls h for each message that s does
// not remember, and acks what it does. It remembers a message when h has returned
// nil: effects of h that a crash must not double need an idempotency key, or SQL.
//
// It panics when an option is not acceptable.
func Handler(s Store, h client.Handler, opts ...Option) client.Handler {
	o := newOptions(opts)
	return func(ctx context.Context, d *client.Delivery) error {
		return o.once(ctx, s, d, func() error { return h(ctx, d) })
	}
}

func (o options) once(ctx context.Context, s Store, m message, handle func() error) error {
	if _, err := s.Do(ctx, keyOf(o.group, m).String(), handle); err != nil {
		return err
	}
	ack(m)
	return nil
}

// message is what an inbox needs of a client.Delivery.
type message interface {
	BizID() string
	ID() client.MessageID
	Ack(ctx context.Context) error
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// ack asks for the ack and does not wait for the answer: one round trip a message
// would be the handler's speed limit. Whether it counted does not matter either,
// since what comes again is recognised. Consume would ack on its own after nil, but
// not with client.WithManualSettle, where nobody else could ack a message whose
// handler is not called.
func ack(m message) { _ = m.Ack(ended) }
