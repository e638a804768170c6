package jepsen

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"onceq/jepsen/history"
	"onceq/jepsen/hosts"
	"onceq/jepsen/nemesis"
)

// plan is which faults a run will make, and what it needs for them.
type plan struct {
	faults  []nemesis.Fault
	rounds  []nemesis.Round // of a mix
	mix     bool
	leftOut []string // name and why
	hosts   bool     // each node gets a network namespace
}

// newPlan leaves out what cannot be made here, and says so.
func newPlan(c *Config) (plan, error) {
	found, mix, err := nemesis.Find(c.Faults)
	if err != nil {
		return plan{}, err
	}
	p := plan{mix: mix}
	place := nemesis.Place{Nodes: c.Nodes, Hosts: hosts.Possible()}
	for _, f := range found {
		if why := f.Missing(place); why != "" {
			p.leftOut = append(p.leftOut, f.Name+": "+why)
			continue
		}
		p.faults = append(p.faults, f)
		p.hosts = p.hosts || f.Uses(nemesis.NeedHosts)
	}
	if len(found) > 0 && len(p.faults) == 0 {
		return plan{}, errors.New("none of the faults can be made here: " + strings.Join(p.leftOut, "; "))
	}
	if mix {
		p.rounds = nemesis.Mix(p.faults, c.Seed, c.Time, c.Nodes)
	}
	return p, nil
}

// names are the kinds of faults that the run is about.
func (p plan) names() (all []string) {
	for _, f := range p.faults {
		all = append(all, f.Name)
	}
	return all
}

func (p plan) network() string {
	if p.hosts {
		return "network namespaces"
	}
	return "loopback"
}

// tell says what is left out and what a mix will do.
func (r *run) tell() {
	if len(r.plan.leftOut) > 0 {
		r.note("LEFT OUT: %s", strings.Join(r.plan.leftOut, "; "))
	}
	if r.plan.mix {
		text := nemesis.Describe(r.plan.rounds)
		r.h.Add(history.Event{Proc: "nemesis", F: history.Plan, Type: history.OK, Of: -1, Text: text})
		r.note("the plan of seed %d:\n%s", r.cfg.Seed, strings.TrimRight(text, "\n"))
	}
}

// bring makes the network that the plan needs.
func (r *run) bring() error {
	if !r.plan.hosts {
		return nil
	}
	h, err := hosts.New(r.cfg.Nodes)
	if err != nil {
		return fmt.Errorf("network namespaces: %w", err)
	}
	r.hosts = h
	return nil
}

// breakThings makes the faults until ctx ends.
func (r *run) breakThings(ctx context.Context, t *nemesis.Target) {
	if r.plan.mix {
		t.RunMix(ctx, r.plan.rounds)
		return
	}
	t.Run(ctx, r.plan.faults, r.cfg.Seed)
}
