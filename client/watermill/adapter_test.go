package watermill

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"onceq/client"
	"onceq/client/onceqtest"
)

func dial(t *testing.T) *client.Client { return onceqtest.Start(t, 1).Client() }

func subscribe(t *testing.T, c *client.Client, cfg SubscriberConfig, topic string) (*Subscriber, <-chan *message.Message) {
	t.Helper()
	cfg.Queue = &client.QueueSettings{}
	s := NewSubscriber(c, cfg)
	t.Cleanup(func() { s.Close() })
	in, err := s.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return s, in
}

func next(t *testing.T, in <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case m, ok := <-in:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return m
	case <-time.After(bound):
		t.Fatal("no message")
		return nil
	}
}

func TestMessage_GoesThereAndBack(t *testing.T) {
	t.Parallel()
	c := dial(t)
	_, in := subscribe(t, c, SubscriberConfig{}, "orders")
	pub := NewPublisher(c, PublisherConfig{Message: func(topic string, m *message.Message, out *client.Message) error {
		if topic != "orders" {
			t.Errorf("topic %q", topic)
		}
		out.OrderingKey = m.Metadata["customer"]
		return nil
	}})
	defer pub.Close()
	m := message.NewMessage("order-1", []byte("42 EUR"))
	m.Metadata.Set("customer", "7")
	m.Metadata.Set("a", "b")
	if err := pub.Publish("orders", m); err != nil {
		t.Fatal(err)
	}
	got := next(t, in)
	if !got.Equals(m) {
		t.Errorf("got %+v, published %+v", got, m)
	}
	info, err := c.Admin().Message(t.Context(), "orders", client.Place{})
	if err != nil || info.Content.BizID != "order-1" || info.Content.OrderingKey != "7" || len(info.Content.Headers) != 2 || info.Content.Headers[0].Name != "a" {
		t.Errorf("in the queue: %+v, %v", info.Content, err)
	}
	got.Ack()
	<-got.Context().Done()

	// What was published by others has another id, and it may repeat a header.
	p, err := c.NewProducer("orders")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), client.Message{Headers: []client.Header{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}}); err != nil {
		t.Fatal(err)
	}
	got = next(t, in)
	if got.UUID != "orders/1" || got.Metadata["a"] != "2" {
		t.Errorf("got %+v", got)
	}
	got.Ack()
}

func TestPublish_IsAllOrNothing(t *testing.T) {
	t.Parallel()
	c := dial(t)
	pub := NewPublisher(c, PublisherConfig{Queue: &client.QueueSettings{LengthMax: 2}, Message: func(_ string, m *message.Message, _ *client.Message) error {
		if m.UUID == "bad" {
			return errors.New("refused here")
		}
		return nil
	}})
	var three []*message.Message
	for i := range 3 {
		three = append(three, message.NewMessage(fmt.Sprint(i), nil))
	}
	if err := pub.Publish("orders", three...); !errors.Is(err, client.ErrQueueFull) {
		t.Errorf("three in a queue for two: %v", err)
	}
	if err := pub.Publish("orders", three[0], message.NewMessage("bad", nil)); err == nil {
		t.Error("a message that was refused by the program was published")
	}
	if info, err := c.Admin().Queue(t.Context(), "orders"); err != nil || info.Counts.Stored != 0 {
		t.Errorf("stored: %+v, %v", info.Counts, err)
	}
	if err := pub.Publish("orders", three[:2]...); err != nil {
		t.Errorf("two: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late := message.NewMessageWithContext(ended, "late", nil)
	if err := pub.Publish("orders", late); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if err := NewPublisher(c, PublisherConfig{}).Publish("none", three[0]); !errors.Is(err, client.ErrNoQueue) {
		t.Errorf("no queue: %v", err)
	}
	for range 2 {
		if err := pub.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := pub.Publish("orders", three[0]); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

func TestNack_ComesAgainUnderItsAttempt(t *testing.T) {
	t.Parallel()
	c := dial(t)
	_, in := subscribe(t, c, SubscriberConfig{NackDelay: -1}, "orders")
	pub := NewPublisher(c, PublisherConfig{})
	defer pub.Close()
	if err := pub.Publish("orders", message.NewMessage("a", nil)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		m := next(t, in)
		m.Nack()
		<-m.Context().Done()
	}
	m := next(t, in)
	info, err := c.Admin().Message(t.Context(), "orders", client.Place{})
	if err != nil || info.Failures != 3 || m.UUID != "a" {
		t.Errorf("failures %d, %v", info.Failures, err)
	}
	m.Ack()
}

func TestClose_WaitsForTheAckOfWhatWasHandedOut(t *testing.T) {
	t.Parallel()
	c := dial(t)
	s, in := subscribe(t, c, SubscriberConfig{CloseTimeout: bound}, "orders")
	pub := NewPublisher(c, PublisherConfig{})
	defer pub.Close()
	if err := pub.Publish("orders", message.NewMessage("a", nil), message.NewMessage("b", nil)); err != nil {
		t.Fatal(err)
	}
	m := next(t, in)
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	<-m.Context().Done()
	m.Ack()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, open := <-in; open {
		t.Error("the channel is open after Close")
	}
	if _, err := s.Subscribe(t.Context(), "orders"); !errors.Is(err, ErrClosed) {
		t.Errorf("subscribe after close: %v", err)
	}
	// The ack counted, and what nobody has read is there for the next.
	_, again := subscribe(t, c, SubscriberConfig{}, "orders")
	m = next(t, again)
	if m.UUID != "b" {
		t.Errorf("got %s", m.UUID)
	}
	m.Ack()
}

func TestClose_Impatient_GivesBackWhatWasHandedOut(t *testing.T) {
	t.Parallel()
	c := dial(t)
	s, in := subscribe(t, c, SubscriberConfig{CloseTimeout: -1}, "orders")
	pub := NewPublisher(c, PublisherConfig{})
	defer pub.Close()
	if err := pub.Publish("orders", message.NewMessage("a", nil)); err != nil {
		t.Fatal(err)
	}
	next(t, in)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, again := subscribe(t, c, SubscriberConfig{}, "orders")
	m := next(t, again)
	if m.UUID != "a" {
		t.Errorf("got %s", m.UUID)
	}
	m.Ack()
}

func TestSubscribe_NoQueue_IsAnError(t *testing.T) {
	t.Parallel()
	c := dial(t)
	s := NewSubscriber(c, SubscriberConfig{})
	defer s.Close()
	if _, err := s.Subscribe(t.Context(), "none"); !errors.Is(err, client.ErrNoQueue) {
		t.Errorf("error %v", err)
	}
	if err := s.SubscribeInitialize("none"); !errors.Is(err, client.ErrNoQueue) {
		t.Errorf("error %v", err)
	}
}

func TestSubscription_QueueDeleted_EndsTheChannel(t *testing.T) {
	t.Parallel()
	c := dial(t)
	_, in := subscribe(t, c, SubscriberConfig{}, "orders")
	if _, err := c.Admin().DeleteQueue(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	select {
	case _, open := <-in:
		if open {
			t.Error("a message of no queue")
		}
	case <-time.After(bound):
		t.Error("the channel stays open")
	}
}
