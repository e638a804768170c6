// Command example is a Watermill router on onceq: it bills orders. With a cluster from
// "onceq dev" in another terminal:
//
//	ONCEQ_URL=127.0.0.1:7450 go run ./example
//	onceq pub orders --biz-id order-1 "42 EUR"
//	onceq sub invoices
//
// An order that is not a number of EUR fails, is tried again, and after three times is
// a dead letter: see "onceq queue ls".
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"onceq/client"
	onceqmill "onceq/client/watermill"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	c, err := client.Dial(ctx, os.Getenv("ONCEQ_URL"))
	if err != nil {
		return err
	}
	defer c.Close()
	for queue, settings := range map[string]client.QueueSettings{
		"orders.dead": {},
		"orders":      {DeliveryLimit: 3, DeadLetter: "orders.dead"},
	} {
		if err := create(ctx, c, queue, settings); err != nil {
			return err
		}
	}
	logger := slog.Default()
	sub := onceqmill.NewSubscriber(c, onceqmill.SubscriberConfig{NackDelay: time.Second, Logger: logger})
	pub := onceqmill.NewPublisher(c, onceqmill.PublisherConfig{Queue: &client.QueueSettings{}})

	router, err := message.NewRouter(message.RouterConfig{}, watermill.NewSlogLogger(logger))
	if err != nil {
		return err
	}
	router.AddHandler("bill", "orders", sub, "invoices", pub, bill)
	return router.Run(ctx)
}

// create makes a queue, or leaves the one there is.
func create(ctx context.Context, c *client.Client, queue string, settings client.QueueSettings) error {
	if _, err := c.Admin().Queue(ctx, queue); err == nil {
		return nil
	}
	_, err := c.Admin().CreateQueue(ctx, queue, settings)
	return err
}

// bill makes an invoice of an order. The invoice's UUID comes from the order's: when
// the order comes again, so does the same invoice, and who takes invoices sees that.
func bill(m *message.Message) ([]*message.Message, error) {
	var euros int
	if _, err := fmt.Sscanf(string(m.Payload), "%d EUR", &euros); err != nil {
		return nil, fmt.Errorf("order %s: %w", m.UUID, err)
	}
	return []*message.Message{message.NewMessage("invoice-"+m.UUID, fmt.Appendf(nil, "please pay %d EUR", euros))}, nil
}
