package watermill_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"onceq/client"
	"onceq/client/onceqtest"
	"onceq/client/watermill"
)

// An order is published, billed when it comes, and acked.
func Example() {
	dir, err := os.MkdirTemp("", "onceqmill")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t := &example{dir: dir} // in a test this is its *testing.T
	defer t.end()
	c := onceqtest.Start(t, 1).Client()

	var sub *watermill.Subscriber = watermill.NewSubscriber(c, watermill.SubscriberConfig{Queue: &client.QueueSettings{}})
	defer sub.Close()
	orders, err := sub.Subscribe(context.Background(), "orders")
	if err != nil {
		log.Fatal(err)
	}
	var pub *watermill.Publisher = watermill.NewPublisher(c, watermill.PublisherConfig{
		Message: func(_ string, m *message.Message, out *client.Message) error {
			out.OrderingKey = m.Metadata["customer"]
			return nil
		},
	})
	defer pub.Close()
	m := message.NewMessage("order-1", []byte("42 EUR"))
	m.Metadata.Set("customer", "7")
	if err := pub.Publish("orders", m); err != nil {
		log.Fatal(err)
	}

	got := <-orders
	fmt.Printf("%s: %s for customer %s\n", got.UUID, got.Payload, got.Metadata["customer"])
	got.Ack()
	// Output: order-1: 42 EUR for customer 7
}

// example stands for the *testing.T that an Example does not have.
type example struct {
	testing.TB
	cleanups []func()
	dir      string
}

func (*example) Helper()                   {}
func (*example) Failed() bool              { return false }
func (e *example) TempDir() string         { return e.dir }
func (e *example) Cleanup(f func())        { e.cleanups = append(e.cleanups, f) }
func (*example) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func (e *example) end() {
	for i := len(e.cleanups) - 1; i >= 0; i-- {
		e.cleanups[i]()
	}
}
