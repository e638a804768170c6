package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
)

type sessionCmd struct {
	Ls   sessionLsCmd   `cmd:"" help:"List the sessions."`
	Show sessionShowCmd `cmd:"" help:"Show one session."`
	End  sessionEndCmd  `cmd:"" help:"End a session: what its producer still sends is refused."`
}

// Help shows examples.
func (*sessionCmd) Help() string {
	return `A session is what the cluster knows a producer by: it is why nothing is stored
twice. Unnamed ones end with their producer, or 72 hours after its last word;
named ones (onceq pub --session NAME) stay until they are ended here.

Examples:
  onceq session ls
  onceq session ls --named -o jsonl
  onceq session show s1.42
  onceq session show orders-service-1
  onceq session end orders-service-1`
}

type sessionRow struct {
	Session     string  `json:"session"`
	Name        string  `json:"name,omitempty"`
	Label       string  `json:"label,omitempty"`
	Named       bool    `json:"named"`
	Epoch       uint64  `json:"epoch"`
	Floor       uint64  `json:"floor"`
	Next        uint64  `json:"next"`
	Outcomes    uint32  `json:"outcomes"`
	IdleSeconds float64 `json:"idle_seconds"`
}

func toSessionRow(s client.SessionInfo) sessionRow {
	id := s.Session
	id.Incarnation = 0 // within a cluster one knows which is meant
	return sessionRow{id.String(), s.Name, s.Label, s.Named, s.Epoch, s.Floor, s.Next, s.Outcomes, s.Idle.Seconds()}
}

type sessionLsCmd struct {
	outputFlag
	Named bool   `help:"Only named ones."`
	Limit int    `help:"How many at most." default:"1000" placeholder:"N"`
	From  string `help:"First session to list." placeholder:"ID"`
}

// sessionPage is how many sessions are asked for at once.
const sessionPage = 1000

// Run lists sessions.
func (s *sessionLsCmd) Run(ctx context.Context, a *app, g *globals) error {
	from := uint64(1)
	if s.From != "" {
		n, ok := sessionNumber(s.From)
		if !ok {
			return exit.Errorf(exit.Usage, "--from %s: a session looks like s1.42", s.From)
		}
		from = n
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		var rows []sessionRow
		more := false
		err := eachSession(ctx, c, from, func(i client.SessionInfo) bool {
			if s.Named && !i.Named {
				return true
			}
			if more = len(rows) == s.Limit; more {
				return false
			}
			rows = append(rows, toSessionRow(i))
			return true
		})
		if err != nil {
			return err
		}
		if more {
			defer a.Note("there are more: see --limit and --from")
		}
		if !s.table() {
			return console.WriteList(a.Out, s.format(), rows)
		}
		grid := console.NewGrid("SESSION", "NAME", "LABEL", ">EPOCH", ">NEXT", ">OPEN", ">OUTCOMES", ">IDLE")
		for _, r := range rows {
			grid.Row(r.Session, clip(r.Name, 40), clip(r.Label, 40), r.Epoch, r.Next, r.Next-r.Floor, r.Outcomes, console.Age(time.Duration(r.IdleSeconds*float64(time.Second))))
		}
		_, err = grid.WriteTo(a.Out)
		return err
	})
}

// eachSession calls f for each session by number until it says no.
func eachSession(ctx context.Context, c *client.Client, from uint64, f func(client.SessionInfo) bool) error {
	for {
		found, err := c.Admin().Sessions(ctx, from, sessionPage)
		if err != nil {
			return err
		}
		for _, i := range found {
			if !f(i) {
				return nil
			}
			from = i.Session.Number + 1
		}
		if len(found) < sessionPage {
			return nil
		}
	}
}

// sessionNumber reads s1.42 and 42.
func sessionNumber(s string) (uint64, bool) {
	if rest, ok := strings.CutPrefix(s, "s1."); ok {
		s = rest
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// findSession finds a session by id or name.
func findSession(ctx context.Context, c *client.Client, id string) (client.SessionInfo, error) {
	missing := &exit.Error{Code: exit.NotFound, Err: fmt.Errorf("no session %q: closed, expired, or never opened", id), Hint: "see  onceq session ls"}
	var found client.SessionInfo
	err := eachSession(ctx, c, 1, func(i client.SessionInfo) bool {
		if i.Named && i.Name == id {
			found = i
		}
		return found.Session.Number == 0
	})
	if err != nil || found.Session.Number != 0 {
		return found, err
	}
	n, ok := sessionNumber(id)
	if !ok {
		return found, missing
	}
	found, err = c.Admin().Session(ctx, n)
	if errors.Is(err, client.ErrNoSession) {
		return found, missing
	}
	return found, err
}

type sessionShowCmd struct {
	outputFlag
	ID string `arg:"" help:"Id such as s1.42, or name."`
}

// Run shows one session.
func (s *sessionShowCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		i, err := findSession(ctx, c, s.ID)
		if err != nil {
			return err
		}
		r := toSessionRow(i)
		if !s.table() {
			return console.WriteJSON(a.Out, s.format(), r)
		}
		grid := console.NewGrid("SESSION", r.Session)
		name := r.Name
		if !r.Named {
			name = "(unnamed: ends with its producer, or 72 h after its last word)"
		}
		grid.Row("name", name)
		grid.Row("label", r.Label)
		grid.Row("epoch", fmt.Sprintf("%d (how often it was opened)", r.Epoch))
		grid.Row("floor", fmt.Sprintf("%d (every sequence below has a final outcome)", r.Floor))
		grid.Row("next", r.Next)
		grid.Row("outcomes kept", console.Count(r.Outcomes))
		grid.Row("last heard of", console.Age(i.Idle)+" ago")
		_, err = grid.WriteTo(a.Out)
		return err
	})
}

type sessionEndCmd struct {
	destructive
	ID string `arg:"" help:"Id such as s1.42, or name."`
}

// Run ends one session.
func (s *sessionEndCmd) Run(ctx context.Context, a *app, g *globals) error {
	var i client.SessionInfo
	err := a.admin(ctx, g, func(ctx context.Context, c *client.Client) (err error) {
		i, err = findSession(ctx, c, s.ID)
		return err
	})
	if err != nil {
		return err
	}
	r := toSessionRow(i)
	what := fmt.Sprintf("end session %s %s (last heard of %s ago): its producer is refused from then on, and what became of its %s cannot be looked up any more",
		r.Session, r.Name, console.Age(i.Idle), plural(uint64(r.Outcomes), "kept outcome"))
	if ok, err := s.confirm(a, what); !ok {
		return err
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		// With the epoch that was shown: a producer that has opened it since is left
		// alone.
		if err := c.Admin().EndSession(ctx, i); err != nil {
			return err
		}
		a.Note("session %s has ended", r.Session)
		return nil
	})
}
