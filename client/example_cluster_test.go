package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"sync"
	"testing"

	"onceq/client"
	"onceq/client/onceqtest"
)

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
	os.RemoveAll(e.dir)
}

// exampleCluster is the cluster of all examples, a node that is started with the
// first of them.
var exampleCluster = sync.OnceValue(func() *onceqtest.Cluster {
	dir, err := os.MkdirTemp("", "onceq-examples")
	if err != nil {
		log.Fatal(err)
	}
	t := &example{dir: dir}
	client.AtEnd = append(client.AtEnd, t.end)
	return onceqtest.Start(t, 1)
})

// dial is client.Dial to the examples' cluster.
func dial(opts ...client.Option) *client.Client {
	c, err := client.Dial(context.Background(), exampleCluster().URL(), opts...)
	if err != nil {
		log.Fatal(err)
	}
	return c
}

// another is a client of a cluster of its own, with a queue that has messages.
func another(queue string, bodies ...string) (c *client.Client, end func()) {
	dir, err := os.MkdirTemp("", "onceq-example")
	if err != nil {
		log.Fatal(err)
	}
	t := &example{dir: dir}
	c = onceqtest.Start(t, 1).Client()
	if queue != "" {
		fill(c, queue, bodies...)
	}
	return c, t.end
}

// with is dial, and a queue that has messages.
func with(queue string, bodies ...string) *client.Client {
	c := dial()
	fill(c, queue, bodies...)
	return c
}

func fill(c *client.Client, queue string, bodies ...string) {
	ctx := context.Background()
	if _, err := c.Admin().CreateQueue(ctx, queue, client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(queue)
	if err != nil {
		log.Fatal(err)
	}
	for _, b := range bodies {
		if _, err := p.Publish(ctx, client.Message{Body: []byte(b)}); err != nil {
			log.Fatal(err)
		}
	}
}
