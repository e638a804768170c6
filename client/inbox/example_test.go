package inbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"onceq/client"
	"onceq/client/inbox"
	"onceq/client/onceqtest"
)

// A sender that has crashed publishes an order again, under the same biz-id.
func ExampleHandler() {
	c, end := start()
	defer end()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	p, err := c.NewProducer("orders")
	if err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"order-1", "order-1", "order-2"} {
		if _, err := p.Publish(ctx, client.Message{BizID: id, Body: []byte("pay 5")}); err != nil {
			log.Fatal(err)
		}
	}

	pay := func(ctx context.Context, d *client.Delivery) error {
		fmt.Printf("%s: %s\n", d.BizID(), d.Body())
		if d.BizID() == "order-2" {
			stop()
		}
		return nil
	}
	var seen inbox.Store = inbox.Memory(100_000, time.Hour)
	var options = []inbox.Option{inbox.WithGroup("payments")}
	if err := c.Consume(ctx, "orders", inbox.Handler(seen, pay, options...)); err != nil {
		log.Fatal(err)
	}
	// Output:
	// order-1: pay 5
	// order-2: pay 5
}

// The program starts again with the same database.
func ExampleBolt() {
	c, end := start()
	defer end()
	dir, err := os.MkdirTemp("", "inbox")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p, err := c.NewProducer("orders")
	if err != nil {
		log.Fatal(err)
	}

	for _, run := range []string{"first run", "second run"} {
		// Both runs get order-1; the second gets one more.
		for _, id := range []string{"order-1", "last of " + run} {
			if _, err := p.Publish(context.Background(), client.Message{BizID: id}); err != nil {
				log.Fatal(err)
			}
		}
		db, err := bbolt.Open(filepath.Join(dir, "inbox.db"), 0o600, &bbolt.Options{Timeout: time.Second})
		if err != nil {
			log.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		handler := inbox.Handler(inbox.Bolt(db, 30*24*time.Hour), func(ctx context.Context, d *client.Delivery) error {
			fmt.Printf("%s: %s\n", run, d.BizID())
			if d.BizID() == "last of "+run {
				stop()
			}
			return nil
		})
		if err := c.Consume(ctx, "orders", handler); err != nil {
			log.Fatal(err)
		}
		if err := db.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// first run: order-1
	// first run: last of first run
	// second run: last of second run
}

// A handler's error gives the message back, and nothing is remembered of it.
func ExampleMemory() {
	c, end := start()
	defer end()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	p, err := c.NewProducer("orders")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := p.Publish(ctx, client.Message{BizID: "order-1"}); err != nil {
		log.Fatal(err)
	}
	err = c.Consume(ctx, "orders", inbox.Handler(inbox.Memory(100, 0), func(ctx context.Context, d *client.Delivery) error {
		fmt.Println("attempt", d.Attempt())
		if d.Attempt() == 1 {
			return client.RetryAfter(0, errors.New("the bank is busy"))
		}
		stop()
		return nil
	}))
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// attempt 1
	// attempt 2
}

// The note and the transfer commit together. sqltest has this example in full,
// against PostgreSQL and SQLite.
func ExampleSQL() {
	ctx := context.Background()
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := inbox.CreateTable(ctx, db, inbox.PostgreSQL); err != nil {
		log.Fatal(err)
	}
	c, err := client.Dial(ctx, "onceq://127.0.0.1:7450")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	transfer := func(ctx context.Context, tx *sql.Tx, d *client.Delivery) error {
		_, err := tx.ExecContext(ctx, "UPDATE accounts SET balance = balance + $1 WHERE owner = $2", 5, "bob")
		return err
	}
	if err := c.Consume(ctx, "transfers", inbox.SQL(db, inbox.PostgreSQL, transfer, inbox.WithGroup("ledger"))); err != nil {
		log.Fatal(err)
	}
}

func ExampleSchema() {
	fmt.Print(inbox.Schema(inbox.PostgreSQL, inbox.WithTable("ledger.seen")))
	// Output:
	// CREATE TABLE IF NOT EXISTS ledger.seen (
	// 	consumer_group text NOT NULL,
	// 	queue          text NOT NULL,
	// 	id             bytea NOT NULL,
	// 	handled_at     timestamptz NOT NULL DEFAULT now(),
	// 	PRIMARY KEY (consumer_group, queue, id)
	// );
	// CREATE INDEX IF NOT EXISTS seen_handled_at ON ledger.seen (consumer_group, queue, handled_at);
}

func ExampleDialect() {
	fmt.Println(inbox.PostgreSQL, inbox.SQLite)
	// Output: PostgreSQL SQLite
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

// start starts a cluster of one with the queue "orders".
func start() (c *client.Client, end func()) {
	dir, err := os.MkdirTemp("", "inbox")
	if err != nil {
		log.Fatal(err)
	}
	t := &example{dir: dir}
	c = onceqtest.Start(t, 1).Client()
	if _, err := c.Admin().CreateQueue(context.Background(), "orders", client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}
	return c, func() {
		for i := len(t.cleanups) - 1; i >= 0; i-- {
			t.cleanups[i]()
		}
		os.RemoveAll(dir)
	}
}
