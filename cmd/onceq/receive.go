package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/format"
	"onceq/transport/wire"
)

type receiveCmd struct {
	Queue  string        `arg:"" help:"Queue to take from."`
	N      int           `short:"n" help:"How many messages at most, 1 to 1,000." default:"1" placeholder:"N"`
	Wait   time.Duration `help:"How long to wait for a first message." default:"0s" placeholder:"TIME"`
	Ack    bool          `help:"Ack the messages after they were written. With --no-ack they are given back, as attempts that failed." default:"true" negatable:""`
	Format string        `short:"f" help:"How to write a message; see below." default:"%b\\n" placeholder:"FORMAT"`
	Output string        `short:"o" help:"json or jsonl (an object a line) instead of --format." enum:"text,json,jsonl" default:"text"`
	Label  string        `help:"Text that listings show for who receives." placeholder:"TEXT"`
}

// Help shows the verbs of a format and examples.
func (*receiveCmd) Help() string {
	return `Takes what is ready, at once, and ends; onceq sub stays and is handed messages.
When nothing is there, nothing is written, and the exit code is 0 all the same.

A message is acked after it has been written; if standard output fails, it is given
back. To look without taking, use onceq queue peek.

Format: ` + format.Verbs + `

Examples:
  onceq receive orders
  onceq receive orders -n 100 --wait 20s -o jsonl
  onceq receive orders -n 10 --no-ack -f '%i %a %b\n'
  onceq receive pictures -f %b > cat.jpg    (one body, no newline after it)`
}

// Run receives once.
func (r *receiveCmd) Run(ctx context.Context, a *app, g *globals) error {
	f, err := format.Parse(r.Format)
	if err != nil {
		return &exit.Error{Code: exit.Usage, Err: err}
	}
	switch {
	case r.N < 1 || r.N > wire.ReceiveMax:
		return exit.Errorf(exit.Usage, "-n %d: from 1 to %d", r.N, wire.ReceiveMax)
	case r.Wait < 0:
		return exit.Errorf(exit.Usage, "--wait %v: not below 0", r.Wait)
	}
	dialing, cancel := g.within(ctx)
	defer cancel()
	c, err := a.dial(dialing, g)
	if err != nil {
		return err
	}
	defer c.Close()
	opts := []client.ReceiveOption{client.WithWait(r.Wait)}
	if r.Label != "" {
		opts = append(opts, client.WithReceiverLabel(r.Label))
	}
	// Beyond the wait there is as long as for any other answer.
	receiving, cancel := context.WithTimeoutCause(ctx, r.Wait+g.Timeout, fmt.Errorf("no answer within %s (--timeout)", g.Timeout))
	defer cancel()
	ds, err := c.Receive(receiving, r.Queue, r.N, opts...)
	if err != nil {
		return noQueue(receiving, c, err, r.Queue)
	}
	werr := r.write(a, f, ds)
	return errors.Join(werr, r.settle(ctx, a, g, ds, werr == nil && r.Ack))
}

func (r *receiveCmd) write(a *app, f format.Format, ds []*client.Delivery) error {
	var buf []byte
	rows := make([]json.RawMessage, 0, len(ds))
	for _, d := range ds {
		switch r.Output {
		case "text":
			buf = f.Append(buf, message(d))
		default:
			line, err := format.AppendJSON(nil, message(d))
			if err != nil {
				return err
			}
			buf, rows = append(buf, line...), append(rows, line)
		}
	}
	var err error
	if r.Output == "json" {
		err = console.WriteList(a.Out, console.JSON, rows)
	} else if len(buf) > 0 {
		_, err = a.Out.Write(buf)
	}
	if err != nil {
		return fmt.Errorf("standard output: %w; nothing was acked", err)
	}
	return nil
}

// settle acks what was written, or gives it back.
func (r *receiveCmd) settle(ctx context.Context, a *app, g *globals, ds []*client.Delivery, ack bool) error {
	ctx, cancel := g.within(context.WithoutCancel(ctx))
	defer cancel()
	results := make(chan error, len(ds))
	for _, d := range ds {
		go func() {
			if ack {
				results <- d.Ack(ctx)
			} else {
				results <- d.NackAfter(ctx, 0, nil)
			}
		}()
	}
	var first error
	failed := 0
	for range ds {
		if err := <-results; err != nil {
			failed++
			first = errors.Join(first, err)
		}
	}
	if failed > 1 {
		a.Note("%d of %d messages could not be settled", failed, len(ds))
	}
	return first
}
