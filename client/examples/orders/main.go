// Command orders is an order service: it reads orders, one a line, and publishes
// each to the queue "orders".
//
// The number of the order is the biz-id, so whoever handles the message can
// recognise an order that it has handled. The program answers each line with what
// became of it, and there are three answers: stored, not stored, and unknown. The
// last comes up only when there is no time to find out, and then the number of the
// publish is printed, with which "onceq outcome" finds out later.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"onceq/client"
)

// Order is the body of a message.
type Order struct {
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

// patience is how long a customer waits for an answer. Publish needs no shorter
// one: it repeats on its own, through lost connections and new leaders.
const patience = 30 * time.Second

func main() {
	log.SetFlags(0)
	log.SetPrefix("orders: ")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cmp.Or(os.Getenv("ONCEQ_URL"), "127.0.0.1:7450"), os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string, in io.Reader, out io.Writer) error {
	c, err := client.Dial(ctx, url, client.WithLabel("orders"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
		return err
	}
	p, err := c.NewProducer("orders")
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() && ctx.Err() == nil {
		id, order, err := parse(lines.Text())
		if err != nil {
			log.Printf("%q: %v", lines.Text(), err)
			continue
		}
		fmt.Fprintln(out, take(ctx, c, p, id, order))
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return errors.Join(lines.Err(), p.Close(closing))
}

// parse reads "order-1 ann 250".
func parse(line string) (id string, o Order, err error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return "", o, errors.New("write: number customer cents")
	}
	o.Customer = fields[1]
	o.Cents, err = strconv.ParseInt(fields[2], 10, 64)
	return fields[0], o, err
}

// take publishes an order and says what became of it.
func take(ctx context.Context, c *client.Client, p *client.Producer, id string, o Order) string {
	body, err := json.Marshal(o)
	if err != nil {
		return fmt.Sprintf("%s not stored: %v", id, err)
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	receipt, err := p.Publish(waiting, client.Message{BizID: id, Body: body})
	unknown := (*client.OutcomeUnknownError)(nil)
	switch {
	case err == nil:
		return fmt.Sprintf("%s stored as %s", id, receipt.Message)
	case !errors.As(err, &unknown):
		return fmt.Sprintf("%s not stored: %v", id, err)
	}
	// A copy is on its way. To publish the order again could store it twice, so
	// this copy is closed for good instead, which also says what became of it.
	sealing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	switch outcome, err := c.Seal(sealing, unknown.ID); {
	case err == nil && outcome.State == client.Stored:
		return fmt.Sprintf("%s stored as %s", id, outcome.Message)
	case err == nil && outcome.State == client.Never:
		return fmt.Sprintf("%s not stored: no answer in time", id)
	}
	return fmt.Sprintf("%s unknown: look up %s", id, unknown.ID)
}
