package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

type queueCmd struct {
	Create    queueCreateCmd    `cmd:"" help:"Create a queue if it does not exist."`
	Ls        queueLsCmd        `cmd:"" help:"List the queues."`
	Show      queueShowCmd      `cmd:"" help:"Show one queue with its settings and all its counters."`
	Update    queueUpdateCmd    `cmd:"" help:"Change settings of a queue while it works."`
	Pause     queuePauseCmd     `cmd:"" help:"Stop handing out messages; publishes are still taken."`
	Resume    queueResumeCmd    `cmd:"" help:"Hand out messages again."`
	Peek      queuePeekCmd      `cmd:"" help:"Look at messages without touching them."`
	Consumers queueConsumersCmd `cmd:"" help:"Show who consumes, and how much each holds."`
	Redrive   queueRedriveCmd   `cmd:"" help:"Send dead letters and parked messages back to work."`
	Purge     queuePurgeCmd     `cmd:"" help:"Remove every message of a queue."`
	Delete    queueDeleteCmd    `cmd:"" help:"Delete a queue with everything in it."`
}

// Help shows examples.
func (*queueCmd) Help() string {
	return `Examples:
  onceq queue create orders.dead
  onceq queue create orders --delivery-limit 5 --dead-letter orders.dead
  onceq queue update orders --lease-time 1m --length-max 1000000
  onceq queue ls
  onceq queue show orders -o json
  onceq queue pause orders
  onceq queue resume orders
  onceq queue peek orders --limit 5 --bodies
  onceq queue peek orders --state leased
  onceq queue consumers orders
  onceq queue redrive orders.dead --to-origin --where 'reason~timeout' --rate 50/s --dry-run
  onceq queue purge orders --dry-run
  onceq queue delete orders --yes`
}

type queueCreateCmd struct {
	outputFlag
	settingsFlags
	Queue string `arg:"" help:"Name of the queue."`
}

// Run creates the queue.
func (q *queueCreateCmd) Run(ctx context.Context, a *app, g *globals) error {
	if err := q.check(); err != nil {
		return err
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		var s client.QueueSettings
		q.apply(&s)
		info, err := c.Admin().CreateQueue(ctx, q.Queue, s)
		if err != nil {
			return err
		}
		if !q.table() {
			return console.WriteJSON(a.Out, q.format(), toQueueRow(info))
		}
		a.Note("%s is there: lease time %s, %s", info.Name, info.Settings.LeaseTime, limitText(info.Settings.LengthMax))
		return nil
	})
}

// queueRow is how a queue is written as JSON: times in seconds, flat names.
type queueRow struct {
	Name               string  `json:"queue"`
	Number             uint64  `json:"number"`
	Revision           uint64  `json:"revision"`
	LeaseSeconds       float64 `json:"lease_seconds"`
	LengthMax          uint64  `json:"length_max"`
	BytesMax           uint64  `json:"bytes_max"`
	TTLSeconds         float64 `json:"ttl_seconds"`
	DeliveryLimit      uint32  `json:"delivery_limit"`
	DeadLetter         string  `json:"dead_letter"`
	BackoffSeconds     float64 `json:"backoff_seconds"`
	BackoffMaxSeconds  float64 `json:"backoff_max_seconds"`
	SingleActive       bool    `json:"single_active"`
	Paused             bool    `json:"paused"`
	Consumers          uint64  `json:"consumers"`
	Bytes              uint64  `json:"bytes"`
	OldestSeconds      float64 `json:"oldest_seconds"`
	Stored             uint64  `json:"stored"`
	Ready              uint64  `json:"ready"`
	Leased             uint64  `json:"leased"`
	Delayed            uint64  `json:"delayed"`
	Parked             uint64  `json:"parked"`
	Acked              uint64  `json:"acked"`
	Expired            uint64  `json:"expired"`
	DeadLettered       uint64  `json:"dead_lettered"`
	Deleted            uint64  `json:"deleted"`
	Purged             uint64  `json:"purged"`
	Moved              uint64  `json:"moved"`
	Delivered          uint64  `json:"delivered"`
	RedeliveredExpired uint64  `json:"redelivered_expired"`
	RedeliveredNacked  uint64  `json:"redelivered_nacked"`
	RedeliveredGone    uint64  `json:"redelivered_gone"`
	RedeliveredLeft    uint64  `json:"redelivered_left"`
	DuplicatesRefused  uint64  `json:"duplicates_refused"`
}

func toQueueRow(i client.QueueInfo) queueRow {
	n := i.Counts
	return queueRow{
		Name: i.Name, Number: i.Number, Revision: i.Revision,
		LeaseSeconds: i.Settings.LeaseTime.Seconds(), LengthMax: i.Settings.LengthMax,
		BytesMax: i.Settings.BytesMax, TTLSeconds: i.Settings.TTL.Seconds(),
		DeliveryLimit: i.Settings.DeliveryLimit, DeadLetter: i.Settings.DeadLetter,
		BackoffSeconds: max(0, i.Settings.BackoffMin.Seconds()), BackoffMaxSeconds: i.Settings.BackoffMax.Seconds(),
		SingleActive: i.Settings.SingleActive, Paused: i.Paused,
		Consumers: i.Consumers, Bytes: i.Bytes, OldestSeconds: i.OldestAge.Seconds(),
		Stored: n.Stored, Ready: n.Ready, Leased: n.Leased, Delayed: n.Delayed, Parked: n.Parked,
		Acked: n.Acked, Expired: n.Expired, DeadLettered: n.DeadLettered, Deleted: n.Deleted, Purged: n.Purged, Moved: n.Moved,
		Delivered:          n.Delivered,
		RedeliveredExpired: n.RedeliveredExpired, RedeliveredNacked: n.RedeliveredNacked,
		RedeliveredGone: n.RedeliveredGone, RedeliveredLeft: n.RedeliveredLeft,
		DuplicatesRefused: n.DuplicatesRefused,
	}
}

type queueLsCmd struct{ outputFlag }

// Run lists the queues.
func (q *queueLsCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		infos, err := c.Admin().Queues(ctx)
		if err != nil {
			return err
		}
		if !q.table() {
			var rows []queueRow
			for _, i := range infos {
				rows = append(rows, toQueueRow(i))
			}
			return console.WriteList(a.Out, q.format(), rows)
		}
		grid := console.NewGrid("QUEUE", ">READY", ">LEASED", ">DELAYED", ">PARKED", ">DEAD", ">OLDEST", ">CONSUMERS", ">STORED", ">ACKED")
		for _, i := range infos {
			n := i.Counts
			name := i.Name
			if i.Paused {
				name += " (paused)"
			}
			grid.Row(name, console.Count(n.Ready), console.Count(n.Leased), console.Count(n.Delayed), console.Count(n.Parked), console.Count(n.DeadLettered),
				console.Age(i.OldestAge), console.Count(i.Consumers), console.Count(n.Stored), console.Count(n.Acked))
		}
		_, err = grid.WriteTo(a.Out)
		return err
	})
}

type queueShowCmd struct {
	outputFlag
	Queue string `arg:"" help:"Name of the queue."`
}

// Run shows one queue.
func (q *queueShowCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		i, err := c.Admin().Queue(ctx, q.Queue)
		if err != nil {
			return noQueue(ctx, c, err, q.Queue)
		}
		if !q.table() {
			return console.WriteJSON(a.Out, q.format(), toQueueRow(i))
		}
		n := i.Counts
		grid := console.NewGrid("QUEUE", i.Name)
		grid.Row("number", fmt.Sprintf("%d (revision %d)", i.Number, i.Revision))
		if i.Paused {
			grid.Row("paused", "yes: nothing is handed out")
		}
		for _, s := range settingsText(i.Settings) {
			grid.Row(s[0], s[1])
		}
		grid.Row("bytes not delivered yet", console.Bytes(i.Bytes))
		grid.Row("consumers", console.Count(i.Consumers))
		grid.Row("oldest message", console.Age(i.OldestAge))
		for _, r := range []struct {
			name string
			n    uint64
		}{
			{"stored", n.Stored}, {"  ready", n.Ready}, {"  leased", n.Leased}, {"  delayed", n.Delayed}, {"  parked", n.Parked},
			{"  acked", n.Acked}, {"  expired", n.Expired}, {"  gone to the dead-letter queue", n.DeadLettered},
			{"  deleted", n.Deleted}, {"  purged", n.Purged}, {"  moved", n.Moved},
			{"delivered", n.Delivered}, {"ready again: lease ran out", n.RedeliveredExpired}, {"ready again: nacked", n.RedeliveredNacked},
			{"ready again: consumer gone", n.RedeliveredGone}, {"ready again: consumer left", n.RedeliveredLeft},
			{"duplicates refused", n.DuplicatesRefused},
		} {
			grid.Row(r.name, console.Count(r.n))
		}
		_, err = grid.WriteTo(a.Out)
		return err
	})
}

// destructive is for verbs that ask first.
type destructive struct {
	Yes    bool `short:"y" help:"Do not ask."`
	DryRun bool `help:"Say what would happen and do nothing."`
}

// errRefused is what a user who said no gets.
var errRefused = errors.New("not confirmed: nothing was changed")

// confirm says what would happen and asks. It reports whether to go on.
func (d destructive) confirm(a *app, what string) (bool, error) {
	if d.DryRun {
		a.Note("would %s. Nothing was changed; without --dry-run it asks, with --yes it does not.", what)
		return false, nil
	}
	if d.Yes {
		return true, nil
	}
	if !a.InIsTerminal {
		return false, &exit.Error{Code: exit.Usage, Err: fmt.Errorf("this would %s, and nobody can be asked here", what), Hint: "say so with --yes, or look first with --dry-run"}
	}
	fmt.Fprintf(a.Err, "This will %s. Type yes to go on: ", what)
	answer, err := bufio.NewReader(io.LimitReader(a.In, 1024)).ReadString('\n')
	if err != nil && answer == "" {
		return false, errRefused
	}
	if s := strings.ToLower(strings.TrimSpace(answer)); s != "yes" && s != "y" {
		return false, errRefused
	}
	return true, nil
}

type queuePurgeCmd struct {
	destructive
	Queue string `arg:"" help:"Name of the queue."`
}

// Run purges the queue.
func (q *queuePurgeCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.removing(ctx, g, q.Queue, q.destructive, "remove %s from %s", "%s: %s removed", (*client.Admin).PurgeQueue)
}

type queueDeleteCmd struct {
	destructive
	Force bool   `help:"Also when it takes the dead letters of another queue, which are parked there from then on."`
	Queue string `arg:"" help:"Name of the queue."`
}

// Run deletes the queue.
func (q *queueDeleteCmd) Run(ctx context.Context, a *app, g *globals) error {
	do := (*client.Admin).DeleteQueue
	if q.Force {
		do = (*client.Admin).ForceDeleteQueue
	}
	return a.removing(ctx, g, q.Queue, q.destructive, "remove %s and delete the queue %s", "%s: deleted, %s removed", do)
}

// removing asks with the numbers of now, then does it. The time that a person
// takes to answer does not count.
func (a *app) removing(ctx context.Context, g *globals, queue string, d destructive, will, did string,
	do func(*client.Admin, context.Context, string) (uint64, error)) error {
	var what string
	err := a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		i, err := c.Admin().Queue(ctx, queue)
		if err != nil {
			return noQueue(ctx, c, err, queue)
		}
		n := i.Counts
		what = fmt.Sprintf(will, fmt.Sprintf("%s (%s ready, %s leased, %s delayed, %s parked)", plural(n.Ready+n.Leased+n.Delayed+n.Parked, "message"),
			console.Count(n.Ready), console.Count(n.Leased), console.Count(n.Delayed), console.Count(n.Parked)), queue)
		return nil
	})
	if err != nil {
		return err
	}
	if ok, err := d.confirm(a, what); !ok {
		return err
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		n, err := do(c.Admin(), ctx, queue)
		if err != nil {
			return noQueue(ctx, c, err, queue)
		}
		a.Note(did, queue, plural(n, "message"))
		return nil
	})
}
