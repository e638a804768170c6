package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"onceq/client"
)

// The examples that need a cluster are compiled and not run here.

func Example() {
	ctx := context.Background()
	c, err := client.Dial(ctx, "onceq://127.0.0.1:7450,127.0.0.1:7550")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}

	p, err := c.NewProducer("orders")
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := p.Publish(ctx, client.Message{Body: []byte("hello"), BizID: "order-42"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored as", receipt.Message)

	consuming, stop := context.WithCancel(ctx)
	err = c.Consume(consuming, "orders", func(ctx context.Context, d *client.Delivery) error {
		fmt.Printf("%s attempt %d: %s\n", d.BizID(), d.Attempt(), d.Body())
		stop() // one is enough for an example
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleProducer_PublishAsync() {
	ctx := context.Background()
	c, err := client.Dial(ctx, "127.0.0.1:7450")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.NewProducer("orders", client.WithMaxInFlight(1000))
	if err != nil {
		log.Fatal(err)
	}
	var futures []*client.Future
	for i := range 10_000 {
		// Blocks only while 1,000 are in flight.
		futures = append(futures, p.PublishAsync(ctx, client.Message{Body: fmt.Appendf(nil, "row %d", i)}))
	}
	for _, f := range futures {
		if _, err := f.Wait(ctx); err != nil {
			log.Print(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
}

func ExampleClient_Outcome() {
	ctx := context.Background()
	c, err := client.Dial(ctx, "127.0.0.1:7450")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.NewProducer("orders")
	if err != nil {
		log.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = p.Publish(short, client.Message{Body: []byte("hello")})
	unknown := (*client.OutcomeUnknownError)(nil)
	switch {
	case err == nil:
		fmt.Println("stored")
	case errors.As(err, &unknown):
		// Seal it rather than guess: afterwards it is stored or never will be.
		o, err := c.Seal(ctx, unknown.ID)
		fmt.Println(o.State, err)
	default:
		fmt.Println("not stored:", err)
	}
}

func ExampleRetryAfter() {
	c, err := client.Dial(context.Background(), "127.0.0.1:7450")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	busy := errors.New("the shop is closed")
	err = c.Consume(context.Background(), "orders", func(ctx context.Context, d *client.Delivery) error {
		return client.RetryAfter(time.Hour, busy)
	}, client.WithConcurrency(8))
	fmt.Println(err)
}

func ExampleParseInnerMsgID() {
	id, err := client.ParseInnerMsgID("s1.42.1093")
	fmt.Println(id.Session.Number, id.Sequence, err)
	_, err = client.ParseInnerMsgID("42")
	fmt.Println(err != nil)
	// Output:
	// 42 1093 <nil>
	// true
}

func ExampleMessageID_String() {
	fmt.Println(client.MessageID{Queue: "orders", Offset: 17})
	fmt.Println(client.MessageID{Queue: "orders", Lane: 3, Offset: 17})
	// Output:
	// orders/17
	// orders/p3.17
}

func ExampleError() {
	_, err := client.Dial(context.Background(), "127.0.0.1:1") // nothing listens there
	fmt.Println(errors.Is(err, client.ErrUnreachable))
	e := (*client.Error)(nil)
	if errors.As(err, &e) {
		fmt.Println(int(e.Code), e.Retriable)
	}
	// Output:
	// true
	// 1001 true
}

// A handler that says what is to become of the message.
func ExampleDeadLetter() {
	var known func(body []byte) error
	handle := func(ctx context.Context, d *client.Delivery) error {
		if d.BizID() == "" {
			return client.Drop(errors.New("no business id: not for us"))
		}
		if err := known(d.Body()); err != nil {
			return client.DeadLetter(fmt.Errorf("read order: %w", err)) // trying again will not help
		}
		return nil
	}
	known = func([]byte) error { return nil }
	fmt.Println(handle != nil, client.DeadLetter(errors.New("read order: no customer")))
	// Output: true dead letter: read order: no customer
}

// A stage of a chain of queues: whatever crashes, each message goes on once.
func ExampleClient_AckAndPublish() {
	ctx := context.Background()
	c, err := client.Dial(ctx, "onceq://h1:7450,h2:7450")
	if err != nil {
		fmt.Println("no cluster for this example")
		return
	}
	defer c.Close()
	err = c.Consume(ctx, "orders", func(ctx context.Context, d *client.Delivery) error {
		_, err := c.AckAndPublish(ctx, d,
			client.Outgoing{Queue: "invoices", Message: client.Message{Body: d.Body(), BizID: d.BizID()}},
			client.Outgoing{Queue: "mail", Message: client.Message{Body: []byte("thank you"), Priority: 1}})
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleParseMessageID() {
	queue, at, err := client.ParseMessageID("orders/p3.17")
	fmt.Println(queue, at.Lane, at.Offset, err)
	// Output: orders 3 17 <nil>
}

func ExampleClient_Receive() {
	ctx := context.Background()
	c, err := client.Dial(ctx, "127.0.0.1:7450")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for {
		// Up to ten at once; none when nothing came for twenty seconds.
		ds, err := c.Receive(ctx, "orders", 10, client.WithWait(20*time.Second))
		if err != nil {
			log.Fatal(err)
		}
		if len(ds) == 0 {
			return
		}
		for _, d := range ds {
			// Nobody keeps the lease alive while this works: d.Extend does.
			fmt.Println(string(d.Body()))
			if err := d.Ack(ctx); err != nil {
				log.Print(err) // somebody else may get it
			}
		}
	}
}
