package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

type messageCmd struct {
	Show    messageShowCmd    `cmd:"" help:"Show one message: body, state, who holds it, what it has behind it."`
	Delete  messageDeleteCmd  `cmd:"" help:"Remove messages for good. What a consumer holds is left alone."`
	Requeue messageRequeueCmd `cmd:"" help:"Make parked or delayed messages ready now."`
	Release messageReleaseCmd `cmd:"" help:"Take messages from the consumers that hold them; they are ready at once."`
	Move    messageMoveCmd    `cmd:"" help:"Move messages to the end of another queue."`
}

// Help shows examples.
func (*messageCmd) Help() string {
	return `A message is named by its place: orders/17, or orders/p3.17 with priority 3.
Repeating a command is harmless: what was done before is not here any more, or
unchanged.

Exit code 3: none of the messages is here; 4: some could not be done (held by a
consumer, or their target does not exist or is full).

Examples:
  onceq message show orders/17
  onceq message delete orders/17 orders/p3.4
  onceq message requeue orders/17
  onceq message release orders/17
  onceq message move orders.dead/3 --to-origin
  onceq message move orders/17 --to orders.later`
}

type messageShowCmd struct {
	outputFlag
	ID string `arg:"" help:"Id of the message, such as orders/17."`
}

// Run shows one message.
func (m *messageShowCmd) Run(ctx context.Context, a *app, g *globals) error {
	info, err := a.message(ctx, g, m.ID)
	if err != nil {
		return err
	}
	if !m.table() {
		return console.WriteJSON(a.Out, m.format(), toMessageRow(&info))
	}
	grid := console.NewGrid("MESSAGE", info.ID())
	for _, r := range describeMessage(&info) {
		grid.Row(r[0], r[1])
	}
	_, err = grid.WriteTo(a.Out)
	return err
}

// message looks at one message by its id.
func (a *app) message(ctx context.Context, g *globals, id string) (info client.MessageInfo, err error) {
	queue, at, err := client.ParseMessageID(id)
	if err != nil {
		return info, &exit.Error{Code: exit.Usage, Err: err}
	}
	err = a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		info, err = c.Admin().Message(ctx, queue, at)
		if errors.Is(err, client.ErrNoMessage) {
			return exit.Hint(err, "what is acked, deleted, expired or purged leaves no trace but the queue's counters: see  onceq queue show "+queue)
		}
		return noQueue(ctx, c, err, queue)
	})
	return info, err
}

// describeMessage names what is known of a message, for people.
func describeMessage(m *client.MessageInfo) [][2]string {
	var rows [][2]string
	row := func(name, format string, args ...any) {
		rows = append(rows, [2]string{name, fmt.Sprintf(format, args...)})
	}
	r := toMessageRow(m)
	row("state", "%s", m.State)
	switch m.State {
	case client.Leased:
		row("held by", "%s, consumer %s, delivery %d, for %s more", holder(m), m.Consumer, m.Number, console.Age(m.Deadline))
	case client.Delayed:
		row("due in", "%s", console.Age(m.Due))
	}
	row("attempts", "%d, of which %d failed", m.Attempts, m.Failures)
	row("age", "%s", console.Age(m.Age))
	if m.Expires > 0 {
		row("gone in", "%s", console.Age(m.Expires))
	}
	if r.Priority > 0 {
		row("priority", "%d", r.Priority)
	}
	if r.OrderingKey != "" {
		row("ordering key", "%s", r.OrderingKey)
	}
	if m.Reason != "" {
		row("given up since", "%s", m.Reason)
	}
	if m.Origin() != "" {
		row("came from", "%s, after %s there", m.Origin(), plural(uint64(m.OriginAttempts), "attempt"))
	}
	if m.FirstError != "" {
		row("first error", "%s", clip(m.FirstError, 200))
	}
	if m.LastError != "" {
		row("last error", "%s", clip(m.LastError, 200))
	}
	if c := m.Content; c != nil {
		row("published at", "%s", r.PublishedAt.Local().Format("2006-01-02 15:04:05.000"))
		if c.BizID != "" {
			row("biz-id", "%s", c.BizID)
		}
		for _, h := range c.Headers {
			row("header", "%s=%s", h.Name, clip(h.Value, 200))
		}
		row("body", "%s", bodyText(m))
	}
	return rows
}

// edit runs one verb on messages of any queues and tells what became of each.
// target is the queue that they go to, if the verb has one.
func (a *app) edit(ctx context.Context, g *globals, ids []string, did, target string,
	do func(ctx context.Context, admin *client.Admin, queue string, at ...client.Place) ([]client.EditState, error)) error {
	// Each message is looked at first: an edit is for what it is now, and leaves it
	// alone when it has been handed out or has come back by then.
	type group struct {
		queue string
		at    []client.Place
		ids   []string
	}
	var groups []*group
	for _, id := range ids {
		queue, at, err := client.ParseMessageID(id)
		if err != nil {
			return &exit.Error{Code: exit.Usage, Err: err}
		}
		if queue == target {
			return exit.Errorf(exit.Usage, "--to %s: %s is in that queue: name another", target, id)
		}
		var in *group
		for _, have := range groups {
			if have.queue == queue {
				in = have
			}
		}
		if in == nil {
			in = &group{queue: queue}
			groups = append(groups, in)
		}
		in.at, in.ids = append(in.at, at), append(in.ids, id)
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		here, failed := 0, 0
		for _, in := range groups {
			for i := range in.at {
				m, err := c.Admin().Message(ctx, in.queue, in.at[i])
				switch {
				case err == nil:
					in.at[i] = m.Place()
				case !errors.Is(err, client.ErrNoMessage):
					return noQueue(ctx, c, err, in.queue)
				}
			}
			states, err := do(ctx, c.Admin(), in.queue, in.at...)
			if err != nil {
				return noQueue(ctx, c, err, in.queue, target)
			}
			for i, s := range states {
				a.Note("%s: %s", in.ids[i], editText(s, did))
				if s != client.EditNotHere {
					here++
				}
				if s == client.EditLeased || s == client.EditRefused || s == client.EditChanged || s == client.EditCapped {
					failed++
				}
			}
		}
		switch {
		case failed > 0:
			return &silent{exit.Conflict}
		case here == 0:
			return &silent{exit.NotFound}
		}
		return nil
	})
}

func editText(s client.EditState, did string) string {
	switch s {
	case client.EditDone:
		return did
	case client.EditNotHere:
		return "not here (any more): never stored, gone, or done before"
	case client.EditLeased:
		return "left alone: a consumer holds it (see  onceq message release)"
	case client.EditUnchanged:
		return "unchanged: there is nothing to do in its state"
	case client.EditChanged:
		return "left alone: it was handed out or has come back since it was looked at"
	case client.EditCapped:
		return "not done: it would need a record, and the group has as many as it allows (see  onceq errors 2016)"
	case client.EditRefused:
		return "not done: where it was to go does not exist or is full, or it did not come from anywhere"
	}
	return s.String()
}

type messageDeleteCmd struct {
	destructive
	IDs []string `arg:"" name:"id" help:"Ids of the messages."`
}

// Run deletes messages.
func (m *messageDeleteCmd) Run(ctx context.Context, a *app, g *globals) error {
	if ok, err := m.confirm(a, "delete "+strings.Join(m.IDs, ", ")); !ok {
		return err
	}
	return a.edit(ctx, g, m.IDs, "deleted", "", func(ctx context.Context, admin *client.Admin, queue string, at ...client.Place) ([]client.EditState, error) {
		return admin.DeleteMessages(ctx, queue, at...)
	})
}

type messageRequeueCmd struct {
	IDs []string `arg:"" name:"id" help:"Ids of the messages."`
}

// Run requeues messages.
func (m *messageRequeueCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.edit(ctx, g, m.IDs, "ready", "", func(ctx context.Context, admin *client.Admin, queue string, at ...client.Place) ([]client.EditState, error) {
		return admin.RequeueMessages(ctx, queue, at...)
	})
}

type messageReleaseCmd struct {
	destructive
	IDs []string `arg:"" name:"id" help:"Ids of the messages."`
}

// Run releases messages.
func (m *messageReleaseCmd) Run(ctx context.Context, a *app, g *globals) error {
	if ok, err := m.confirm(a, "take from their consumers, which may be at work on them, "+strings.Join(m.IDs, ", ")); !ok {
		return err
	}
	return a.edit(ctx, g, m.IDs, "released", "", func(ctx context.Context, admin *client.Admin, queue string, at ...client.Place) ([]client.EditState, error) {
		return admin.ReleaseMessages(ctx, queue, at...)
	})
}

// targetFlags say where messages go.
type targetFlags struct {
	To       string `help:"Queue to move to." placeholder:"QUEUE" xor:"target" required:""`
	ToOrigin bool   `help:"Move each dead letter to the queue that it came from." xor:"target" required:""`
}

type messageMoveCmd struct {
	targetFlags
	IDs []string `arg:"" name:"id" help:"Ids of the messages."`
}

// Run moves messages.
func (m *messageMoveCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.edit(ctx, g, m.IDs, "moved", m.To, func(ctx context.Context, admin *client.Admin, queue string, at ...client.Place) ([]client.EditState, error) {
		return admin.MoveMessages(ctx, queue, m.To, at...)
	})
}
