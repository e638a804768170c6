package workload

import (
	"context"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	watchEvery = 300 * time.Millisecond
	watchMost  = 5 * time.Second
)

// members is the plain life of a queue while somebody watches who the members of
// the cluster are: for faults that change the membership.
func members() Workload {
	w := queue()
	w.Name = "members"
	w.What = "the traffic of queue, and a watcher of the members: one change at a time, a server that was removed stays away, no node is there twice; use it with faults member-add, member-remove, wipe"
	setup, start := w.Setup, w.Start
	w.Setup = func(s *history.Setup, seconds float64) {
		setup(s, seconds)
		s.Least.CalmOK = 0
		s.Least.Members, s.Least.Changes = int(seconds/2), 1
	}
	w.Start = func(ctx context.Context, world *World) *Traffic {
		t := start(ctx, world)
		watching, stop := context.WithCancel(ctx)
		end := t.producing
		t.producing = func() { stop(); end() }
		t.producers.Go(func() { watchMembers(watching, world, "w1") })
		return t
	}
	return w
}

// watchMembers asks who the members are, again and again.
func watchMembers(ctx context.Context, w *World, name string) {
	c := w.connect(ctx, name)
	if c == nil {
		return
	}
	defer func() { _ = c.Close() }()
	for pause(ctx, watchEvery) {
		asking, cancel := context.WithTimeout(ctx, watchMost)
		op := w.H.Invoke(history.Event{Proc: name, Client: name, F: history.Members})
		ms, err := c.Admin().Members(asking)
		cancel()
		if err != nil {
			op.Err = err.Error()
			w.H.Complete(op, history.Info)
			continue
		}
		op.Node, op.Listed = ms.Leader, listed(ms)
		w.H.Complete(op, history.OK)
	}
}

func listed(ms client.Members) []history.Item {
	var items []history.Item
	for _, m := range ms.Members {
		state := history.Joining
		if m.Voter {
			state = history.Voter
		}
		items = append(items, history.Item{ID: m.ServerID, Node: m.Node, State: state})
	}
	return items
}
