package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"onceq/client"
)

func ExampleClient_Consume() {
	c := with("numbers", "1", "2", "3")
	defer c.Close()
	ctx, stop := context.WithCancel(context.Background())
	var handle client.Handler = func(ctx context.Context, d *client.Delivery) error {
		fmt.Println(d.ID(), string(d.Body()), d.Attempt(), d.Failures())
		if string(d.Body()) == "3" {
			stop() // drains: what handlers did is settled before Consume returns
		}
		return nil // acks
	}
	var options = []client.ConsumeOption{client.WithPrefetch(16), client.WithConcurrency(1), client.WithConsumerLabel("adder")}
	if err := c.Consume(ctx, "numbers", handle, options...); err != nil {
		log.Fatal(err)
	}
	// Output:
	// numbers/0 1 1 0
	// numbers/1 2 1 0
	// numbers/2 3 1 0
}

func ExampleClient_Messages() {
	c, ctx := with("loop", "a", "b"), context.Background()
	defer c.Close()
	n := 0
	for d, err := range c.Messages(ctx, "loop") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(d.Body()))
		if err := d.Ack(ctx); err != nil {
			log.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	// Output:
	// a
	// b
}

// What is lost is learned before, while, or after the work is done.
func ExampleDelivery() {
	c, ctx := with("leases", "a"), context.Background()
	defer c.Close()
	for d, err := range c.Messages(ctx, "leases") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(d.Queue(), d.BizID() == "", d.OrderingKey() == "", d.Priority(), len(d.Headers()), !d.PublishedAt().IsZero())
		fmt.Println("held:", d.Extend(ctx, time.Minute))
		if _, err := c.Admin().PurgeQueue(ctx, "leases"); err != nil {
			log.Fatal(err)
		}
		<-d.Context().Done()
		fmt.Println(errors.Is(context.Cause(d.Context()), client.ErrLeaseLost))
		fmt.Println(errors.Is(d.Ack(ctx), client.ErrLeaseLost))
		break
	}
	// Output:
	// leases true true 0 0 true
	// held: <nil>
	// true
	// true
}

func ExampleMiddleware() {
	c := with("wrapped", "a")
	defer c.Close()
	ctx, stop := context.WithCancel(context.Background())
	var count client.Middleware = func(next client.Handler) client.Handler {
		return func(ctx context.Context, d *client.Delivery) error {
			err := next(ctx, d)
			fmt.Println("handled:", err == nil)
			return err
		}
	}
	err := c.Consume(ctx, "wrapped", func(context.Context, *client.Delivery) error {
		stop()
		return nil
	}, client.WithMiddleware(count))
	if err != nil {
		log.Fatal(err)
	}
	// Output: handled: true
}

// A handler says what is to become of the message.
func ExampleDeadLetter() {
	c, ctx := with("dead"), context.Background()
	defer c.Close()
	if _, err := c.Admin().CreateQueue(ctx, "letters", client.QueueSettings{DeadLetter: "dead", DeliveryLimit: 5}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer("letters")
	if err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"", "bad-1", "late-1"} {
		if _, err := p.Publish(ctx, client.Message{BizID: id}); err != nil {
			log.Fatal(err)
		}
	}
	consuming, stop := context.WithCancel(ctx)
	err = c.Consume(consuming, "letters", func(_ context.Context, d *client.Delivery) error {
		switch {
		case d.BizID() == "":
			return client.Drop(errors.New("no business id: not for us"))
		case d.BizID() == "late-1" && d.Attempt() == 1:
			return client.RetryAfter(0, errors.New("the shop is closed")) // or an hour
		case d.BizID() == "late-1":
			defer stop()
			fmt.Println("late-1 at attempt", d.Attempt())
			return nil
		}
		return client.DeadLetter(errors.New("no customer")) // trying again will not help
	}, client.WithPrefetch(1))
	if err != nil {
		log.Fatal(err)
	}
	for d, err := range c.Messages(ctx, "dead") {
		if err != nil {
			log.Fatal(err)
		}
		var info client.DeadLetterInfo
		info, _ = d.DeadLetter()
		fmt.Println(d.BizID(), info.Origin, info.LastError)
		break
	}
	// Output:
	// late-1 at attempt 2
	// bad-1 letters/1 no customer
}

// A stage of a chain of queues: whatever crashes, each message goes on once.
func ExampleClient_AckAndPublish() {
	c, ctx := with("basket", "book"), context.Background()
	defer c.Close()
	for _, q := range []string{"bill", "mail"} {
		if _, err := c.Admin().CreateQueue(ctx, q, client.QueueSettings{}); err != nil {
			log.Fatal(err)
		}
	}
	consuming, stop := context.WithCancel(ctx)
	err := c.Consume(consuming, "basket", func(ctx context.Context, d *client.Delivery) error {
		defer stop()
		receipts, err := c.AckAndPublish(ctx, d,
			client.Outgoing{Queue: "bill", Message: client.Message{Body: d.Body(), BizID: d.BizID()}},
			client.Outgoing{Queue: "mail", Message: client.Message{Body: []byte("thank you"), Priority: 1}})
		for _, r := range receipts {
			fmt.Println(r.Message)
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// bill/0
	// mail/p1.0
}

func ExampleClient_Receive() {
	c, ctx := with("pulled", "a", "b"), context.Background()
	defer c.Close()
	// Up to ten at once; none when nothing came for as long as WithWait says.
	var options = []client.ReceiveOption{client.WithWait(20 * time.Second)}
	ds, err := c.Receive(ctx, "pulled", 10, options...)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range ds {
		// Nobody keeps the lease alive while this works: d.Extend does.
		fmt.Println(string(d.Body()))
		if err := d.Ack(ctx); err != nil {
			log.Print(err) // somebody else may get it
		}
	}
	// Output:
	// a
	// b
}
