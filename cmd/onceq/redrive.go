package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

type queueRedriveCmd struct {
	destructive
	targetFlags
	Queue string   `arg:"" help:"Queue that holds the dead letters, or parked messages."`
	Where []string `help:"Only messages where FIELD~REGEXP matches or FIELD=VALUE is equal; fields are reason, error, origin, key, biz-id, body. May be repeated: all must hold." placeholder:"FIELD~REGEXP" sep:"none"`
	ID    []string `name:"id" help:"Only this message; may be repeated." placeholder:"ID" sep:"none"`
	Rate  string   `help:"How many at most, such as 50/s. Default: as fast as it goes." placeholder:"N/s"`
}

// Help explains.
func (*queueRedriveCmd) Help() string {
	return `Sends what is ready or parked in QUEUE to the end of another queue, with its
failures counted from zero and its history kept. With --to-origin each dead letter
goes to the queue that it came from, and a message that was parked in its own
queue is made ready there. What consumers hold is left alone, and so is what
arrives meanwhile: a message that dies again is not sent twice by one run.

It goes in small steps, each of which happens once or not at all. When it is
interrupted, or a failover is too long, run it again: it goes on with the rest.

Exit code 4: some were not moved, since their target does not exist or is full.

Examples:
  onceq queue redrive orders.dead --to-origin --dry-run
  onceq queue redrive orders.dead --to-origin --where 'reason~timeout' --rate 50/s --yes
  onceq queue redrive orders.dead --to orders.later --where origin=orders
  onceq queue redrive orders --to-origin              # parked ones
  onceq queue redrive orders.dead --to-origin --id orders.dead/3 --yes`
}

// condition is one --where.
type condition struct {
	field string
	match func(value string) bool
}

var whereFields = []string{"reason", "error", "origin", "key", "biz-id", "body"}

var whereShape = regexp.MustCompile(`^\s*([a-z-]+)\s*(=~|~|=)\s*(.*?)\s*$`)

// parseWhere reads FIELD~REGEXP and FIELD=VALUE, also as FIELD =~ "REGEXP".
func parseWhere(s string) (condition, error) {
	parts := whereShape.FindStringSubmatch(s)
	if parts == nil || !slices.Contains(whereFields, parts[1]) {
		return condition{}, exit.Errorf(exit.Usage, "--where %q: write FIELD~REGEXP or FIELD=VALUE; fields are %s", s, strings.Join(whereFields, ", "))
	}
	value := parts[3]
	if text, err := strconv.Unquote(value); err == nil {
		value = text
	}
	if parts[2] == "=" {
		return condition{parts[1], func(v string) bool { return v == value }}, nil
	}
	re, err := regexp.Compile(value)
	if err != nil {
		return condition{}, exit.Errorf(exit.Usage, "--where %q: %v", s, err)
	}
	return condition{parts[1], re.MatchString}, nil
}

// holds says whether a message meets the condition.
func (c condition) holds(m *client.MessageInfo) bool {
	switch c.field {
	case "reason":
		return c.match(m.Reason)
	case "error":
		return c.match(m.FirstError) || c.match(m.LastError)
	case "origin":
		return c.match(m.OriginQueue)
	case "key":
		return c.match(m.OrderingKey)
	}
	if m.Content == nil {
		return false
	}
	if c.field == "biz-id" {
		return c.match(m.Content.BizID)
	}
	return c.match(string(m.Content.Body))
}

// parseRate reads 50/s and 50. 0 is no limit.
func parseRate(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "/s"), 64)
	if err != nil || n <= 0 || n > 1e9 {
		return 0, exit.Errorf(exit.Usage, "--rate %s: write 50/s", s)
	}
	return n, nil
}

// redriveBatch is how many messages one step takes at most.
const redriveBatch = 500

// redrive is one run.
type redrive struct {
	cmd    *queueRedriveCmd
	a      *app
	g      *globals
	c      *client.Client
	where  []condition
	rate   float64
	bodies bool
	dry    bool

	seen, matched           uint64
	moved, refused, skipped uint64
	oldest                  time.Duration
	targets                 map[string]uint64
}

// Run redrives.
func (q *queueRedriveCmd) Run(ctx context.Context, a *app, g *globals) error {
	r := &redrive{cmd: q, a: a, g: g}
	var err error
	if r.rate, err = parseRate(q.Rate); err != nil {
		return err
	}
	for _, w := range q.Where {
		c, err := parseWhere(w)
		if err != nil {
			return err
		}
		r.where = append(r.where, c)
		r.bodies = r.bodies || c.field == "body" || c.field == "biz-id"
	}
	for _, id := range q.ID {
		queue, _, err := client.ParseMessageID(id)
		if err != nil {
			return &exit.Error{Code: exit.Usage, Err: err}
		}
		if queue != q.Queue {
			return exit.Errorf(exit.Usage, "--id %s is not in queue %s", id, q.Queue)
		}
	}
	dialing, cancel := context.WithTimeout(ctx, g.Timeout)
	defer cancel()
	if r.c, err = a.dial(dialing, g); err != nil {
		return err
	}
	defer r.c.Close()
	if !q.Yes || q.DryRun {
		if err := r.preview(ctx); err != nil {
			return err
		}
		if r.matched == 0 || q.DryRun {
			return nil
		}
		if ok, err := q.confirm(a, fmt.Sprintf("move %s of %s to %s", console.Count(r.matched), plural(r.seen, "message"), r.destination())); !ok {
			return err
		}
	}
	return r.run(ctx)
}

// preview counts what would be moved.
func (r *redrive) preview(ctx context.Context) error {
	r.dry = true
	if err := r.all(ctx); err != nil {
		return err
	}
	r.dry = false
	if r.matched == 0 {
		r.a.Note("nothing to move: none of %s matches", plural(r.seen, "message"))
		return nil
	}
	if r.cmd.DryRun {
		r.a.Note("would move %s of %s to %s (oldest %s). Re-run with --yes.", console.Count(r.matched), plural(r.seen, "message"), r.destination(), console.Age(r.oldest))
	}
	return nil
}

// destination names the targets.
func (r *redrive) destination() string {
	var names []string
	for _, t := range slices.Sorted(maps.Keys(r.targets)) {
		names = append(names, fmt.Sprintf("%s (%s)", t, console.Count(r.targets[t])))
	}
	if len(r.targets) == 1 {
		for t := range r.targets {
			return t
		}
	}
	return strings.Join(names, ", ")
}

func (r *redrive) run(ctx context.Context) error {
	err := r.all(ctx)
	r.a.Done()
	text := fmt.Sprintf("%s moved", console.Count(r.moved))
	if r.skipped > 0 {
		text += fmt.Sprintf(", %s gone or held by a consumer by then", console.Count(r.skipped))
	}
	if r.refused > 0 {
		text += fmt.Sprintf(", %s NOT MOVED: their target does not exist or is full, or they did not come from anywhere", console.Count(r.refused))
	}
	r.a.Note("%s", text)
	switch {
	case err != nil:
		return exit.Hint(err, "what was moved stays moved: run the same again for the rest")
	case r.refused > 0:
		return &silent{exit.Conflict}
	}
	return nil
}

// all goes over what is ready and parked as of now.
func (r *redrive) all(ctx context.Context) error {
	r.seen, r.matched, r.oldest, r.targets = 0, 0, 0, map[string]uint64{}
	if len(r.cmd.ID) > 0 {
		return r.named(ctx)
	}
	var info client.QueueInfo
	err := r.step(ctx, func(ctx context.Context) (err error) {
		info, err = r.c.Admin().Queue(ctx, r.cmd.Queue)
		return noQueue(ctx, r.c, err, r.cmd.Queue)
	})
	if err != nil {
		return err
	}
	// Messages stand in storing order, so what arrives while this goes on, such as
	// one that was sent back and died again, comes after as many as there are now.
	if err := r.state(ctx, client.Ready, info.Counts.Ready); err != nil {
		return err
	}
	return r.state(ctx, client.Parked, info.Counts.Parked)
}

func (r *redrive) state(ctx context.Context, state client.MessageState, left uint64) error {
	o := client.PeekOptions{State: state, Bodies: r.bodies}
	for left > 0 {
		o.Limit = int(min(left, redriveBatch))
		var p client.Peeked
		err := r.step(ctx, func(ctx context.Context) (err error) {
			p, err = r.c.Admin().Peek(ctx, r.cmd.Queue, o)
			return err
		})
		if err != nil {
			return err
		}
		if err := r.batch(ctx, p.Messages); err != nil {
			return err
		}
		if !p.More {
			return nil
		}
		left -= min(left, uint64(len(p.Messages)))
		o.From = p.Next
	}
	return nil
}

// named goes over the messages that were named.
func (r *redrive) named(ctx context.Context) error {
	for _, id := range r.cmd.ID {
		queue, at, err := client.ParseMessageID(id)
		if err != nil {
			return err
		}
		var m client.MessageInfo
		err = r.step(ctx, func(ctx context.Context) (err error) {
			m, err = r.c.Admin().Message(ctx, queue, at)
			return noQueue(ctx, r.c, err, queue)
		})
		if errors.Is(err, client.ErrNoMessage) {
			r.skipped++
			continue
		}
		if err == nil {
			err = r.batch(ctx, []client.MessageInfo{m})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// batch moves those of a page that match.
func (r *redrive) batch(ctx context.Context, page []client.MessageInfo) error {
	var move, requeue []client.Place
	for i := range page {
		m := &page[i]
		r.seen++
		if slices.ContainsFunc(r.where, func(c condition) bool { return !c.holds(m) }) {
			continue
		}
		target := r.cmd.To
		switch {
		case target == "" && m.OriginQueue != "":
			target = m.OriginQueue
			move = append(move, m.Place())
		case target == "" && m.State == client.Parked:
			target = m.Queue
			requeue = append(requeue, m.Place())
		case target == "":
			continue // it is no dead letter: it works here
		default:
			move = append(move, m.Place())
		}
		r.matched++
		r.targets[target]++
		r.oldest = max(r.oldest, m.Age)
	}
	if r.dry {
		return nil
	}
	admin := r.c.Admin()
	if err := r.paced(ctx, move, func(ctx context.Context, at []client.Place) ([]client.EditState, error) {
		return admin.MoveMessages(ctx, r.cmd.Queue, r.cmd.To, at...)
	}); err != nil {
		return err
	}
	return r.paced(ctx, requeue, func(ctx context.Context, at []client.Place) ([]client.EditState, error) {
		return admin.RequeueMessages(ctx, r.cmd.Queue, at...)
	})
}

// paced does in steps what the rate allows.
func (r *redrive) paced(ctx context.Context, places []client.Place, do func(ctx context.Context, at []client.Place) ([]client.EditState, error)) error {
	size := redriveBatch
	if r.rate > 0 {
		size = min(size, max(1, int(r.rate/5)))
	}
	for len(places) > 0 {
		n := min(size, len(places))
		began := time.Now()
		var states []client.EditState
		if err := r.step(ctx, func(ctx context.Context) (err error) {
			states, err = do(ctx, places[:n])
			return err
		}); err != nil {
			return err
		}
		for _, s := range states {
			switch s {
			case client.EditDone:
				r.moved++
			case client.EditRefused:
				r.refused++
			default:
				r.skipped++
			}
		}
		places = places[n:]
		r.a.Progress("%s moved", console.Count(r.moved))
		if r.rate > 0 {
			t := time.NewTimer(time.Duration(float64(n)/r.rate*float64(time.Second)) - time.Since(began))
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// step gives each request the time-out of its own: the whole may take long.
func (r *redrive) step(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.g.Timeout, fmt.Errorf("no answer within %s (--timeout)", r.g.Timeout))
	defer cancel()
	return f(ctx)
}
