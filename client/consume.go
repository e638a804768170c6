package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"onceq/transport/wire"
)

// Handler handles one message. nil acks it; an error gives it back, to be
// delivered again after the queue's backoff, which grows with each failure. The
// message keeps the error's text. RetryAfter, DeadLetter and Drop wrap an error
// that asks for something else. A panic counts as an error and is logged.
//
// ctx has the values of Consume's and does not end with it: a handler under way
// finishes, see WithDrainTimeout. It is cancelled with the cause ErrLeaseLost when the
// client learns that the lease is lost: what is done from then on does not count. A
// process can be stopped between any two lines, so a handler must be safe to run
// twice for the same message.
type Handler func(ctx context.Context, d *Delivery) error

const (
	prefetchDefault   = 256
	prefetchMax       = 65_536
	concurrencyMax    = 65_536
	autoExtendDefault = time.Hour
	// drainTimeout bounds how long the end of Consume waits for the cluster, after
	// the handlers have returned.
	drainTimeout = 10 * time.Second
)

type consumeOptions struct {
	prefetch    int
	concurrency int
	autoExtend  time.Duration
	label       string
	manual      bool
	middleware  []Middleware
	drain       time.Duration // 0: no bound
}

// ConsumeOption changes how Consume works.
type ConsumeOption func(*consumeOptions)

// WithPrefetch sets how many messages are held at most, those with handlers
// included (default 256). What is held is not given to other consumers: where a
// handler takes long, a few times the concurrency will do.
func WithPrefetch(n int) ConsumeOption { return func(o *consumeOptions) { o.prefetch = n } }

// WithConcurrency sets how many handlers run at once (default 1).
func WithConcurrency(n int) ConsumeOption { return func(o *consumeOptions) { o.concurrency = n } }

// WithAutoExtend sets for how long the lease of a message is kept alive from the
// moment its handler was called (default 1 h). A handler that hangs for longer
// loses the message to another consumer. When all handlers do, the messages that
// wait for them go back to the queue, and none are taken until one returns.
func WithAutoExtend(max time.Duration) ConsumeOption {
	return func(o *consumeOptions) { o.autoExtend = max }
}

// WithConsumerLabel sets the text that listings show for this consumer.
func WithConsumerLabel(label string) ConsumeOption {
	return func(o *consumeOptions) { o.label = label }
}

// WithManualSettle leaves settling to the program: a handler that returns nil has
// not acked. Ack, Nack, Reject or AckAndPublish must be called for each message,
// maybe later and from another goroutine, and before WithAutoExtend ends. An error
// still gives the message back.
func WithManualSettle() ConsumeOption { return func(o *consumeOptions) { o.manual = true } }

// ErrDraining is the cause that a handler's context ends with when the drain takes
// longer than WithDrainTimeout.
var ErrDraining = errors.New("the consumer is draining")

// WithDrainTimeout bounds how long the end of Consume waits for handlers that run:
// after d their contexts end with the cause ErrDraining, and what they return still
// counts. Default: they are waited for without a bound.
func WithDrainTimeout(d time.Duration) ConsumeOption {
	return func(o *consumeOptions) { o.drain = d }
}

// Middleware wraps a handler in another one, for what all handlers of a program
// have in common. Package onceq/client/middleware has some.
type Middleware func(Handler) Handler

// WithMiddleware wraps the handler: the first is the outermost.
func WithMiddleware(ms ...Middleware) ConsumeOption {
	return func(o *consumeOptions) { o.middleware = append(o.middleware, ms...) }
}

// Consume hands the messages of queue to h and blocks. When ctx ends it drains:
// no handler begins any more, also when a handler has ended ctx; running handlers
// finish, what they did is settled, what no handler has seen goes back at once and
// does not count as failed; then it returns nil. Another error says why it could
// not go on (ErrNoQueue, ErrClosed), which handlers that run then are told through their
// contexts; or how many settles had no answer in the end, or how many messages
// WithManualSettle has left unsettled.
//
// A lost connection or a new leader is no end: Consume resumes, and no message
// is handed to h twice because of it.
func (c *Client) Consume(ctx context.Context, queue string, h Handler, opts ...ConsumeOption) error {
	s, err := c.newConsumer(ctx, queue, opts)
	if err != nil {
		return err
	}
	defer c.wg.Done()
	for _, m := range slices.Backward(s.o.middleware) {
		h = m(h)
	}
	if h == nil {
		return fmt.Errorf("consume %s: there is no handler, or a middleware has returned none", queue)
	}
	s.handle = h
	return s.run(ctx)
}

// newConsumer checks what was asked for. Close waits for the consumer: the
// caller says when it is done.
func (c *Client) newConsumer(ctx context.Context, queue string, opts []ConsumeOption) (*consumer, error) {
	o := consumeOptions{prefetch: prefetchDefault, concurrency: 1, autoExtend: autoExtendDefault}
	for _, f := range opts {
		f(&o)
	}
	switch {
	case !wire.ValidQueueName(queue):
		return nil, newError(wire.CodeBadName, "queue name %.300q: write 1 to %d letters, digits, dots, underscores and hyphens", queue, wire.QueueNameBytesMax)
	case o.prefetch < 1 || o.prefetch > prefetchMax:
		return nil, fmt.Errorf("prefetch %d: 1 to %d is accepted", o.prefetch, prefetchMax)
	case o.concurrency < 1 || o.concurrency > concurrencyMax:
		return nil, fmt.Errorf("concurrency %d: 1 to %d is accepted", o.concurrency, concurrencyMax)
	case o.drain < 0:
		return nil, fmt.Errorf("drain timeout %v: 0 and more is accepted", o.drain)
	case len(o.label) > labelMax:
		return nil, newError(wire.CodeBadName, "label of %d bytes, at most %d are accepted", len(o.label), labelMax)
	}
	if o.label == "" {
		o.label = c.o.label
	}
	if !c.enter() {
		return nil, ErrClosed
	}
	c.startConsuming()
	return newConsumer(c, queue, o, ctx), nil
}

// startConsuming starts the link for deliveries at first use.
func (c *Client) startConsuming() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.consuming {
		c.consuming = true
		c.wg.Add(1)
		go func() {
			defer c.wg.Done()
			c.consume.run(c.ctx, nil)
		}()
	}
}
