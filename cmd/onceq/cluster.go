package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/devcluster"
	"onceq/cmd/onceq/internal/exit"
)

type clusterCmd struct {
	Members  membersCmd  `cmd:"" help:"List the members."`
	Add      memberAdd   `cmd:"" help:"Make a node that has joined a voter."`
	Remove   memberDrop  `cmd:"" help:"Remove a node for good."`
	Transfer transferCmd `cmd:"" help:"Hand leadership over."`
}

// Help shows examples.
func (*clusterCmd) Help() string {
	return `One change at a time; a change that would leave less than a majority alive is
refused. A node that was started with --join is a non-voter first and becomes a
voter by itself once it has caught up.

Examples:
  onceq cluster members
  onceq cluster remove n3
  onceq cluster transfer n2`
}

type membersCmd struct{ outputFlag }

type memberRow struct {
	Node     string `json:"node"`
	ServerID string `json:"server_id"`
	Address  string `json:"address"`
	Voter    bool   `json:"voter"`
	Alive    bool   `json:"alive"`
	Leader   bool   `json:"leader"`
}

// Run lists the members.
func (m *membersCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		ms, err := c.Admin().Members(ctx)
		if err != nil {
			return err
		}
		var rows []memberRow
		for _, x := range ms.Members {
			rows = append(rows, memberRow{x.Node, x.ServerID, x.Address, x.Voter, x.Alive, x.Leader})
		}
		if !m.table() {
			return console.WriteList(a.Out, m.format(), rows)
		}
		grid := console.NewGrid("NODE", "ADDRESS", "VOTES", "STATE", "LEADS", "SERVER ID")
		for _, r := range rows {
			state := "alive"
			if !r.Alive {
				state = a.Paint("not seen", console.Red)
			}
			grid.Row(r.Node, r.Address, yes(r.Voter), state, yes(r.Leader), r.ServerID)
		}
		_, err = grid.WriteTo(a.Out)
		return err
	})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// noNode adds to an unknown node which may have been meant.
func noNode(ctx context.Context, c *client.Client, err error, node string) error {
	if !errors.Is(err, client.ErrNoNode) {
		return err
	}
	var names []string
	if ms, merr := c.Admin().Members(ctx); merr == nil {
		for _, m := range ms.Members {
			names = append(names, m.Node)
		}
	}
	return exit.Hint(err, didYouMean(node, names, "see  onceq cluster members"))
}

type memberAdd struct {
	Node string `arg:"" help:"Name of the node."`
}

// Run adds the node.
func (m *memberAdd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		if err := c.Admin().AddMember(ctx, m.Node); err != nil {
			return noNode(ctx, c, err, m.Node)
		}
		a.Note("%s votes", m.Node)
		return nil
	})
}

type memberDrop struct {
	destructive
	Node string `arg:"" help:"Name of the node, or its server id when the name is used again."`
}

// Run removes the node.
func (m *memberDrop) Run(ctx context.Context, a *app, g *globals) error {
	if ok, err := m.confirm(a, fmt.Sprintf("remove %s from the cluster; it comes back only as a new member with an empty data directory", m.Node)); !ok {
		return err
	}
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		if err := c.Admin().RemoveMember(ctx, m.Node); err != nil {
			return noNode(ctx, c, err, m.Node)
		}
		a.Note("%s is removed", m.Node)
		return nil
	})
}

type transferCmd struct {
	Node string `arg:"" optional:"" help:"Name of the node, or its server id. Default: the one that is furthest."`
}

// Run hands leadership over.
func (t *transferCmd) Run(ctx context.Context, a *app, g *globals) error {
	return a.admin(ctx, g, func(ctx context.Context, c *client.Client) error {
		before, err := devcluster.WaitLeader(ctx, c)
		if err != nil {
			return err
		}
		to, err := t.name(ctx, c)
		if err != nil {
			return err
		}
		err = c.Admin().TransferLeadership(ctx, t.Node)
		leader := ""
		switch {
		case errors.Is(err, client.ErrOutcomeUnknown):
			// The answer often goes down with the old leadership; who leads now
			// says as much.
			if leader = moved(ctx, c, before, to); leader == "" {
				return err
			}
		case err != nil:
			return noNode(ctx, c, err, t.Node)
		default:
			if leader = moved(ctx, c, before, to); leader == "" {
				return exit.Errorf(exit.Unavailable, "leadership was handed over, and no node leads within --timeout")
			}
		}
		a.Note("%s leads", leader)
		return nil
	})
}

// transferPoll is how often to ask who leads after a transfer.
const transferPoll = 50 * time.Millisecond

// name is the name of the node that was asked for, by name or by server id: who leads
// is told by name.
func (t *transferCmd) name(ctx context.Context, c *client.Client) (string, error) {
	if t.Node == "" {
		return "", nil
	}
	ms, err := c.Admin().Members(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range ms.Members {
		if m.ServerID == t.Node {
			return m.Node, nil
		}
	}
	return t.Node, nil
}

// moved waits until the node named to leads, or with "" any other than before,
// and returns it; "" when ctx ends first.
func moved(ctx context.Context, c *client.Client, before, to string) string {
	tick := time.NewTicker(transferPoll)
	defer tick.Stop()
	for {
		leader, err := devcluster.LeaderOf(ctx, c)
		if err == nil && (leader == to || to == "" && leader != before) {
			return leader
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ""
		}
	}
}

// uptime writes seconds as an age.
func uptime(seconds float64) string {
	return console.Age(time.Duration(seconds * float64(time.Second)))
}
