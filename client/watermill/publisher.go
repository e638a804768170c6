package watermill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"onceq/client"
)

// PublisherConfig changes how a Publisher works. The zero value is usable.
type PublisherConfig struct {
	// Queue makes the queue of a topic when it is published to first and does not
	// exist. nil: it has to exist.
	Queue *client.QueueSettings
	// Message may change what is sent: set an ordering key, a priority, a delay. nil
	// sends it as the package says.
	Message func(topic string, m *message.Message, out *client.Message) error
	// Timeout bounds one Publish. 0: the messages' contexts do.
	Timeout time.Duration
}

// ErrClosed is what a closed Publisher or Subscriber returns.
var ErrClosed = errors.New("onceq: the publisher or subscriber is closed")

// Publisher publishes to queues. It is safe for concurrent use, and keeps a
// client.Producer for each topic.
type Publisher struct {
	c   *client.Client
	cfg PublisherConfig

	wg        sync.WaitGroup
	mu        sync.Mutex // guards what follows
	closed    bool
	producers map[string]*topicProducer
}

// topicProducer is the producer of one topic, made at first use.
type topicProducer struct {
	mu sync.Mutex // guards what follows
	p  *client.Producer
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher makes a publisher on c, which has to outlive it.
func NewPublisher(c *client.Client, cfg PublisherConfig) *Publisher {
	return &Publisher{c: c, cfg: cfg, producers: map[string]*topicProducer{}}
}

// Publish implements message.Publisher: all of messages are stored, or none.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	t, err := p.enter(topic)
	if err != nil {
		return err
	}
	defer p.wg.Done()
	ctx, cancel := p.context(messages)
	defer cancel()
	producer, err := t.producer(ctx, p, topic)
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	out := make([]client.Message, len(messages))
	for i, m := range messages {
		out[i] = marshal(m)
		if p.cfg.Message == nil {
			continue
		}
		if err := p.cfg.Message(topic, m, &out[i]); err != nil {
			return fmt.Errorf("topic %s: message %s: %w", topic, m.UUID, err)
		}
	}
	if _, err := producer.PublishBatch(ctx, out...); err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	return nil
}

func marshal(m *message.Message) client.Message {
	out := client.Message{Body: m.Payload, BizID: m.UUID}
	for _, name := range slices.Sorted(maps.Keys(m.Metadata)) {
		out.Headers = append(out.Headers, client.Header{Name: name, Value: m.Metadata[name]})
	}
	return out
}

// enter registers a Publish that Close waits for.
func (p *Publisher) enter(topic string) (*topicProducer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	t := p.producers[topic]
	if t == nil {
		t = &topicProducer{}
		p.producers[topic] = t
	}
	p.wg.Add(1)
	return t, nil
}

// context ends when one of the messages' contexts does, or with the time-out.
func (p *Publisher) context(messages []*message.Message) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(context.Background())
	var stops []func() bool
	for _, m := range messages {
		if of := m.Context(); of.Done() != nil {
			stops = append(stops, context.AfterFunc(of, func() { end(context.Cause(of)) }))
		}
	}
	stopTimer := func() {}
	if p.cfg.Timeout > 0 {
		ctx, stopTimer = context.WithTimeout(ctx, p.cfg.Timeout)
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		stopTimer()
		end(nil)
	}
}

// producer makes the queue, if that is wanted, and the producer.
func (t *topicProducer) producer(ctx context.Context, p *Publisher, topic string) (*client.Producer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.p != nil {
		return t.p, nil
	}
	if err := ensure(ctx, p.c, topic, p.cfg.Queue); err != nil {
		return nil, err
	}
	producer, err := p.c.NewProducer(topic)
	if err == nil {
		t.p = producer
	}
	return producer, err
}

// ensure makes the queue of a topic when there is none, or says that there is none.
// One that exists stays as it is: its settings are its operator's.
func ensure(ctx context.Context, c *client.Client, topic string, settings *client.QueueSettings) error {
	if settings == nil {
		_, err := c.Admin().Queue(ctx, topic)
		return err
	}
	_, err := c.Admin().CreateQueue(ctx, topic, *settings)
	if errors.Is(err, client.ErrConflict) {
		return nil
	}
	return err
}

// Close takes no more messages and waits for those that are being published.
func (p *Publisher) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	p.wg.Wait()
	if closed {
		return nil
	}
	// Nothing is in flight: what remains is to end the sessions.
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeoutDefault)
	defer cancel()
	var errs []error
	for _, t := range p.producers {
		if t.p != nil {
			errs = append(errs, t.p.Close(ctx))
		}
	}
	return errors.Join(errs...)
}
