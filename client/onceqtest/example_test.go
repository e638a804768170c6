package onceqtest_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"onceq/client"
	"onceq/client/onceqtest"
)

// A test of a program that must not lose an order when a leader dies.
func Example() {
	dir, err := os.MkdirTemp("", "onceqtest")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t := &example{dir: dir} // in a test this is its *testing.T
	defer t.end()

	ctx := context.Background()
	var cluster *onceqtest.Cluster = onceqtest.Start(t, 3)
	c := cluster.Client()
	if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer("orders")
	if err != nil {
		log.Fatal(err)
	}
	first, err := p.Publish(ctx, client.Message{BizID: "order-1"})
	if err != nil {
		log.Fatal(err)
	}

	dead := cluster.KillLeader()
	second, err := p.Publish(ctx, client.Message{BizID: "order-2"}) // waits for the next leader
	if err != nil {
		log.Fatal(err)
	}
	cluster.Restart(dead)

	fmt.Println(first.Message, second.Message)
	// Output: orders/0 orders/1
}
