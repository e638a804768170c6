package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/format"
)

// states are what users call the states of messages.
var states = map[string]client.MessageState{
	"ready": client.Ready, "blocked": client.Blocked, "delayed": client.Delayed, "leased": client.Leased, "parked": client.Parked,
}

type queuePeekCmd struct {
	outputFlag
	Queue  string `arg:"" help:"Name of the queue."`
	State  string `help:"Which messages: ready, blocked (behind an earlier one of their ordering key), delayed, leased or parked." enum:"ready,blocked,delayed,leased,parked" default:"ready"`
	Limit  int    `help:"How many at most." default:"20" placeholder:"N"`
	From   string `help:"First message to look at, such as orders/17." placeholder:"ID"`
	Bodies bool   `short:"b" help:"Show the messages themselves too."`
}

// Run looks.
func (q *queuePeekCmd) Run(ctx context.Context, a *app, g *globals) error {
	o := client.PeekOptions{State: states[q.State], Bodies: q.Bodies}
	if q.Limit < 1 {
		return exit.Errorf(exit.Usage, "--limit %d: at least 1", q.Limit)
	}
	if q.From != "" {
		queue, at, err := client.ParseMessageID(q.From)
		if err != nil {
			return &exit.Error{Code: exit.Usage, Err: err}
		}
		if queue != q.Queue {
			return exit.Errorf(exit.Usage, "--from %s is not in queue %s", q.From, q.Queue)
		}
		o.From = at
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		var found []client.MessageInfo
		more := true
		for more && len(found) < q.Limit {
			o.Limit = q.Limit - len(found)
			p, err := c.Admin().Peek(ctx, q.Queue, o)
			if err != nil {
				return noQueue(ctx, c, err, q.Queue)
			}
			found = append(found, p.Messages...)
			more, o.From = p.More, p.Next
		}
		if err := q.write(a, found); err != nil {
			return err
		}
		if more && len(found) > 0 {
			a.Note("there may be more: go on with  --from %s", nextID(q.Queue, o.From))
		}
		return nil
	})
}

func nextID(queue string, at client.Place) string {
	m := client.MessageInfo{Queue: queue}
	m.Lane, m.Offset = at.Lane, at.Offset
	return m.ID()
}

func (q *queuePeekCmd) write(a *app, found []client.MessageInfo) error {
	if !q.table() {
		rows := make([]messageRow, len(found))
		for i := range found {
			rows[i] = toMessageRow(&found[i])
		}
		return console.WriteList(a.Out, q.format(), rows)
	}
	columns := []string{"MESSAGE", "STATE", ">ATTEMPTS", ">FAILURES", ">AGE", "KEY", "ABOUT"}
	if q.Bodies {
		columns = append(columns, "BODY")
	}
	grid := console.NewGrid(columns...)
	for i := range found {
		m := &found[i]
		cells := []any{m.ID(), m.State, m.Attempts, m.Failures, console.Age(m.Age), clip(m.OrderingKey, 24), clip(about(m), 60)}
		if q.Bodies {
			cells = append(cells, bodyText(m))
		}
		grid.Row(cells...)
	}
	_, err := grid.WriteTo(a.Out)
	return err
}

// about is what matters of a message in its state.
func about(m *client.MessageInfo) string {
	switch m.State {
	case client.Delayed:
		return "due in " + console.Age(m.Due)
	case client.Leased:
		return fmt.Sprintf("held by %s for %s more", holder(m), console.Age(m.Deadline))
	}
	if m.Origin() != "" {
		return fmt.Sprintf("from %s: %s", m.Origin(), because(m))
	}
	if m.Reason != "" {
		return because(m)
	}
	return m.LastError
}

// because is why a message was given up, with the last error if there is one.
func because(m *client.MessageInfo) string {
	if m.LastError == "" {
		return m.Reason
	}
	return m.Reason + ": " + m.LastError
}

func holder(m *client.MessageInfo) string {
	if m.Label != "" {
		return m.Label
	}
	return m.Consumer.String()[:8]
}

func clip(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

func bodyText(m *client.MessageInfo) string {
	switch {
	case m.Content == nil:
		return "(gone)"
	case utf8.Valid(m.Content.Body):
		return clip(string(m.Content.Body), 80)
	}
	return fmt.Sprintf("(%s of no text)", console.Bytes(uint64(len(m.Content.Body))))
}

// messageRow is how a message is written as JSON.
type messageRow struct {
	ID             string  `json:"id"`
	Queue          string  `json:"queue"`
	State          string  `json:"state"`
	Attempts       uint32  `json:"attempts"`
	Failures       uint32  `json:"failures"`
	AgeSeconds     float64 `json:"age_seconds"`
	DueSeconds     float64 `json:"due_seconds,omitempty"`
	ExpiresSeconds float64 `json:"expires_seconds,omitempty"`
	format.Keys
	Holder         *holderRow      `json:"holder,omitempty"`
	Reason         string          `json:"reason,omitempty"`
	FirstError     string          `json:"first_error,omitempty"`
	LastError      string          `json:"last_error,omitempty"`
	Origin         string          `json:"origin,omitempty"`
	OriginAttempts uint32          `json:"origin_attempts,omitempty"`
	Events         []eventRow      `json:"events,omitempty"`
	PublishedAt    *time.Time      `json:"published_at,omitempty"`
	Priority       int             `json:"priority,omitempty"`
	Headers        []format.Header `json:"headers,omitempty"`
	Body           *string         `json:"body,omitempty"`
	BodyBase64     *string         `json:"body_base64,omitempty"`
}

type holderRow struct {
	Consumer string  `json:"consumer"`
	Label    string  `json:"label,omitempty"`
	Delivery uint64  `json:"delivery"`
	Seconds  float64 `json:"seconds_left"`
}

type eventRow struct {
	SecondsAgo float64 `json:"seconds_ago"`
	Event      string  `json:"event"`
	Attempt    uint32  `json:"attempt,omitempty"`
	Consumer   uint64  `json:"consumer,omitempty"`
	Text       string  `json:"text,omitempty"`
}

func toMessageRow(m *client.MessageInfo) messageRow {
	r := messageRow{
		ID: m.ID(), Queue: m.Queue, State: m.State.String(), Attempts: m.Attempts, Failures: m.Failures,
		AgeSeconds: m.Age.Seconds(), DueSeconds: m.Due.Seconds(), ExpiresSeconds: m.Expires.Seconds(),
		Keys: format.KeysOf("", m.OrderingKey), Reason: m.Reason, FirstError: m.FirstError, LastError: m.LastError,
		Origin: m.Origin(), OriginAttempts: m.OriginAttempts, Priority: int(m.Lane),
	}
	if m.State == client.Leased {
		r.Holder = &holderRow{m.Consumer.String(), m.Label, m.Number, m.Deadline.Seconds()}
	}
	for _, e := range m.Events {
		r.Events = append(r.Events, eventRow{e.Ago.Seconds(), e.Kind.String(), e.Attempt, e.Consumer, e.Text})
	}
	if c := m.Content; c != nil {
		at := time.Unix(0, m.PublishedAt).UTC()
		r.PublishedAt, r.Keys = &at, format.KeysOf(c.BizID, cmp.Or(m.OrderingKey, c.OrderingKey))
		r.Priority = c.Priority
		for _, h := range c.Headers {
			r.Headers = append(r.Headers, format.Header{Name: h.Name, Value: h.Value}.JSON())
		}
		if text := string(c.Body); utf8.ValidString(text) {
			r.Body = &text
		} else {
			b := base64.StdEncoding.EncodeToString(c.Body)
			r.BodyBase64 = &b
		}
	}
	return r
}

type queueConsumersCmd struct {
	outputFlag
	Queue string `arg:"" optional:"" help:"Name of the queue. Without it, the consumers of all."`
	Limit int    `help:"How many at most." default:"1000" placeholder:"N"`
	From  uint64 `help:"First consumer to list, by its number." placeholder:"NUMBER"`
}

type consumerRow struct {
	Number   uint64 `json:"number"`
	ID       string `json:"consumer"`
	Queue    string `json:"queue"`
	Label    string `json:"label"`
	Attached bool   `json:"attached"`
	Pulls    bool   `json:"pulls"`
	Credit   uint32 `json:"credit"`
	Held     uint32 `json:"held"`
	Given    uint64 `json:"given"`
}

// consumersPage is how many consumers are asked for at once.
const consumersPage = 1000

// consumers asks for consumers page by page, and for one more than the limit, to know
// whether there are more.
func consumers(ctx context.Context, c *client.Client, queue string, from uint64, limit int) (found []client.ConsumerInfo, more bool, err error) {
	for {
		page, err := c.Admin().Consumers(ctx, queue, from, consumersPage)
		if err != nil {
			return nil, false, err
		}
		found = append(found, page...)
		switch {
		case len(found) > limit:
			return found[:limit], limit > 0, nil
		case len(page) < consumersPage:
			return found, false, nil
		}
		from = page[len(page)-1].Ordinal + 1
	}
}

// Run lists consumers.
func (q *queueConsumersCmd) Run(ctx context.Context, a *app, g *globals) error {
	if q.Limit < 1 {
		return exit.Errorf(exit.Usage, "--limit %d: at least 1", q.Limit)
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		found, more, err := consumers(ctx, c, q.Queue, q.From, q.Limit)
		if err != nil {
			return noQueue(ctx, c, err, q.Queue)
		}
		if more {
			defer a.Note("there are more: go on with  --from %d", found[len(found)-1].Ordinal+1)
		}
		rows := make([]consumerRow, len(found))
		for i, f := range found {
			rows[i] = consumerRow{f.Ordinal, f.ID.String(), f.Queue, f.Label, f.Attached, f.Pulls, f.Credit, f.Held, f.Next - 1}
		}
		if !q.table() {
			return console.WriteList(a.Out, q.format(), rows)
		}
		grid := console.NewGrid(">NO", "CONSUMER", "QUEUE", "LABEL", "STATE", ">HELD", ">PREFETCH", ">GIVEN SO FAR")
		for _, r := range rows {
			state := "attached"
			prefetch := console.Count(r.Credit)
			switch {
			case r.Pulls:
				state, prefetch = "receives", "-"
			case !r.Attached:
				state = "cut off, in grace"
			}
			grid.Row(r.Number, r.ID[:8], r.Queue, clip(r.Label, 40), state, console.Count(r.Held), prefetch, console.Count(r.Given))
		}
		_, err = grid.WriteTo(a.Out)
		return err
	})
}
