// Command payments charges customers for what is in the queue "orders", once for
// each order.
//
// What it has done is remembered in a file, by the number of the order, which the
// sender has put into the message as its biz-id. A message that comes again, because
// the sender repeated it or because only the ack was lost, is acked and does nothing.
//
// One gap is left, and every program with an effect outside of its own database
// has it: the process can die after the bank was told and before that is noted. So
// the bank is told the number of the order as well, and books one number once. Here
// the bank is another part of the same file. Where the effects go into an SQL
// database inbox.SQL leaves no gap.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"onceq/client"
	"onceq/client/inbox"
)

// Order is the body of a message.
type Order struct {
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("payments: ")
	path := flag.String("db", "payments.db", "the file that remembers what was charged")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cmp.Or(os.Getenv("ONCEQ_URL"), "127.0.0.1:7450"), *path, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run charges until ctx ends; then it finishes what it has begun.
func run(ctx context.Context, url, path string, out io.Writer) (err error) {
	// The lock on the file is waited for: an earlier process may be about to end.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 10 * time.Second})
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c, err := client.Dial(ctx, url, client.WithLabel("payments"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
		return err
	}
	till := &till{bank: bank{db}, out: out}
	done := inbox.Bolt(db, 90*24*time.Hour) // longer than anybody would repeat an order
	return c.Consume(ctx, "orders", inbox.Handler(done, till.charge, inbox.WithGroup("payments")), client.WithConcurrency(4))
}

type till struct {
	bank bank

	mu  sync.Mutex
	out io.Writer
}

// charge is called for orders that were not charged yet, as far as is known.
func (t *till) charge(ctx context.Context, d *client.Delivery) error {
	var o Order
	if err := json.Unmarshal(d.Body(), &o); err != nil {
		return client.RetryAfter(time.Minute, fmt.Errorf("order %s: %w", d.BizID(), err))
	}
	if err := t.bank.book(d.BizID(), o); err != nil {
		return err // it comes again, a little later each time
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := fmt.Fprintf(t.out, "%s charged %s %d (attempt %d)\n", d.BizID(), o.Customer, o.Cents, d.Attempt())
	return err
}

// bank stands for a payment provider that takes an idempotency key.
type bank struct{ db *bbolt.DB }

// book charges a customer once for each key.
func (b bank) book(key string, o Order) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		bookings, err := tx.CreateBucketIfNotExists([]byte("bank"))
		if err != nil || bookings.Get([]byte(key)) != nil {
			return err
		}
		return bookings.Put([]byte(key), fmt.Appendf(nil, "%s %d", o.Customer, o.Cents))
	})
}
