package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

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
	List  bool     `help:"With --dry-run: name each message, and where it would go."`
	Rate  string   `help:"How many at most, such as 50/s. Default: as fast as it goes." placeholder:"N/s"`
}

// Help explains.
func (*queueRedriveCmd) Help() string {
	return `Sends what is ready or parked in QUEUE to the end of another queue, with its
failures counted from zero and its history kept. With --to-origin each dead letter
goes to the queue that it came from, and a message that was parked in its own
queue is made ready there. Where it came from a message has its priority again, in
any other queue it has none. What consumers hold is left alone, and so is what
arrives meanwhile: a message that dies again is not sent twice by one run.

The leader picks the messages, so nothing but what is moved goes over the network,
and --where sees each as it is then. A regular expression is RE2 and matches
anywhere in the field.

It goes in small steps, each of which happens once or not at all. When it is
interrupted, or a failover is too long, run it again: it goes on with the rest.

Exit code 4: some were not moved, since their target does not exist or is full.

Examples:
  onceq queue redrive orders.dead --to-origin --dry-run --list
  onceq queue redrive orders.dead --to-origin --where 'reason~timeout' --rate 50/s --yes
  onceq queue redrive orders.dead --to orders.later --where origin=orders
  onceq queue redrive orders --to-origin              # parked ones
  onceq queue redrive orders.dead --to-origin --id orders.dead/3 --yes`
}

var whereFields = map[string]client.Condition{
	"reason": {Field: client.FieldReason}, "error": {Field: client.FieldError}, "origin": {Field: client.FieldOrigin},
	"key": {Field: client.FieldKey}, "biz-id": {Field: client.FieldBizID}, "body": {Field: client.FieldBody},
}

var whereShape = regexp.MustCompile(`^\s*([a-z-]+)\s*(=~|~|=)\s*(.*?)\s*$`)

// parseWhere reads FIELD~REGEXP and FIELD=VALUE, also as FIELD =~ "REGEXP".
func parseWhere(s string) (c client.Condition, err error) {
	parts := whereShape.FindStringSubmatch(s)
	known := false
	if parts != nil {
		c, known = whereFields[parts[1]]
	}
	if !known {
		return c, exit.Errorf(exit.Usage, "--where %q: write FIELD~REGEXP or FIELD=VALUE; fields are reason, error, origin, key, biz-id, body", s)
	}
	c.Value = parts[3]
	if text, err := strconv.Unquote(c.Value); err == nil {
		c.Value = text
	}
	if parts[2] == "=" {
		c.Match = client.MatchEqual
		return c, nil
	}
	c.Match = client.MatchRegexp
	if _, err := regexp.Compile(c.Value); err != nil {
		return c, exit.Errorf(exit.Usage, "--where %q: %v", s, err)
	}
	return c, nil
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

// options reads the flags.
func (q *queueRedriveCmd) options(g *globals) (o client.RedriveOptions, err error) {
	if q.To == q.Queue {
		return o, exit.Errorf(exit.Usage, "--to %s: that is the queue that is redriven: name another, or make what is parked in it ready with --to-origin", q.To)
	}
	o = client.RedriveOptions{To: q.To, StepTimeout: g.Timeout}
	if o.Rate, err = parseRate(q.Rate); err != nil {
		return o, err
	}
	for _, w := range q.Where {
		c, err := parseWhere(w)
		if err != nil {
			return o, err
		}
		o.Where = append(o.Where, c)
	}
	for _, id := range q.ID {
		queue, at, err := client.ParseMessageID(id)
		if err != nil {
			return o, &exit.Error{Code: exit.Usage, Err: err}
		}
		if queue != q.Queue {
			return o, exit.Errorf(exit.Usage, "--id %s is not in queue %s", id, q.Queue)
		}
		o.Only = append(o.Only, at)
	}
	return o, nil
}

// Run redrives.
func (q *queueRedriveCmd) Run(ctx context.Context, a *app, g *globals) error {
	o, err := q.options(g)
	if err != nil {
		return err
	}
	dialing, cancel := g.within(ctx)
	defer cancel()
	c, err := a.dial(dialing, g)
	if err != nil {
		return err
	}
	defer c.Close()
	if !q.Yes || q.DryRun {
		would, err := q.preview(ctx, a, c, o)
		if err != nil || would.Moved == 0 || q.DryRun {
			return err
		}
		if ok, err := q.confirm(a, fmt.Sprintf("move %s of %s to %s", console.Count(would.Moved), plural(would.Seen, "message"), destination(would.Targets))); !ok {
			return err
		}
	}
	o.Progress = func(r client.Redriven) { a.Progress("%s moved", console.Count(r.Moved)) }
	done, err := c.Admin().Redrive(ctx, q.Queue, o)
	a.Done()
	text := fmt.Sprintf("%s moved", console.Count(done.Moved))
	if done.Skipped > 0 {
		text += fmt.Sprintf(", %s gone or held by a consumer by then", console.Count(done.Skipped))
	}
	if done.Refused > 0 {
		text += fmt.Sprintf(", %s NOT MOVED: their target does not exist or is full", console.Count(done.Refused))
	}
	a.Note("%s", text)
	switch {
	case err != nil && done.Seen == 0:
		return noQueue(ctx, c, err, q.Queue, q.To)
	case err != nil:
		return exit.Hint(err, "what was moved stays moved: run the same again for the rest")
	case done.Refused > 0:
		return &silent{exit.Conflict}
	}
	return nil
}

// preview counts and names what would be moved.
func (q *queueRedriveCmd) preview(ctx context.Context, a *app, c *client.Client, o client.RedriveOptions) (client.Redriven, error) {
	o.DryRun = true
	if q.DryRun && q.List {
		o.Would = func(id, target string) { fmt.Fprintf(a.Out, "%s\t%s\n", id, target) }
	}
	would, err := c.Admin().Redrive(ctx, q.Queue, o)
	switch {
	case err != nil:
		return would, noQueue(ctx, c, err, q.Queue, q.To)
	case would.Refused > 0:
		a.Note("%s cannot be moved: their target does not exist", console.Count(would.Refused))
	}
	switch {
	case would.Moved == 0:
		a.Note("nothing to move: none of %s matches", plural(would.Seen, "message"))
	case q.DryRun:
		a.Note("would move %s of %s to %s (oldest %s). Re-run with --yes.", console.Count(would.Moved), plural(would.Seen, "message"), destination(would.Targets), console.Age(would.Oldest))
	}
	return would, nil
}

// destination names the targets, with how many go to each when there are several.
func destination(targets map[string]uint64) string {
	var names []string
	for _, t := range slices.Sorted(maps.Keys(targets)) {
		if len(targets) == 1 {
			return t
		}
		names = append(names, fmt.Sprintf("%s (%s)", t, console.Count(targets[t])))
	}
	return strings.Join(names, ", ")
}
