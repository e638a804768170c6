package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/devcluster"
)

type benchTailsCmd struct {
	outputFlag
	Event       []string      `help:"Only this: snapshot, compaction, slow, catch-up, transfer, slow-disk, connections, queues or large; may be repeated." enum:"calm,snapshot,compaction,slow,catch-up,transfer,slow-disk,connections,queues,large" placeholder:"EVENT"`
	Time        time.Duration `help:"How long each load is measured." default:"10s"`
	Rate        float64       `help:"Messages a second." default:"1000" placeholder:"N"`
	Size        int           `help:"Bytes of a body." default:"1024" placeholder:"BYTES"`
	Connections int           `help:"Clients that connect." default:"1000" placeholder:"N"`
	Queues      int           `help:"Queues that there are." default:"10000" placeholder:"N"`
	Active      int           `help:"Queues that are in use." default:"100" placeholder:"N"`
	Behind      int           `help:"Messages that the follower has missed that comes back." default:"100000" placeholder:"N"`
	Seed        uint64        `help:"Seed of the bodies." default:"1"`
	Smoke       bool          `help:"A few seconds in all: is everything still in working order?"`
}

// Help says what is measured.
func (*benchTailsCmd) Help() string {
	return `Latencies from end to end of an open loop (they count from the moment a message was
due) while something happens, each on a three-node cluster of its own:

  calm         nothing; the others are compared with its P99.9
  snapshot     snapshots every few megabytes, and the log is cut behind them
  compaction   messages that do not fit in memory are written to disk and purged
  slow         a follower stands still 50 ms in each 100
  catch-up     a follower comes back that has missed much, and reads it from the log
  transfer     the same with a small log: it is sent a snapshot
  slow-disk    each fsync of the leader takes 20 ms longer (needs strace, which makes
               all its system calls dearer)
  connections  a thousand clients connect
  queues       ten thousand queues, a hundred of which are in use
  large        bodies of 1 MiB in another queue

Examples:
  onceq bench tails
  onceq bench tails --event catch-up --behind 1000000 --time 30s
  onceq bench tails --smoke -o json`
}

// Run measures.
func (b *benchTailsCmd) Run(ctx context.Context, a *app) error {
	cfg := bench.TailsConfig{Events: b.Event, Time: b.Time, WarmUp: b.Time / 5, Rate: b.Rate, Size: b.Size, Seed: b.Seed,
		Connections: b.Connections, Queues: b.Queues, Active: b.Active, Behind: b.Behind}
	if b.Smoke {
		cfg.Time, cfg.WarmUp, cfg.Rate = 200*time.Millisecond, 20*time.Millisecond, 100
		cfg.Connections, cfg.Queues, cfg.Active, cfg.Behind, cfg.Smoke = 20, 20, 5, 100, true
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	a.Note("onceq %s bench tails, clusters of 3 processes on this machine, %d CPUs, %s", version(), runtime.NumCPU(), runtime.Version())
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	open := func(ctx context.Context, args ...string) (bench.Stage, error) {
		c, end, err := openBench(ctx, lost, a, 3, append([]string{"--log-level", "warn"}, args...)...)
		if err != nil {
			return bench.Stage{}, err
		}
		return stageOf(a, c, func() { end(false) }), nil
	}
	if b.Smoke { // one cluster is enough to see that everything works
		one, err := open(ctx)
		if err != nil {
			return err
		}
		defer one.End()
		one.End, one.SlowDisk = func() {}, nil
		open = func(context.Context, ...string) (bench.Stage, error) { return one, nil }
	}
	var rows []bench.TailRow
	err := bench.MeasureTails(ctx, cfg, open, func(r bench.TailRow) {
		rows = append(rows, r)
		if !a.Watched() {
			a.Note("%s: p50 %.1f ms, p99.9 %.1f ms, max %.1f ms; %s", r.Event, r.P50, r.P999, r.Max, r.Happened)
		}
	})
	a.Done()
	if err != nil {
		return why(ctx, err)
	}
	if err := b.write(a, rows); err != nil {
		return err
	}
	var all []bench.Row
	for _, r := range rows {
		all = append(all, r.Row)
	}
	return judged(a, all)
}

func stageOf(a *app, c *devcluster.Cluster, end func()) bench.Stage {
	s := bench.Stage{
		Target: benchTarget(a, c), End: end,
		Leader: func(ctx context.Context) (string, []string, error) {
			ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
			defer cancel()
			leader, err := c.Leader(ctx)
			var followers []string
			for _, n := range c.Nodes() {
				if n.Name != leader {
					followers = append(followers, n.Name)
				}
			}
			return leader, followers, err
		},
		Whole: func(ctx context.Context) error { return whole(ctx, c) },
		Kill:  c.Kill, Start: c.Start, Pause: c.Pause, Resume: c.Resume,
	}
	if _, err := exec.LookPath("strace"); err == nil {
		s.SlowDisk = func(ctx context.Context, node string, by time.Duration) (func(), error) {
			return slowDisk(ctx, c, node, by)
		}
	}
	return s
}

// slowDisk has strace hold up each fsync of a node.
func slowDisk(ctx context.Context, c *devcluster.Cluster, node string, by time.Duration) (undo func(), err error) {
	pid := 0
	for _, n := range c.Nodes() {
		if n.Name == node {
			pid = n.Pid
		}
	}
	const calls = "fsync,fdatasync"
	cmd := exec.CommandContext(ctx, "strace", "-f", "-qq", "-o", os.DevNull, "-p", strconv.Itoa(pid), "-e", "trace="+calls,
		"-e", fmt.Sprintf("inject=%s:delay_enter=%d", calls, by.Microseconds()))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it lets go of the node first
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if ctx.Err() == nil {
			return nil, fmt.Errorf("strace ended: %w", errors.Join(err, bench.ErrUnavailable))
		}
		return func() {}, nil
	case <-time.After(100 * time.Millisecond): // whoever may not attach knows at once
	}
	return func() {
		cmd.Process.Signal(os.Interrupt)
		<-ended
	}, nil
}

func (b *benchTailsCmd) write(a *app, rows []bench.TailRow) error {
	if !b.table() {
		return console.WriteList(a.Out, b.format(), rows)
	}
	g := console.NewGrid("EVENT", ">MESSAGES", ">P50", ">P99", ">P99.9", ">MAX", ">RATIO", ">ELECTIONS", ">STILL P99.9", ">STILL MAX", "HAPPENED")
	for _, r := range rows {
		if r.Messages == 0 {
			g.Row(r.Event, "", "", "", "", "", "", "", "", "", r.Happened)
			continue
		}
		still, most := "", ""
		if m := r.Machine; m != nil {
			still, most = millis(m.P999), millis(m.Max)
		}
		g.Row(r.Event, console.Count(r.Messages), millis(r.P50), millis(r.P99), millis(r.P999), millis(r.Max), fmt.Sprintf("%.1f", r.Ratio), r.Terms, still, most, r.Happened)
	}
	_, err := g.WriteTo(a.Out)
	return err
}
