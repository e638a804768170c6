package watermill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"onceq/client"
)

const (
	closeTimeoutDefault = 10 * time.Second
	prefetchDefault     = 64
)

// SubscriberConfig changes how a Subscriber works. The zero value is usable.
type SubscriberConfig struct {
	// Queue makes the queue of a topic when it is subscribed to and does not exist.
	// nil: it has to exist.
	Queue *client.QueueSettings
	// NackDelay is after what time a nacked message is delivered again. 0: after the
	// queue's backoff; below 0: at once.
	NackDelay time.Duration
	// Prefetch is how many messages a subscription holds beyond the one that it has
	// handed out. They are not given to others. Default 64.
	Prefetch int
	// CloseTimeout is how long the end of a subscription waits for the Ack of a message
	// that was handed out. Default 10 s; below 0 it does not wait.
	CloseTimeout time.Duration
	// Logger is told when a subscription ends by itself. Default: discards.
	Logger *slog.Logger
}

// Subscriber hands out the messages of queues. It is safe for concurrent use.
type Subscriber struct {
	c   *client.Client
	cfg SubscriberConfig

	ctx    context.Context // ends with Close; not a caller's
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex // guards what follows
	closed bool
}

var (
	_ message.Subscriber           = (*Subscriber)(nil)
	_ message.SubscribeInitializer = (*Subscriber)(nil)
)

// NewSubscriber makes a subscriber on c, which has to outlive it.
func NewSubscriber(c *client.Client, cfg SubscriberConfig) *Subscriber {
	if cfg.Prefetch == 0 {
		cfg.Prefetch = prefetchDefault
	}
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = closeTimeoutDefault
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Subscriber{c: c, cfg: cfg}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// SubscribeInitialize makes the queue of a topic, if that is wanted.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	return ensure(s.ctx, s.c, topic, s.cfg.Queue)
}

// Subscribe implements message.Subscriber. The channel is closed when ctx ends, the
// Subscriber is closed, or the queue is deleted.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if err := ensure(ctx, s.c, topic, s.cfg.Queue); err != nil {
		s.wg.Done()
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	sub := &subscription{s: s, topic: topic, ending: ctx.Done(), out: make(chan *message.Message)}
	go func() {
		defer s.wg.Done()
		defer close(sub.out)
		defer cancel()
		defer stop()
		err := s.c.Consume(ctx, topic, sub.handle, client.WithConcurrency(1), client.WithPrefetch(s.cfg.Prefetch+1))
		if err != nil {
			s.cfg.Logger.Error("subscription ended", "topic", topic, "error", err)
		}
	}()
	return sub.out, nil
}

// Close ends all subscriptions and waits for them.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	return nil
}

// subscription is one channel of messages.
type subscription struct {
	s      *Subscriber
	topic  string
	ending <-chan struct{}
	out    chan *message.Message
}

var (
	errNacked = errors.New("nacked")
	errEnded  = errors.New("the subscription ended")
)

// handle hands one message out and waits for what becomes of it.
func (u *subscription) handle(ctx context.Context, d *client.Delivery) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := unmarshal(d)
	m.SetContext(ctx)
	select {
	case u.out <- m:
	case <-u.ending:
		return client.RetryAfter(0, errEnded)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-m.Acked():
		return nil
	case <-m.Nacked():
		return u.nacked()
	case <-ctx.Done(): // the lease is lost: whatever comes does not count
		return context.Cause(ctx)
	case <-u.ending:
	}
	cancel()
	timeout := time.NewTimer(max(u.s.cfg.CloseTimeout, 0))
	defer timeout.Stop()
	select {
	case <-m.Acked():
		return nil
	case <-m.Nacked():
		return u.nacked()
	case <-timeout.C:
		return client.RetryAfter(0, errEnded)
	}
}

func (u *subscription) nacked() error {
	switch d := u.s.cfg.NackDelay; {
	case d > 0:
		return client.RetryAfter(d, errNacked)
	case d < 0:
		return client.RetryAfter(0, errNacked)
	}
	return errNacked
}

func unmarshal(d *client.Delivery) *message.Message {
	uuid := d.BizID()
	if uuid == "" {
		uuid = d.ID().String()
	}
	m := message.NewMessage(uuid, d.Body())
	for _, h := range d.Headers() {
		m.Metadata.Set(h.Name, h.Value)
	}
	return m
}
