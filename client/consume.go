package client

import (
	"context"
	"time"
)

// Handler handles one message. nil acks it, an error gives it back with a
// backoff, see RetryAfter.
type Handler func(ctx context.Context, d *Delivery) error

type consumeOptions struct {
	prefetch    int
	concurrency int
	autoExtend  time.Duration
	label       string
	manual      bool
}

// ConsumeOption changes how Consume works.
type ConsumeOption func(*consumeOptions)

// WithPrefetch sets how many messages are held at most, handlers included (default 256).
func WithPrefetch(n int) ConsumeOption { return func(o *consumeOptions) { o.prefetch = n } }

// WithConcurrency sets how many handlers run at once (default 1).
func WithConcurrency(n int) ConsumeOption { return func(o *consumeOptions) { o.concurrency = n } }

// WithAutoExtend sets for how long a running handler's lease is kept alive (default 1 h).
func WithAutoExtend(max time.Duration) ConsumeOption {
	return func(o *consumeOptions) { o.autoExtend = max }
}

// WithConsumerLabel sets the text that listings show for this consumer.
func WithConsumerLabel(label string) ConsumeOption {
	return func(o *consumeOptions) { o.label = label }
}

// WithManualSettle leaves settling to the program: the handler's return does
// not ack; Ack or Nack must be called, also later from another goroutine.
func WithManualSettle() ConsumeOption { return func(o *consumeOptions) { o.manual = true } }

// Consume hands the messages of queue to h until ctx ends; then it drains and
// returns nil.
func (c *Client) Consume(ctx context.Context, queue string, h Handler, opts ...ConsumeOption) error {
	return ErrClosed
}

// RetryAfter makes a handler's error give the message back after delay instead
// of the default backoff.
func RetryAfter(delay time.Duration, err error) error { return err }
