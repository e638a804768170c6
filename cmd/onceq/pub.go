package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/transport/wire"
)

type pubCmd struct {
	outputFlag
	Queue  string   `arg:"" help:"Queue to publish to."`
	Body   *string  `arg:"" optional:"" help:"The message. Without it, standard input is the message."`
	Lines  bool     `short:"l" help:"Publish each line of standard input as a message."`
	BizID  string   `name:"biz-id" help:"Business id, carried along unread, for the consumer's own dedup." placeholder:"ID"`
	Header []string `short:"H" help:"Header; may be repeated." placeholder:"NAME=VALUE" sep:"none"`
	publishFlags
	Create   bool   `help:"Create the queue if it does not exist."`
	Session  string `help:"Name of the producer's session; opening it again fences an older producer." placeholder:"NAME"`
	InFlight int    `help:"With -l, how many messages may be without an answer." default:"4096" placeholder:"N"`
}

// Help shows examples.
func (*pubCmd) Help() string {
	return `A message that is confirmed is on the disks of a majority and stored once, however
often it had to be sent. With a body, the command tries for --timeout; with -l it
goes on through failovers until it is interrupted.

Exit code 7 means that the outcome is not known; the id that is printed tells it:
  onceq outcome ID         look it up
  onceq outcome ID --seal  settle it for good: stored, or never

Examples:
  onceq pub hello hi
  onceq pub orders '{"order":42}' --biz-id order-42 -H source=web
  onceq pub orders '{"order":42}' --key customer-7
  onceq pub mail 'urgent' --priority 9 --ttl 10m
  onceq pub mail 'later' --delay 1h30m
  onceq pub mail 'tomorrow' --at 2026-12-01T08:00:00+01:00
  cat rows.jsonl | onceq pub orders -l --create
  onceq pub pictures < cat.jpg`
}

// Run publishes.
func (p *pubCmd) Run(ctx context.Context, a *app, g *globals) error {
	headers, err := parseHeaders(p.Header)
	if err != nil {
		return err
	}
	options, err := p.message(time.Now())
	if err != nil {
		return err
	}
	options.Headers = headers
	switch {
	case p.Lines && p.Body != nil:
		return exit.Errorf(exit.Usage, "a body and -l exclude each other")
	case p.Lines && p.BizID != "":
		return exit.Errorf(exit.Usage, "--biz-id belongs to one message: it and -l exclude each other")
	case p.InFlight < 1 || p.InFlight > inFlightMax:
		return exit.Errorf(exit.Usage, "--in-flight %d: from 1 to %d", p.InFlight, inFlightMax)
	case p.Body == nil && a.InIsTerminal && !p.Lines:
		return exit.Errorf(exit.Usage, "no body: give it as an argument or on standard input")
	}
	if p.Lines {
		return p.lines(ctx, a, g, options)
	}
	options.BizID = p.BizID
	return p.one(ctx, a, g, options)
}

// inFlightMax stays well within the window of a session.
const inFlightMax = 32_768

// bodyBytesMax bounds what is read from standard input: the largest body that
// a cluster can be set to take. The cluster's own limit is usually lower.
const bodyBytesMax = 8 << 20

// receiptRow is how a receipt is shown.
type receiptRow struct {
	Message   string `json:"message"`
	ID        string `json:"inner_msg_id"`
	Duplicate bool   `json:"duplicate"`
	Attempts  int    `json:"attempts"`
}

func (p *pubCmd) one(ctx context.Context, a *app, g *globals, m client.Message) error {
	if p.Body != nil {
		m.Body = []byte(*p.Body)
	} else {
		b, err := io.ReadAll(io.LimitReader(a.In, bodyBytesMax+1))
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		if len(b) > bodyBytesMax {
			return exit.Errorf(exit.Failure, "%s: standard input has more than %d bytes, which no cluster takes: store it elsewhere and publish where", wire.CodeTooLarge, bodyBytesMax)
		}
		m.Body = b
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		prod, err := p.producer(ctx, c)
		if err != nil {
			return err
		}
		r, err := prod.Publish(ctx, m)
		if err != nil {
			// What is left to do is a seal in the background; it has had its time.
			return publishError(ctx, c, err, p.Queue)
		}
		if err := prod.Close(ctx); err != nil {
			a.Note("the message is stored, but its session could not be closed: %s", err)
		}
		if p.table() {
			_, err = fmt.Fprintln(a.Out, r.Message)
		} else {
			err = console.WriteJSON(a.Out, p.format(), receiptRow{r.Message.String(), r.ID.String(), r.Duplicate, r.Attempts})
		}
		if err != nil {
			return fmt.Errorf("the message is stored as %s, and only its id could not be written: %w", r.Message, err)
		}
		return nil
	})
}

func (p *pubCmd) producer(ctx context.Context, c *client.Client) (*client.Producer, error) {
	if p.Create {
		_, err := c.Admin().CreateQueue(ctx, p.Queue, client.QueueSettings{})
		if err != nil && !errors.Is(err, client.ErrConflict) { // a conflict: it exists with settings of its own
			return nil, err
		}
	}
	opts := []client.ProducerOption{client.WithMaxInFlight(p.InFlight)}
	if p.Session != "" {
		opts = append(opts, client.WithName(p.Session))
	}
	return c.NewProducer(p.Queue, opts...)
}

// publishError adds to why a message was not confirmed what to do about it.
func publishError(ctx context.Context, c *client.Client, err error, queue string) error {
	var unknown *client.OutcomeUnknownError
	if errors.As(err, &unknown) {
		e := &exit.Error{Code: exit.Unknown, Err: err}
		if !unknown.Final {
			e.Err = fmt.Errorf("%w (%s)", err, unknown.ID)
			e.Hint = "it may be stored or not: look with  onceq outcome " + unknown.ID.String() + "\nor settle it for good with  onceq outcome --seal " + unknown.ID.String()
		}
		return e
	}
	return noQueue(ctx, c, err, queue)
}

// parseHeaders reads NAME=VALUE. Names may repeat; order is kept.
func parseHeaders(in []string) ([]client.Header, error) {
	var hs []client.Header
	for _, s := range in {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, exit.Errorf(exit.Usage, "header %q is not NAME=VALUE", s)
		}
		hs = append(hs, client.Header{Name: name, Value: value})
	}
	return hs, nil
}

// summary is what a stream of publishes came to.
type summary struct {
	Published     uint64  `json:"published"`
	Duplicates    uint64  `json:"duplicates"`
	Failed        uint64  `json:"failed"`
	Unknown       uint64  `json:"unknown"`
	Retransmitted uint64  `json:"retransmitted"`
	LeaderChanges uint64  `json:"leader_changes"`
	Seconds       float64 `json:"seconds"`
	PerSecond     float64 `json:"per_second"`
	P50           float64 `json:"p50_ms"`
	P99           float64 `json:"p99_ms"`
}

func (s summary) String() string {
	text := fmt.Sprintf("%s published, %s duplicates, %s/s, p50 %s p99 %s, %s, %s retransmitted",
		console.Count(s.Published), console.Count(s.Duplicates), console.Count(uint64(s.PerSecond)),
		console.Millis(time.Duration(s.P50*1e6)), console.Millis(time.Duration(s.P99*1e6)),
		plural(s.LeaderChanges, "leader change"), console.Count(s.Retransmitted))
	if s.Failed > 0 {
		text += fmt.Sprintf(", %s NOT STORED", console.Count(s.Failed))
	}
	if s.Unknown > 0 {
		text += fmt.Sprintf(", %s OUTCOME UNKNOWN", console.Count(s.Unknown))
	}
	return text
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return console.Count(n) + " " + what + "s"
}
