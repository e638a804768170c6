package main

import (
	"context"
	"fmt"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
)

type traceCmd struct {
	outputFlag
	ID string `arg:"" help:"Id of the message, such as orders/17."`
}

// Help says what is kept.
func (*traceCmd) Help() string {
	return `Told from the replicated state, so it survives failovers. For a message that has
not failed yet that is when it was stored, its state, and who holds it. From its
first failure on the newest eight events are kept with it, also when it becomes a
dead letter. What is acked, deleted, expired or purged leaves no trace but the
counters of its queue.

Examples:
  onceq trace orders/17
  onceq trace orders.dead/3 -o json`
}

// Run tells the life of a message.
func (t *traceCmd) Run(ctx context.Context, a *app, g *globals) error {
	m, err := a.message(ctx, g, t.ID)
	if err != nil {
		return err
	}
	if !t.table() {
		return console.WriteJSON(a.Out, t.format(), toMessageRow(&m))
	}
	for _, line := range life(&m, time.Now()) {
		if _, err := fmt.Fprintln(a.Out, line); err != nil {
			return err
		}
	}
	return nil
}

// eventsKept is how many events the cluster keeps of one message.
const eventsKept = 8

// life tells a message's life, oldest first.
func life(m *client.MessageInfo, now time.Time) []string {
	var lines []string
	const layout = "2006-01-02 15:04:05"
	still := stoodStill(m, now)
	at := func(ago time.Duration, what, format string, args ...any) {
		when, about := now.Add(-ago), " "
		switch {
		case ago == 0 || still == 0:
		case what == "stored":
			when = time.Unix(0, m.PublishedAt)
		default:
			about = "~"
		}
		lines = append(lines, fmt.Sprintf("%s%s %-13s %s", when.Format(layout), about, what, fmt.Sprintf(format, args...)))
	}
	note := func(format string, args ...any) {
		lines = append(lines, fmt.Sprintf("%19s  %s", "", fmt.Sprintf(format, args...)))
	}
	if m.Content != nil {
		lines = append(lines, fmt.Sprintf("%s  %-13s %s", time.Unix(0, m.PublishedAt).Format(layout), "published", bodyText(m)))
	}
	if m.Origin() != "" {
		note("came from %s, after %s there", m.Origin(), plural(uint64(m.OriginAttempts), "attempt"))
	}
	stored := false
	if len(m.Events) == eventsKept {
		at(m.Age, "stored", "as %s", m.ID())
		stored = true
		note("older events are not kept")
	}
	for _, e := range m.Events {
		if !stored && e.Ago <= m.Age {
			at(m.Age, "stored", "as %s", m.ID())
			stored = true
		}
		text := e.Text
		if e.Consumer != 0 {
			text = fmt.Sprintf("consumer #%d, attempt %d", e.Consumer, e.Attempt)
			if e.Text != "" {
				text += ": " + e.Text
			}
		}
		at(e.Ago, e.Kind.String(), "%s", clip(text, 200))
	}
	if !stored {
		at(m.Age, "stored", "as %s", m.ID())
	}
	if len(m.Events) == 0 {
		note("it has not failed: its deliveries are counted and not kept")
	}
	switch m.State {
	case client.Leased:
		at(0, "leased now", "by %s (consumer %s, delivery %d), attempt %d, for %s more", holder(m), m.Consumer, m.Number, m.Attempts, console.Age(m.Deadline))
	case client.Delayed:
		at(0, "delayed now", "for %s more, %s so far", console.Age(m.Due), plural(uint64(m.Attempts), "attempt"))
	case client.Blocked:
		at(0, "ready now", "behind an earlier message of ordering key %q", m.OrderingKey)
	case client.Parked:
		at(0, "parked now", "%s", because(m))
		note("go on with  onceq message requeue %s", m.ID())
	default:
		at(0, "ready now", "%s so far", plural(uint64(m.Attempts), "attempt"))
	}
	if m.Expires > 0 {
		note("gone in %s if nobody takes it", console.Age(m.Expires))
	}
	if still > 0 {
		note("cluster time, by which the times with ~ are reckoned, has stayed %s behind the clock here since it was stored: they may be up to that much too late", console.Age(still))
	}
	return lines
}

// stoodStill is by how much cluster time, in which ages are, has stayed behind the clock
// since the message was stored: it stands still while nobody leads, and the clock here may
// not be that of the leader that stored it. 0 when that is little, and for a message that
// came from elsewhere or has no content to tell.
func stoodStill(m *client.MessageInfo, now time.Time) time.Duration {
	const clocks = 2 * time.Second
	if m.Content == nil || m.Origin() != "" {
		return 0
	}
	if still := now.Sub(time.Unix(0, m.PublishedAt)) - m.Age; still > clocks {
		return still
	}
	return 0
}
