package jepsen

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"onceq/client"
	"onceq/jepsen/faultdisk"
	"onceq/jepsen/history"
	"onceq/jepsen/hosts"
	"onceq/jepsen/mutants"
	"onceq/jepsen/nemesis"
	"onceq/jepsen/proc"
	"onceq/jepsen/skew"
	"onceq/jepsen/workload"
)

// plan is which faults a run will make, and what it needs for them.
type plan struct {
	faults  []nemesis.Fault
	rounds  []nemesis.Round // of a mix
	mix     bool
	leftOut []string // name and why
	hosts   bool     // each node gets a network namespace
	disks   bool     // and a faulty disk
	spare   bool     // there is one node more
	older   bool     // the nodes begin with an older build
	little  bool     // nodes have little memory for messages: most that wait are on disk
}

// here is what a run on this machine can do.
func here(nodes int) nemesis.Place {
	return nemesis.Place{Nodes: nodes, Hosts: hosts.Possible(), FUSE: faultdisk.Possible(), Clock: skew.Possible(), Limits: proc.LimitsPossible()}
}

// newPlan leaves out what cannot be made at a place, and says so.
func newPlan(c *Config, w workload.Workload, place nemesis.Place) (plan, error) {
	found, mix, err := nemesis.Find(c.Faults)
	if err != nil {
		return plan{}, err
	}
	p := plan{mix: mix}
	if w.Newest {
		place.Older = fmt.Errorf("workload %s needs what older builds do not have", w.Name)
	}
	for _, f := range found {
		if why := f.Missing(place); why != "" {
			p.leftOut = append(p.leftOut, f.Name+": "+why)
			continue
		}
		p.faults = append(p.faults, f)
		p.hosts = p.hosts || f.Uses(nemesis.NeedHosts)
		p.disks = p.disks || f.Uses(nemesis.NeedFUSE)
		p.spare = p.spare || f.Uses(nemesis.NeedSpare)
	}
	if len(found) > 0 && len(p.faults) == 0 {
		return plan{}, errors.New("none of the faults can be made here: " + strings.Join(p.leftOut, "; "))
	}
	if mix {
		p.rounds = nemesis.Mix(p.faults, c.Seed, c.Time, c.Nodes)
	}
	p.older = p.upgrades()
	p.little = rand.New(rand.NewPCG(c.Seed, littleStream)).IntN(2) == 0
	return p, nil
}

// littleStream keeps this draw of a seed apart from others.
const littleStream = 7

// bodyMemory is what nodes have of memory for messages, and littleMemory what those have
// that have little, which otherwise would leave it with a snapshot only.
const bodyMemory, littleMemory = 256 << 20, 128 << 10

// memory is what the nodes of the run have.
func (p plan) memory() int {
	if p.little {
		return littleMemory
	}
	return bodyMemory
}

// args are those of each node's onceq server.
func (r *run) args() []string {
	return slices.Concat(serverArgs, []string{"--body-memory", strconv.Itoa(r.plan.memory())}, r.cfg.ServerArgs)
}

// upgrades says whether the run will upgrade the nodes. A mix that does not draw it
// is about the newer build alone.
func (p plan) upgrades() bool {
	is := func(f nemesis.Fault) bool { return f.Uses(nemesis.NeedOlder) }
	if !p.mix {
		return slices.ContainsFunc(p.faults, is)
	}
	return slices.ContainsFunc(p.rounds, func(r nemesis.Round) bool {
		return slices.ContainsFunc(r.Steps, func(s nemesis.Step) bool { return is(s.Fault) })
	})
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
	if r.plan.little {
		r.note("nodes have little memory for messages: %d KiB", littleMemory>>10)
	}
	if len(r.plan.leftOut) > 0 {
		r.note("LEFT OUT: %s", strings.Join(r.plan.leftOut, "; "))
	}
	if r.plan.mix {
		text := nemesis.Describe(r.plan.rounds)
		r.h.Add(history.Event{Proc: "nemesis", F: history.Plan, Type: history.OK, Of: -1, Text: text})
		r.note("the plan of seed %d:\n%s", r.cfg.Seed, strings.TrimRight(text, "\n"))
	}
}

// bring makes the network and the disks that the plan needs, and lays out the
// cluster. release takes everything away again, and may be called after an error.
func (r *run) bring(ctx context.Context) (release func(), err error) {
	var undo []func()
	release = func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}
	count := r.cfg.Nodes
	if r.plan.spare {
		count++
	}
	if r.plan.hosts {
		if r.hosts, err = hosts.New(count); err != nil {
			return release, fmt.Errorf("network namespaces: %w", err)
		}
		undo = append(undo, r.hosts.Close)
	}
	if r.plan.disks {
		if err := r.mount(ctx, &undo); err != nil {
			return release, err
		}
	}
	older := ""
	if r.plan.older {
		if older, err = r.buildOlder(ctx); err != nil {
			return release, err
		}
	}
	r.cluster, err = proc.New(proc.Config{
		Binary: r.cfg.Binary, Judge: r.cfg.Judge, First: older, Dir: r.cfg.Dir, Nodes: r.cfg.Nodes, Hosts: r.hosts, Spare: r.plan.spare,
		Args:    r.args(),
		DataDir: r.dataDir,
		OnEnd:   r.ended, OnStart: r.started, OnResume: r.held,
	})
	if err == nil {
		undo = append(undo, r.cluster.Close)
	}
	return release, err
}

// buildOlder is the build that the nodes begin with.
func (r *run) buildOlder(ctx context.Context) (string, error) {
	binary := r.cfg.Older
	if binary == "" {
		binary = filepath.Join(r.cfg.Dir, "onceq-older")
	}
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	r.note("building the older onceq that the nodes begin with")
	root, err := proc.Root(ctx)
	if err != nil {
		return "", fmt.Errorf("an older onceq, which fault upgrade takes (name one with --older, or leave that fault out): %w", err)
	}
	flags, err := mutants.Older().Prepare(ctx, root, filepath.Join(filepath.Dir(binary), "older"))
	if err != nil {
		return "", err
	}
	return binary, proc.Build{Out: binary, Flags: flags}.Run(ctx, root)
}

// mount gives each node a faulty disk.
func (r *run) mount(ctx context.Context, undo *[]func()) error {
	binary := r.cfg.FaultFS
	if binary == "" {
		binary = filepath.Join(r.cfg.Dir, "faultfs")
	}
	if _, err := os.Stat(binary); err != nil {
		if err := faultdisk.Build(ctx, binary); err != nil {
			return err
		}
	}
	r.disks = map[string]*faultdisk.Disk{}
	for i := range r.cfg.Nodes {
		name := "n" + strconv.Itoa(i+1)
		dir := r.home(name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		d, err := faultdisk.Start(binary, dir)
		if err != nil {
			return err
		}
		r.disks[name] = d
		*undo = append(*undo, func() {
			if err := d.Close(); err != nil {
				r.note("%v", err)
			}
		})
	}
	return nil
}

// home is where everything that a node leaves behind is.
func (r *run) home(node string) string { return filepath.Join(r.cfg.Dir, node) }

func (r *run) dataDir(node string) string {
	if d := r.disks[node]; d != nil {
		return d.Dir
	}
	return r.home(node)
}

// held writes that what a node had sent, or was about to, stood still for a while.
func (r *run) held(node string, from, to time.Time) {
	r.h.Add(history.Event{Proc: "monitor", F: history.Held, Type: history.OK, Of: -1, Node: node, T0: r.h.Since(from), T1: r.h.Since(to)})
}

// started writes that a node was started.
func (r *run) started(node string, life int) {
	now := r.h.Now()
	r.h.Add(history.Event{Proc: "monitor", F: history.Started, Type: history.OK, Of: -1, Node: node, Life: life, T0: now, T1: now})
}

// ended writes that a node ended by itself.
func (r *run) ended(e proc.End) {
	now := r.h.Now()
	f := history.Crash
	if e.Expected {
		f = history.GaveUp
	} else {
		r.note("%s ended by itself: %s: %s", e.Node, e.How, lastOf(e.Log))
	}
	r.mu.Lock()
	r.ends++
	all := r.ends == r.cfg.Nodes // at the start no node is started again
	r.mu.Unlock()
	if all {
		r.giveUp(fmt.Errorf("all nodes ended before one led; %s: %s: %s", e.Node, e.How, lastOf(e.Log)))
	}
	r.h.Add(history.Event{Proc: "monitor", F: f, Type: history.OK, Of: -1, Node: e.Node, T0: now, T1: now, Err: e.How, Text: e.Log})
}

// target is what the faults work on.
func (r *run) target() *nemesis.Target {
	return &nemesis.Target{
		H: r.h, Cluster: r.cluster, Net: r.net, Hosts: r.hosts, Disks: r.disks, Newer: r.cfg.Binary,
		Under: r.underWay, Seen: func(string) { r.seen.Add(1) }, Leader: r.monitor.leader, Serving: r.monitor.serving, CaughtUp: r.monitor.caughtUp, Report: r.note,
		Answers:  func(ctx context.Context, node string) bool { return r.monitor.status(ctx, node) },
		Applied:  func(node string) uint64 { return r.monitor.state(node).Applied },
		Snapshot: func(node string) uint64 { return r.monitor.state(node).Snapshot },
		Admin: func(ctx context.Context, f func(a *client.Admin) error) error {
			c, err := r.admin(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			return f(c.Admin())
		},
	}
}

// underWay keeps which faults there are just now.
func (r *run) underWay(kind string, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.under, kind); on {
		r.under = append(r.under, kind)
	} else if i >= 0 {
		r.under = slices.Delete(r.under, i, i+1)
	}
}

// breakThings makes the faults until ctx ends.
func (r *run) breakThings(ctx context.Context) {
	if r.plan.mix {
		r.target().RunMix(ctx, r.plan.rounds)
		return
	}
	r.target().Run(ctx, r.plan.faults, r.cfg.Seed)
}
