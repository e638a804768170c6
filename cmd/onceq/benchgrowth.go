package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/console"
)

type benchGrowthCmd struct {
	outputFlag
	Of          []string      `help:"Only this: backlog, queues, sessions, consumers or connections; may be repeated." enum:"backlog,queues,sessions,consumers,connections" placeholder:"WHAT"`
	Backlog     []uint64      `help:"Messages that wait in the queue of the load; may be repeated, ascending, as all of these." default:"1000,100000,1000000" placeholder:"N"`
	Queues      []uint64      `help:"Queues that nobody uses." default:"1,100,10000" placeholder:"N"`
	Sessions    []uint64      `help:"Sessions of idle producers." default:"1,100,10000" placeholder:"N"`
	Consumers   []uint64      `help:"Consumers, which share the load and a prefetch of 1,024, at least 16 each." default:"1,10,100,1000" placeholder:"N"`
	Connections []uint64      `help:"Clients that are idle." default:"1,100,1000" placeholder:"N"`
	Size        int           `help:"Bytes of a body." default:"128" placeholder:"BYTES"`
	Time        time.Duration `help:"How long each size is measured, in three windows whose median counts." default:"6s"`
	InFlight    int           `help:"Messages between publish and receipt." default:"2048" placeholder:"N"`
	Seed        uint64        `help:"Seed of the bodies." default:"1"`
	Smoke       bool          `help:"A few seconds in all: is everything still in working order?"`
}

// growthWindows is into how many windows the time of a size is parted.
const growthWindows = 3

// Help says what is measured.
func (*benchGrowthCmd) Help() string {
	return `What a message costs (its publish, delivery and ack) against how much there is of
something else. For each kind a three-node cluster of its own is started in a
temporary directory. CPU is that of the node processes, all together; RATIO is it to
that of the smallest size. What does not grow has 1, and up to 1.5 is the goal. The
backlog stays as large as it is: a message is received for each that is confirmed.

Examples:
  onceq bench growth
  onceq bench growth --of backlog --backlog 1000 --backlog 10000000
  onceq bench growth --smoke -o json`
}

// Run measures.
func (b *benchGrowthCmd) Run(ctx context.Context, a *app) error {
	cfg := bench.GrowthConfig{
		Of: b.Of, Body: b.Size, Window: b.Time / growthWindows, Windows: growthWindows, WarmUp: time.Second, InFlight: b.InFlight, Seed: b.Seed,
		Sizes: map[string][]uint64{bench.GrowBacklog: b.Backlog, bench.GrowQueues: b.Queues, bench.GrowSessions: b.Sessions,
			bench.GrowConsumers: b.Consumers, bench.GrowConnections: b.Connections},
	}
	if b.Smoke {
		cfg.Window, cfg.Windows, cfg.WarmUp = 50*time.Millisecond, 1, 0
		for of := range cfg.Sizes {
			cfg.Sizes[of] = []uint64{1, 20}
		}
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	a.Note("onceq %s bench growth, clusters of 3 processes on this machine, %d CPUs, %s", version(), runtime.NumCPU(), runtime.Version())
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	open := func(ctx context.Context) (bench.Target, func(), error) {
		c, end, err := openBench(ctx, lost, a, 3, "--log-level", "warn")
		if err != nil {
			return bench.Target{}, nil, err
		}
		return benchTarget(a, c), func() { end(false) }, nil
	}
	if b.Smoke { // one cluster is enough to see that everything works
		one, end, err := open(ctx)
		if err != nil {
			return err
		}
		defer end()
		open = func(context.Context) (bench.Target, func(), error) { return one, func() {}, nil }
	}
	var rows []bench.GrowthRow
	err := bench.Growth(ctx, cfg, open, func(r bench.GrowthRow) {
		rows = append(rows, r)
		if !a.Watched() {
			a.Note("%s, %d: %.0f/s, %.1f us, %.2f", r.Of, r.N, r.PerSecond, r.CPUMicros, r.Ratio)
		}
	})
	a.Done()
	if err != nil {
		return why(ctx, err)
	}
	return b.write(a, rows)
}

func (b *benchGrowthCmd) write(a *app, rows []bench.GrowthRow) error {
	if !b.table() {
		return console.WriteList(a.Out, b.format(), rows)
	}
	g := console.NewGrid("OF", ">HOW MANY", ">PER S", ">PUBLISH P50", ">CPU/MSG", ">RATIO")
	for _, r := range rows {
		cpu := ""
		if r.CPUMicros > 0 {
			cpu = fmt.Sprintf("%.1f us", r.CPUMicros)
		}
		g.Row(r.Of, console.Count(r.N), console.Count(uint64(r.PerSecond)), console.Millis(time.Duration(r.P50*float64(time.Millisecond))), cpu, fmt.Sprintf("%.2f", r.Ratio))
	}
	_, err := g.WriteTo(a.Out)
	return err
}
