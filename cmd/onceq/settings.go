package main

import (
	"context"
	"fmt"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

// settingsFlags are the settings of a queue. What is not given keeps its default,
// or what the queue has.
type settingsFlags struct {
	LeaseTime     *time.Duration `help:"How long a consumer holds a message without a word before it is delivered again, 1s to 12h. Default 30s." placeholder:"TIME"`
	LengthMax     *uint64        `help:"Messages that the queue holds at most (ready, delayed, leased); publishes beyond are refused. 0, the default: no limit." placeholder:"N"`
	BytesMax      *size          `help:"Bytes of messages not delivered yet, such as 512MiB; publishes beyond are refused. Dead letters do not count: bound their queue by --length-max. 0, the default: no limit." placeholder:"BYTES"`
	TTL           *time.Duration `name:"ttl" help:"How long a message may wait for a consumer; then it is gone. At most 8760h, a year; 0, the default: for ever." placeholder:"TIME"`
	DeliveryLimit *uint32        `help:"Attempts that may fail before a message is given up. 0, the default: no limit." placeholder:"N"`
	DeadLetter    *string        `help:"Queue that takes what is given up. Empty, the default: it is parked in place." placeholder:"QUEUE"`
	Backoff       *time.Duration `help:"First delay after a message was given back; it doubles with each failure. Default 100ms, 0: none." placeholder:"TIME"`
	BackoffMax    *time.Duration `help:"Longest such delay, at most 24h. Default 1m." placeholder:"TIME"`
	SingleActive  *bool          `negatable:"" help:"Give messages only to the consumer that came first; the next takes over when it has gone."`
}

// check refuses what a queue's settings cannot say: there, 0 is the default.
func (f *settingsFlags) check() error {
	if f.LeaseTime != nil && *f.LeaseTime == 0 {
		return exit.Errorf(exit.Usage, "--lease-time %v: from 1s to 12h; for the default leave it away", *f.LeaseTime)
	}
	return nil
}

// apply changes what was given.
func (f *settingsFlags) apply(s *client.QueueSettings) {
	set(&s.LeaseTime, f.LeaseTime)
	set(&s.LengthMax, f.LengthMax)
	if f.BytesMax != nil {
		s.BytesMax = uint64(*f.BytesMax)
	}
	set(&s.TTL, f.TTL)
	set(&s.DeliveryLimit, f.DeliveryLimit)
	set(&s.DeadLetter, f.DeadLetter)
	set(&s.BackoffMax, f.BackoffMax)
	set(&s.SingleActive, f.SingleActive)
	if f.Backoff != nil {
		s.BackoffMin = *f.Backoff
		if *f.Backoff <= 0 {
			s.BackoffMin = -1 // none; 0 is the default
		}
	}
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func limitText(n uint64) string {
	if n == 0 {
		return "no limit of length"
	}
	return "at most " + plural(n, "message")
}

// settingsText names the settings for people.
func settingsText(s client.QueueSettings) [][2]string {
	or := func(none bool, text, value string) string {
		if none {
			return text
		}
		return value
	}
	return [][2]string{
		{"lease time", s.LeaseTime.String()},
		{"length", limitText(s.LengthMax)},
		{"bytes", or(s.BytesMax == 0, "no limit", "at most "+console.Bytes(s.BytesMax))},
		{"time to live", or(s.TTL == 0, "for ever", s.TTL.String())},
		{"delivery limit", or(s.DeliveryLimit == 0, "none", fmt.Sprintf("given up after %s", plural(uint64(s.DeliveryLimit), "failure")))},
		{"dead letters", or(s.DeadLetter == "", "parked here", "go to "+s.DeadLetter)},
		{"backoff", or(s.BackoffMin <= 0, "none", fmt.Sprintf("%s, doubling to %s", s.BackoffMin, s.BackoffMax))},
		{"consumers at a time", or(!s.SingleActive, "all", "one, the others wait")},
	}
}

type queueUpdateCmd struct {
	outputFlag
	settingsFlags
	Queue string `arg:"" help:"Name of the queue."`
}

// Run changes the settings that were given.
func (q *queueUpdateCmd) Run(ctx context.Context, a *app, g *globals) error {
	if q.settingsFlags == (settingsFlags{}) {
		return exit.Errorf(exit.Usage, "nothing to change: see  onceq queue update --help")
	}
	if err := q.check(); err != nil {
		return err
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		info, err := c.Admin().UpdateQueue(ctx, q.Queue, q.apply)
		if err != nil {
			return noQueue(ctx, c, err, q.Queue)
		}
		if !q.table() {
			return console.WriteJSON(a.Out, q.format(), toQueueRow(info))
		}
		a.Note("%s, revision %d:", info.Name, info.Revision)
		for _, s := range settingsText(info.Settings) {
			a.Note("  %-20s %s", s[0], s[1])
		}
		return nil
	})
}

type queuePauseCmd struct {
	Queue string `arg:"" help:"Name of the queue."`
}

// Run pauses the queue.
func (q *queuePauseCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		info, err := c.Admin().PauseQueue(ctx, q.Queue)
		if err != nil {
			return noQueue(ctx, c, err, q.Queue)
		}
		a.Note("%s is paused: %s ready, %s still leased. Go on with  onceq queue resume %s", info.Name,
			console.Count(info.Counts.Ready), console.Count(info.Counts.Leased), info.Name)
		return nil
	})
}

type queueResumeCmd struct {
	Queue string `arg:"" help:"Name of the queue."`
}

// Run resumes the queue.
func (q *queueResumeCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		info, err := c.Admin().ResumeQueue(ctx, q.Queue)
		if err != nil {
			return noQueue(ctx, c, err, q.Queue)
		}
		a.Note("%s hands out again", info.Name)
		return nil
	})
}
