package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"

	"onceq/client"
	"onceq/client/onceqtest"
	"onceq/client/outbox"
)

// The program takes an order while no cluster can be reached, and ends. When it is
// started again the order is stored.
func Example() {
	file, url, c, end := start()
	defer end()
	ctx := context.Background()

	ob, err := outbox.Open(file, "orders", outbox.WithURL("127.0.0.1:1")) // nobody there
	if err != nil {
		log.Fatal(err)
	}
	if _, err := ob.Publish(ctx, client.Message{BizID: "order-1"}); err != nil {
		log.Fatal(err)
	}
	var stats outbox.Stats = ob.Stats()
	fmt.Println("taken; waiting:", stats.Waiting)
	if err := ob.Close(); err != nil {
		log.Fatal(err)
	}

	ob, err = outbox.Open(file, "orders", outbox.WithURL(url))
	if err != nil {
		log.Fatal(err)
	}
	defer ob.Close()
	var n outbox.Number
	if n, err = ob.Publish(ctx, client.Message{BizID: "order-2"}); err != nil {
		log.Fatal(err)
	}
	receipt, err := ob.Wait(ctx, n) // if one wants to know
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("order-2 is stored as", receipt.Message)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err = c.Consume(ctx, "orders", func(ctx context.Context, d *client.Delivery) error {
		fmt.Println("got", d.BizID())
		if d.BizID() == "order-2" {
			stop()
		}
		return nil
	}, client.WithConcurrency(1))
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// taken; waiting: 1
	// order-2 is stored as orders/1
	// got order-1
	// got order-2
}

// Somebody ends the session while an order is in flight. Whether it is stored cannot
// be known any more, so somebody has to decide.
func ExampleOutbox_Resend() {
	file, url, c, end := start()
	defer end()
	ctx := context.Background()
	if _, err := c.Admin().UpdateQueue(ctx, "orders", func(s *client.QueueSettings) { s.LengthMax = 1 }); err != nil {
		log.Fatal(err)
	}
	var options = []outbox.Option{outbox.WithURL(url), outbox.WithName("shop")}
	ob, err := outbox.Open(file, "orders", options...)
	if err != nil {
		log.Fatal(err)
	}
	first, _ := ob.Publish(ctx, client.Message{BizID: "order-1"})
	if _, err := ob.Wait(ctx, first); err != nil {
		log.Fatal(err)
	}
	second, _ := ob.Publish(ctx, client.Message{BizID: "order-2"}) // the queue is full
	ob.Close()
	sessions, err := c.Admin().Sessions(ctx, 1, 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range sessions {
		if s.Name == "shop" {
			if err := c.Admin().EndSession(ctx, s); err != nil {
				log.Fatal(err)
			}
		}
	}

	ob, err = outbox.Open(file, "orders", outbox.WithURL(url))
	if err != nil {
		log.Fatal(err)
	}
	defer ob.Close()
	held := (*outbox.HeldError)(nil)
	if _, err := ob.Wait(ctx, second); errors.As(err, &held) {
		var reason outbox.Reason = held.Reason
		fmt.Printf("held: %s; may be stored: %v\n", reason, reason.MayBeStored())
	}
	fmt.Println(ob.Resend(outbox.NoRisk, second))

	// Somebody has looked: order-2 is in no consumer's books.
	var risk outbox.Risk = outbox.MayBeStoredTwice
	if err := ob.Resend(risk, second); err != nil {
		log.Fatal(err)
	}
	if _, err := c.Admin().PurgeQueue(ctx, "orders"); err != nil { // makes room
		log.Fatal(err)
	}
	receipt, err := ob.Wait(ctx, second)
	fmt.Println(receipt.Message, err)
	// Output:
	// held: session expired; may be stored: true
	// outbox: this has a risk that was not accepted: entry 2 may be stored already: sent again it may be stored twice
	// orders/1 <nil>
}

// Results come by a function as well, also those of entries that an earlier process
// has taken.
func ExampleWithResults() {
	file, url, _, end := start()
	defer end()
	ctx := context.Background()
	ob, err := outbox.Open(file, "orders", outbox.WithURL(url), outbox.WithResults(func(r outbox.Result) {
		fmt.Println(r.Number, r.Receipt.Message, r.Err)
	}))
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		if _, err := ob.Publish(ctx, client.Message{Body: []byte("b")}); err != nil {
			log.Fatal(err)
		}
	}
	if err := ob.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	ob.Close()
	// Output:
	// 1 orders/0 <nil>
	// 2 orders/1 <nil>
}

// An operator looks into the file of a program that does not run.
func ExampleOpenFile() {
	file, _, _, end := start()
	defer end()
	ob, err := outbox.Open(file, "orders", outbox.WithURL("127.0.0.1:1"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := ob.Publish(context.Background(), client.Message{BizID: "order-1"}); err != nil {
		log.Fatal(err)
	}
	ob.Close()

	var f *outbox.File
	if f, err = outbox.OpenFile(file, true); err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	var entries []outbox.Entry
	if entries, err = f.List(0, 100); err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		var state outbox.State = e.State
		fmt.Println(e.Number, state, e.Messages[0].BizID)
	}
	// Output: 1 waiting order-1
}

// start starts a cluster with a queue called orders, for an example.
func start() (file, url string, c *client.Client, end func()) {
	dir, err := os.MkdirTemp("", "outbox")
	if err != nil {
		log.Fatal(err)
	}
	t := &example{dir: dir}
	cl := onceqtest.Start(t, 1)
	c = cl.Client()
	if _, err := c.Admin().CreateQueue(context.Background(), "orders", client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}
	return filepath.Join(dir, "orders.outbox"), cl.URL(), c, t.end
}

// example is what a cluster wants of a test.
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
