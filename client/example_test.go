package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"time"

	"onceq/client"
)

// In a program: client.Dial(ctx, "onceq://h1:7450,h2:7450,h3:7450").
func Example() {
	ctx := context.Background()
	c, err := client.Dial(ctx, exampleCluster().URL())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateQueue(ctx, "hello", client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}

	p, err := c.NewProducer("hello")
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := p.Publish(ctx, client.Message{Body: []byte("hello"), BizID: "order-42"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored as", receipt.Message)

	consuming, stop := context.WithCancel(ctx)
	err = c.Consume(consuming, "hello", func(ctx context.Context, d *client.Delivery) error {
		fmt.Printf("%s attempt %d: %s\n", d.BizID(), d.Attempt(), d.Body())
		stop() // one is enough for an example
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// stored as hello/0
	// order-42 attempt 1: hello
}

func ExampleClient() {
	ctx := context.Background()
	dialed := 0
	var options = []client.Option{
		client.WithLabel("billing"), // how servers call this client in logs and listings
		client.WithLogger(slog.New(slog.DiscardHandler)),
		client.WithDialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			dialed++
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}),
	}
	c, err := client.Dial(ctx, exampleCluster().URL(), options...)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	var s client.Stats = c.Stats()
	fmt.Println(dialed > 0, s.Connects, s.LeaderChanges)
	// Output: true 1 0
}

func ExampleWithConnectionHook() {
	c := dial(client.WithConnectionHook(func(e client.ConnectionEvent) {
		fmt.Println(e.Link, e.Connected, e.Node, e.Err)
	}))
	c.Close() // waits for the last call
	// Output:
	// produce true n0 <nil>
	// produce false n0 client closed
}

func ExampleProducer() {
	c, ctx := with("invoices"), context.Background()
	defer c.Close()
	// A name makes it the producer that outlives its process: a second one with the
	// name fences the first.
	var options = []client.ProducerOption{client.WithName("billing-1"), client.WithMaxInFlight(100)}
	p, err := c.NewProducer("invoices", options...)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range []client.Message{
		{Body: []byte("plain"), BizID: "invoice-1", Headers: []client.Header{{Name: "currency", Value: "EUR"}}},
		{Body: []byte("soon"), Priority: 9},
		{Body: []byte("in order"), OrderingKey: "customer-7"},
		{Body: []byte("later"), Delay: time.Hour},
		{Body: []byte("for a while"), TTL: time.Minute},
	} {
		var r client.Receipt
		if r, err = p.Publish(ctx, m); err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.Message, r.Duplicate)
	}
	// What does not go together is refused before anything is sent.
	_, err = p.Publish(ctx, client.Message{OrderingKey: "customer-7", Priority: 9})
	fmt.Println(errors.Is(err, client.ErrBadOptions))
	var s client.ProducerStats = p.Stats()
	fmt.Println(s.Published, s.Confirmed, s.InFlight)
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// invoices/0 false
	// invoices/p9.0 false
	// invoices/1 false
	// invoices/2 false
	// invoices/3 false
	// true
	// 5 5 0
}

func ExampleProducer_PublishBatch() {
	c, ctx := with("transfers"), context.Background()
	defer c.Close()
	p, err := c.NewProducer("transfers")
	if err != nil {
		log.Fatal(err)
	}
	// All or none.
	receipts, err := p.PublishBatch(ctx, client.Message{Body: []byte("-5")}, client.Message{Body: []byte("+5")})
	fmt.Println(len(receipts), receipts[0].Message, receipts[1].Message, err)
	// Output: 2 transfers/0 transfers/1 <nil>
}

func ExampleFuture() {
	c, ctx := with("rows"), context.Background()
	defer c.Close()
	p, err := c.NewProducer("rows", client.WithMaxInFlight(1000))
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
			log.Fatal(err)
		}
	}
	last, err := futures[9999].Wait(ctx)
	fmt.Println(last.Message, err)
	// Output: rows/9999 <nil>
}

func ExampleOutcomeUnknownError() {
	c, ctx := with("maybe"), context.Background()
	defer c.Close()
	p, err := c.NewProducer("maybe")
	if err != nil {
		log.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = p.Publish(short, client.Message{Body: []byte("hello")})
	unknown := (*client.OutcomeUnknownError)(nil)
	stored := err == nil // any other error is definite: nothing was stored
	if errors.As(err, &unknown) {
		// Seal it rather than guess: afterwards it is stored or never will be.
		o, err := c.Seal(ctx, unknown.ID)
		if err != nil {
			log.Fatal(err)
		}
		stored = o.State == client.Stored
	}
	q, err := c.Admin().Queue(ctx, "maybe")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored as often as said:", stored == (q.Counts.Stored == 1))
	// The id is for whoever looks an outcome up; programs do not need it else.
	fmt.Println(&client.OutcomeUnknownError{Cause: context.DeadlineExceeded})
	// Output:
	// stored as often as said: true
	// ONCEQ-1005: s0.0.0 may or may not be stored: look it up by its id: context deadline exceeded
}

func ExampleClient_Outcome() {
	c, ctx := with("outcomes"), context.Background()
	defer c.Close()
	p, err := c.NewProducer("outcomes")
	if err != nil {
		log.Fatal(err)
	}
	first, err := p.PublishAsync(ctx, client.Message{Body: []byte("a")}).Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	var o client.Outcome
	if o, err = c.Outcome(ctx, first.ID); err != nil {
		log.Fatal(err)
	}
	var state client.OutcomeState = o.State
	fmt.Println(state, o.Message)
	// Output: stored outcomes/0
}

func ExampleInnerMsgID() {
	id, err := client.ParseInnerMsgID("s1.42.1093")
	var session client.SessionID = id.Session
	fmt.Println(session.Number, id.Sequence, err)
	_, err = client.ParseInnerMsgID("42")
	fmt.Println(err != nil)
	var _ client.InnerMsgID = id
	// Output:
	// 42 1093 <nil>
	// true
}

func ExampleMessageID() {
	fmt.Println(client.MessageID{Queue: "orders", Offset: 17})
	fmt.Println(client.MessageID{Queue: "orders", Lane: 3, Offset: 17})
	queue, at, err := client.ParseMessageID("orders/p3.17")
	var place client.Place = at
	fmt.Println(queue, place.Lane, place.Offset, err)
	// Output:
	// orders/17
	// orders/p3.17
	// orders 3 17 <nil>
}

func ExampleError() {
	_, err := client.Dial(context.Background(), "127.0.0.1:1") // nothing listens there
	fmt.Println(errors.Is(err, client.ErrUnreachable))
	e := (*client.Error)(nil)
	if errors.As(err, &e) {
		var code client.Code = e.Code
		fmt.Println(int(code), e.Retriable)
	}
	// Output:
	// true
	// 1001 true
}
