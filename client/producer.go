package client

import "context"

type producerOptions struct {
	name        string
	maxInFlight int
}

// ProducerOption changes how NewProducer makes a Producer.
type ProducerOption func(*producerOptions)

// WithName names the producer's session. Opening the same name again fences
// the older producer.
func WithName(name string) ProducerOption { return func(o *producerOptions) { o.name = name } }

// WithMaxInFlight bounds the publishes without an outcome; more wait.
func WithMaxInFlight(n int) ProducerOption { return func(o *producerOptions) { o.maxInFlight = n } }

// Producer publishes to one queue.
type Producer struct{}

// NewProducer makes a producer for queue. Nothing is sent before its first use.
func (c *Client) NewProducer(queue string, opts ...ProducerOption) (*Producer, error) {
	return &Producer{}, nil
}

// Publish stores m once and returns where.
func (p *Producer) Publish(ctx context.Context, m Message) (Receipt, error) {
	return Receipt{}, ErrClosed
}

// PublishBatch stores all of ms or none, in one atomic step.
func (p *Producer) PublishBatch(ctx context.Context, ms ...Message) ([]Receipt, error) {
	return nil, ErrClosed
}

// PublishAsync starts a publish; it blocks only while the bound in flight is reached.
func (p *Producer) PublishAsync(ctx context.Context, m Message) *Future { return &Future{} }

// Flush waits until every publish started before has an outcome.
func (p *Producer) Flush(ctx context.Context) error { return nil }

// Close flushes, bounded by ctx, and ends the producer.
func (p *Producer) Close(ctx context.Context) error { return nil }

// Stats returns counters since NewProducer.
func (p *Producer) Stats() ProducerStats { return ProducerStats{} }

// ProducerStats counts a producer's publishes.
type ProducerStats struct {
	Published     uint64 // taken from the caller
	Confirmed     uint64 // stored, by an answer
	Duplicates    uint64 // confirmed by the record of an earlier copy
	Retransmitted uint64 // copies sent beyond the first of each publish
	Refused       uint64 // definite errors
	Unknown       uint64 // ended as OutcomeUnknownError
	InFlight      int
}

// Future is the result of PublishAsync.
type Future struct{}

// Done is closed when the outcome is there.
func (f *Future) Done() <-chan struct{} { return nil }

// Wait waits for the outcome, or for ctx to end.
func (f *Future) Wait(ctx context.Context) (Receipt, error) { return Receipt{}, ErrClosed }
