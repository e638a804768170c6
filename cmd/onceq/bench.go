package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/devcluster"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/procs"
)

type benchCmd struct {
	Pub benchRunCmd `cmd:"" help:"From publish to confirmation."`
	E2e benchRunCmd `cmd:"" name:"e2e" help:"From the moment a message is due to the consumer's handler."`

	Backlog  benchBacklogCmd  `cmd:"" help:"Memory, start and draining with a backlog larger than memory."`
	Failover benchFailoverCmd `cmd:"" help:"How long publishes stand still when the leader goes."`
	Growth   benchGrowthCmd   `cmd:"" help:"What a message costs against how much there is of something else."`
	Tails    benchTailsCmd    `cmd:"" help:"Latencies while something happens to the cluster."`
	Disk     benchDiskCmd     `cmd:"" help:"What the disk can do at most: appends made durable, as the log makes them."`
	Machine  benchMachineCmd  `cmd:"" help:"What no latency can be below: for how long the machine stands still."`
}

// Help says what is measured.
func (*benchCmd) Help() string {
	return `Starts a three-node cluster of its own in a temporary directory, unless --url (or
ONCEQ_URL) or --context names one. Bodies are random bytes. Three loads: one at a
time; paced (open loop: a latency counts from the moment a message was due); and
full speed with a bounded number under way. CPU is that of the node processes, all
nodes together; disk is what reached the device that holds their data, whoever
wrote it: measure on a machine that does nothing else. STILL P99 and STILL MAX are for how
long the machine itself stood still meanwhile, and STOLEN what its host took of it: see
onceq bench machine --help.

Exit code 8 when a message was not confirmed, not received, or received twice.

Examples:
  onceq bench pub
  onceq bench e2e --rate 20000 --time 30s --size 1024
  onceq bench pub --smoke -o json`
}

type benchRunCmd struct {
	outputFlag
	Size      []int         `help:"Bytes of a body; may be repeated." default:"16,1024" placeholder:"BYTES"`
	Load      []string      `help:"Only this load: single (one at a time), paced or full; may be repeated." enum:"single,paced,full" placeholder:"LOAD"`
	Time      time.Duration `help:"How long each load is measured." default:"5s"`
	Rate      float64       `help:"Messages a second of the paced load." default:"1000" placeholder:"N"`
	Producers int           `help:"Producers of the full-speed load." default:"4" placeholder:"N"`
	Consumers int           `help:"Consumers." default:"2" placeholder:"N"`
	InFlight  int           `help:"Messages under way for each producer of the full-speed load." default:"1024" placeholder:"N"`
	Seed      uint64        `help:"Seed of the bodies." default:"1"`
	LogStore  string        `help:"Log store of the own cluster: wal or boltdb." enum:"wal,boltdb" default:"wal"`
	Profile   string        `type:"path" help:"Write CPU profiles to DIR, of this process (bench.pprof) and of each node of the own cluster (n1.pprof ...), for go tool pprof." placeholder:"DIR"`
	Bodies    string        `help:"Where the own cluster keeps messages: disk or memory." enum:"disk,memory" default:"disk"`
	Smoke     bool          `help:"A few seconds in all: is everything still in working order?"`
}

// Run measures; the workload is the command's name.
func (b *benchRunCmd) Run(ctx context.Context, a *app, g *globals, k *kong.Context) error {
	cfg := bench.Config{Workload: k.Selected().Name, Loads: b.Load, Sizes: b.Size, Time: b.Time, WarmUp: b.Time / 5, Rate: b.Rate,
		Producers: b.Producers, Consumers: b.Consumers, InFlight: b.InFlight, Seed: b.Seed}
	if b.Smoke {
		cfg.Time, cfg.WarmUp, cfg.Rate = 400*time.Millisecond, 100*time.Millisecond, 200
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	t := bench.Target{Say: func(format string, args ...any) { a.Progress(format, args...) }}
	where, err := b.target(ctx, lost, a, g, &t)
	if err != nil {
		return err
	}
	defer where.end()
	a.Note("onceq %s bench %s, %s, %d CPUs, %s", version(), cfg.Workload, where.text, runtime.NumCPU(), runtime.Version())
	stop, err := profiled(b.Profile, "bench")
	if err != nil {
		return err
	}
	var rows []bench.Row
	err = bench.Run(ctx, cfg, t, func(r bench.Row) {
		rows = append(rows, r)
		if !a.Watched() {
			a.Note("%s, %d bytes, %s: %.0f/s, p50 %.2f ms", r.Workload, r.BodyBytes, r.Load, r.PerSecond, r.P50)
		}
	})
	a.Done()
	if err = errors.Join(why(ctx, err), stop()); err != nil {
		return err
	}
	if err := b.write(a, rows); err != nil {
		return err
	}
	return judged(a, rows)
}

// judged tells of elections and of what could not be watched, and fails when a message
// was not treated as it should.
func judged(a *app, rows []bench.Row) error {
	if slices.ContainsFunc(rows, func(r bench.Row) bool { return r.Machine == nil }) {
		a.Note("the machine was not watched: that takes a cluster that bench has started itself, Linux, and root or CAP_SYS_NICE")
	}
	for _, r := range rows {
		if r.Terms > 0 {
			a.Note("%s, %d bytes, %s: %d elections meanwhile", r.Workload, r.BodyBytes, r.Load, r.Terms)
		}
		if !r.Clean() {
			return exit.Errorf(exit.CheckFailed, "%s, %d bytes, %s: %d missing, %d received twice", r.Workload, r.BodyBytes, r.Load, r.Missing, r.Duplicates)
		}
	}
	return nil
}

// place is the cluster that is measured.
type place struct {
	text string
	end  func()
}

func (b *benchRunCmd) target(ctx context.Context, lost context.CancelCauseFunc, a *app, g *globals, t *bench.Target) (place, error) {
	if g.URL != "" || g.ContextName != "" {
		named, err := a.target(g)
		if err != nil {
			return place{}, err
		}
		t.URL = named.url
		return place{"cluster " + named.url, func() {}}, nil
	}
	a.Note("starting a cluster of three nodes")
	args := []string{"--log-level", "warn", "--log-store", b.LogStore, "--bodies", b.Bodies}
	if b.Profile != "" {
		args = append(args, "--cpu-profile", b.Profile)
	}
	c, end, err := openBench(ctx, lost, a, 3, args...)
	if err != nil {
		return place{}, err
	}
	t.URL, t.Spent, t.Watch = c.URL(), func() (bench.Spent, error) { return spent(c) }, watchMachine
	return place{fmt.Sprintf("3 processes on this machine, log in %s, bodies in %s", b.LogStore, b.Bodies), func() { end(false) }}, nil
}

// openBench starts a cluster to measure, whose nodes have these arguments. lost hears of
// a node that ends by itself: nothing is measured then, and without the others a
// client waits for ever.
func openBench(ctx context.Context, lost context.CancelCauseFunc, a *app, nodes int, args ...string) (*devcluster.Cluster, func(keep bool), error) {
	c, end, err := devcluster.Temporary(ctx, devcluster.Config{
		Nodes: nodes, ServerArgs: args,
		OnEnd: func(n devcluster.Info, log string) {
			a.Note("%s ended by itself: %s\n%s", n.Name, n.Detail, log)
			lost(exit.Errorf(exit.Failure, "%s ended by itself: %s", n.Name, n.Detail))
		},
	}, "onceq-bench-")
	return c, end, why(ctx, err)
}

// why replaces what came of the end of ctx by its cause.
func why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && cause != ctx.Err() {
		return cause
	}
	return err
}

func benchTarget(a *app, c *devcluster.Cluster) bench.Target {
	return bench.Target{
		URL:   c.URL(),
		Spent: func() (bench.Spent, error) { return spent(c) },
		Watch: watchMachine,
		Say:   func(format string, args ...any) { a.Progress(format, args...) },
	}
}

// spent reads what the nodes have spent, as far as this system tells.
func spent(c *devcluster.Cluster) (s bench.Spent, err error) {
	u, err := c.Usage()
	if err == nil {
		s.CPU = u.CPU
		s.Disk, err = procs.DeviceWritten(c.Dir())
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return s, err
}

func (b *benchRunCmd) write(a *app, rows []bench.Row) error {
	if !b.table() {
		return console.WriteList(a.Out, b.format(), rows)
	}
	g := console.NewGrid("LOAD", ">BODY", ">MESSAGES", ">PER S", ">P50", ">P99", ">P99.9", ">MAX", ">CPU/MSG", ">DISK/MSG", ">ELECTIONS", ">STILL P99", ">STILL MAX", ">STOLEN")
	for _, r := range rows {
		cpu, disk, still, most, stolen := "", "", "", "", ""
		if r.CPUMicros > 0 || r.DiskBytes > 0 {
			cpu, disk = fmt.Sprintf("%.0f us", r.CPUMicros), console.Bytes(uint64(r.DiskBytes))
		}
		if m := r.Machine; m != nil {
			still, most, stolen = millis(m.P99), millis(m.Max), percent(m.Stolen)
		}
		g.Row(r.Load, console.Bytes(uint64(r.BodyBytes)), console.Count(r.Messages), console.Count(uint64(r.PerSecond)),
			millis(r.P50), millis(r.P99), millis(r.P999), millis(r.Max), cpu, disk, r.Terms, still, most, stolen)
	}
	_, err := g.WriteTo(a.Out)
	return err
}

// millis writes a number of milliseconds, as rows have it.
func millis(ms float64) string { return console.Millis(time.Duration(ms * float64(time.Millisecond))) }
