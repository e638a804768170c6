package jepsen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/jepsen/check"
	"onceq/jepsen/faultdisk"
	"onceq/jepsen/history"
	"onceq/jepsen/hosts"
	"onceq/jepsen/nemesis"
	"onceq/jepsen/proc"
	"onceq/jepsen/proxy"
	"onceq/jepsen/raw"
	"onceq/jepsen/workload"
)

const (
	startTimeout = 60 * time.Second
	drainTimeout = 61 * time.Second // but for when the harness stands still; a little more than what a checker waits for
	drainCalm    = time.Second      // an empty queue must stay empty for so long
	silentLeast  = 3 * time.Second
	grace        = 10 * time.Second // fsm.GraceTime, as documented
	epsilon      = 100 * time.Millisecond
)

// logBytes is --log-bytes of the nodes.
const logBytes = 2 << 20

// serverArgs make things happen within seconds that take hours by default:
// snapshots above all, and nodes that are behind by more than the log goes back.
var serverArgs = []string{"--log-level", "info", "--snapshot-threshold", "512", "--snapshot-interval", "2s", "--log-bytes", strconv.Itoa(logBytes)}

// Result is what came of a run.
type Result struct {
	Config  Config
	Setup   history.Setup
	Report  *check.Report
	Events  []history.Event
	Dir     string
	Elapsed time.Duration
	Notes   []string // what did not fit into the history
	nodes   []string
}

// ErrInterrupted says that a run was ended from outside before its time.
var ErrInterrupted = errors.New("interrupted")

// Run makes one run. The error is about the harness; what it found out about the
// cluster is in the Result.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	cfg.withDefaults()
	w, plan, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	// The nodes of an earlier run would bring its messages along.
	if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) > 0 {
		return nil, errors.Join(err, fmt.Errorf("directory %s is not empty", cfg.Dir))
	}
	began := time.Now()
	r := &run{cfg: cfg, workload: w, plan: plan}
	err = r.everything(ctx)
	if ctx.Err() != nil {
		r.note("interrupted")
		err = errors.Join(ErrInterrupted, err)
	} else if err != nil {
		return nil, err
	}
	events, rerr := readHistory(historyPath(cfg.Dir))
	if rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	res := &Result{Config: cfg, Setup: r.setup, Events: events, Dir: cfg.Dir, Notes: r.notes, nodes: r.logs}
	cfg.Progress(Progress{Phase: "check"})
	res.Report = check.Run(events)
	res.Elapsed = time.Since(began)
	if res.Report.Verdict == check.Valid && !cfg.KeepData {
		for _, n := range r.names {
			_ = os.RemoveAll(filepath.Join(cfg.Dir, n)) // a data directory of a valid run is of no use
		}
	}
	return res, err
}

func historyPath(dir string) string { return filepath.Join(dir, "history.jsonl") }

func readHistory(path string) ([]history.Event, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return history.Read(f)
}

// run is a run that is being made.
type run struct {
	cfg      Config
	workload workload.Workload
	plan     plan
	setup    history.Setup
	names    []string
	logs     []string // names of all nodes that have a log, a spare one too

	drained bool // the queues were seen empty, and all nodes have that

	h       *history.Writer
	hosts   *hosts.Net // nil on loopback
	disks   map[string]*faultdisk.Disk
	cluster *proc.Cluster
	net     *proxy.Net
	monitor *monitor
	world   *workload.World
	phase   atomic.Value       // string
	seen    atomic.Int64       // faults whose effect was observed
	enough  context.CancelFunc // ends traffic and faults

	// giveUp ends the wait for the cluster's start; it does nothing later.
	giveUp context.CancelCauseFunc

	mu    sync.Mutex // guards what follows
	notes []string
	under []string // faults under way
	ends  int      // how often a node ended by itself
}

func (r *run) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	if len(r.notes) < notesMax {
		r.notes = append(r.notes, text)
	}
	r.mu.Unlock()
	r.cfg.Note("%s", text)
}

const notesMax = 1000

func (r *run) everything(ctx context.Context) error {
	f, err := os.Create(historyPath(r.cfg.Dir))
	if err != nil {
		return err
	}
	defer f.Close()
	r.h = history.NewWriter(f)
	r.setup = r.describe()
	r.h.Add(history.Event{F: history.Run, Type: history.OK, Of: -1, Setup: &r.setup})
	err = r.live(ctx)
	return errors.Join(err, r.h.Flush())
}

func (r *run) describe() history.Setup {
	s := history.Setup{
		Workload: r.workload.Name, Seed: r.cfg.Seed, Nodes: r.cfg.Nodes,
		Grace: int64(grace), Epsilon: int64(epsilon),
	}
	s.Faults, s.Mix, s.LeftOut, s.Network = r.plan.names(), r.plan.mix, r.plan.leftOut, r.plan.network()
	s.Older = r.plan.older
	if slices.Contains(s.Faults, "delay") {
		s.Epsilon += int64(nemesis.DelayMost)
	}
	r.workload.Setup(&s, r.cfg.Time.Seconds())
	if s.Limits = r.limits(); s.Limits != nil {
		s.Least.Sized = r.cfg.Nodes
	}
	s.Least.Verified = r.cfg.Nodes
	s.Least.Digests, s.Least.Counted = min(1, r.cfg.Nodes-1), len(r.workload.Queues)
	if r.workload.Numbers {
		s.Least.Counted = 1 // some may be missing just then
	}
	return s
}

func (r *run) live(ctx context.Context) error {
	r.tell()
	release, err := r.bring(ctx)
	defer release()
	if err != nil {
		return err
	}
	presence := proxy.NewPresence(silentLeast, func(label string, from, to time.Time) {
		r.h.Add(history.Event{Proc: label, F: history.Silent, Type: history.OK, Of: -1, T0: r.h.Since(from), T1: r.h.Since(to)})
	})
	r.net = proxy.New(presence)
	r.net.TellHeld(r.held)
	defer r.net.Close()
	r.names = r.cluster.Names()
	r.logs = slices.Clone(r.names)
	var addrs []string
	for _, n := range r.names {
		r.net.Node(n, r.cluster.Address(n))
		addrs = append(addrs, r.cluster.Address(n))
	}
	if spare := r.cluster.Spare(); spare != "" {
		r.net.Node(spare, r.cluster.Address(spare))
		r.logs = append(r.logs, spare)
	}
	r.world = &workload.World{
		H: r.h, Run: fmt.Sprintf("r%d", r.cfg.Seed), Addrs: addrs, URL: strings.Join(addrs, ","), Seed: r.cfg.Seed, Rate: r.cfg.Rate,
		Numbers: r.workload.Numbers, Draining: make(chan struct{}),
		Dial:   func(name string) raw.Dialer { return r.net.Dialer(name) },
		Report: r.note,
	}
	r.monitor = newMonitor(r.h, r.cluster)
	r.monitor.numbers = r.workload.Numbers
	for q := range r.workload.Queues {
		r.monitor.queues = append(r.monitor.queues, q)
	}
	r.phase.Store("start")
	breaking, enough := context.WithCancel(ctx)
	defer enough()
	r.enough = enough
	starting, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	r.giveUp = giveUp
	for _, n := range r.names {
		if err := r.cluster.Start(n); err != nil {
			return err
		}
	}
	// The monitor outlives ctx, so that an interrupted run is still drained.
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer unwatch()
	watchers.Go(func() { r.monitor.run(watching) })
	watchers.Go(func() { every(watching, 500*time.Millisecond, r.progress) })
	if err := r.prepare(starting); err != nil {
		return err
	}
	err = r.traffic(ctx, breaking)
	presence.Finish()
	r.inspect(context.WithoutCancel(ctx))
	return err
}

// inspect ends the nodes in order and looks at what they leave behind: whoever drains a
// queue reads from one node alone.
func (r *run) inspect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	names := r.cluster.Names()
	for _, n := range names {
		if err := r.cluster.Stop(n); err != nil {
			now := r.h.Now()
			r.h.Add(history.Event{Proc: "monitor", F: history.Crash, Type: history.OK, Of: -1, Node: n, T0: now, T1: now, Err: "SIGTERM", Text: err.Error()})
		}
	}
	for _, n := range names {
		op := history.Event{Proc: "monitor", F: history.Verify, Type: history.OK, Of: -1, Node: n, T0: r.h.Now()}
		found, err := r.cluster.Verify(ctx, n)
		switch {
		case err != nil:
			op.Type, op.Err = history.Info, err.Error()
			r.note("%s: its files could not be looked at: %v", n, err)
		case len(found.Problems) > 0:
			op.Type, op.Err = history.Fail, strings.Join(found.Problems, "; ")
		case !found.CleanStop:
			op.Type, op.Err = history.Fail, "they do not say that it has ended in order"
		}
		op.T1 = r.h.Now()
		r.h.Add(op)
	}
}

// inspectTimeout bounds what looking at the files of all nodes may take.
const inspectTimeout = 2 * time.Minute

func lastOf(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return lines[len(lines)-1]
}

// prepare waits for the cluster and creates the queues.
func (r *run) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no leader within %v; see %s", startTimeout, r.cluster.Log(r.names[0])))
	defer cancel()
	if !r.monitor.serving(ctx) {
		return context.Cause(ctx)
	}
	c, err := r.admin(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	// A new cluster begins with the first version of the machine, and what is judged is the
	// newest, unless the run is about getting there.
	for !r.plan.older && !r.monitor.newest(ctx) {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the cluster does not reach the newest version of the machine that its leader knows: %w", context.Cause(ctx))
		}
	}
	for name, s := range r.workload.Queues {
		if _, err := c.Admin().CreateQueue(ctx, name, s); err != nil {
			return fmt.Errorf("create queue %s: %w", name, err)
		}
	}
	return nil
}

// admin is a client that no fault of the proxy touches.
func (r *run) admin(ctx context.Context) (*client.Client, error) {
	return client.Dial(ctx, r.world.URL, client.WithLabel("jepsen admin"), client.WithLogger(slog.New(slog.DiscardHandler)))
}

// traffic is what the run is about: traffic, faults until breaking ends, healing, drain.
func (r *run) traffic(ctx, breaking context.Context) error {
	r.phase.Store("run")
	t := r.workload.Start(context.WithoutCancel(ctx), r.world)
	defer t.Stop()
	breaking, cancel := context.WithTimeout(breaking, r.cfg.Time)
	defer cancel()
	r.breakThings(breaking)
	r.phase.Store("drain")
	close(r.world.Draining)
	t.StopProducing()
	err := r.drain(context.WithoutCancel(ctx))
	r.tidy(context.WithoutCancel(ctx))
	r.phase.Store("stop")
	t.Stop()
	return err
}

// drain waits until the queues are empty and stay so, and then looks once more at
// everything.
func (r *run) drain(ctx context.Context) error {
	ctx, cancel := r.monitor.within(ctx, drainTimeout)
	defer cancel()
	op := r.h.Invoke(history.Event{Proc: "monitor", F: history.Drain})
	err := r.empty(ctx)
	if err == nil {
		err = r.monitor.caughtUp(ctx)
	}
	if err != nil {
		op.Err = err.Error()
		r.h.Complete(op, history.Fail)
		return nil
	}
	r.h.Complete(op, history.OK)
	r.drained = true
	r.monitor.counts(ctx)
	r.monitor.digest(ctx)
	if err := r.monitor.caughtUp(ctx); err != nil {
		r.note("the states of the nodes could not be compared at the end: %v", err)
		return nil
	}
	for _, n := range r.names {
		r.monitor.status(ctx, n)
	}
	return nil
}

func (r *run) empty(ctx context.Context) error {
	since := time.Time{}
	for {
		left := "nobody leads"
		if counts := r.monitor.counts(ctx); counts != nil {
			left = ""
			for q, c := range counts {
				if n := c.Ready + c.Leased + c.Delayed + c.Parked; n != 0 {
					left += fmt.Sprintf("%s has %d ready, %d leased, %d delayed, %d parked ", q, c.Ready, c.Leased, c.Delayed, c.Parked)
				}
			}
		}
		switch {
		case left != "":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= drainCalm:
			return nil
		}
		t := time.NewTimer(200 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return errors.New(strings.TrimSpace(left))
		}
	}
}

func (r *run) progress() {
	c := &r.world.Count
	phase, _ := r.phase.Load().(string)
	r.mu.Lock()
	under := strings.Join(r.under, "+")
	r.mu.Unlock()
	p := Progress{
		Phase: phase, Fault: under, At: time.Duration(r.h.Now()), Leader: r.monitor.leader(),
		Published: c.Published.Load(), Unknown: c.Unknown.Load(), Refused: c.Refused.Load(),
		Delivered: c.Delivered.Load(), Acked: c.Acked.Load(), Lost: c.Lost.Load(),
		Seen: int(r.seen.Load()),
	}
	r.cfg.Progress(p)
	if r.cfg.Enough(p) {
		r.enough()
	}
}
