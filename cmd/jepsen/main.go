// Command jepsen runs the fault-injection tests: it builds onceq, starts a
// cluster of processes on this machine, and lets workloads run against it while
// it breaks things. See package jepsen.
package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"onceq/jepsen"
	"onceq/jepsen/check"
	"onceq/jepsen/nemesis"
	"onceq/jepsen/proc"
	"onceq/jepsen/workload"
)

// The exit codes.
const (
	exitOK          = 0
	exitFailure     = 1
	exitViolation   = 8
	exitInterrupted = 130
)

type cli struct {
	List     bool          `help:"List workloads, faults and checkers."`
	Workload []string      `help:"Workloads, one after the other; all for all." default:"queue" placeholder:"NAME"`
	Faults   []string      `help:"Kinds of faults; all, or none." default:"all" placeholder:"NAME"`
	Seed     uint64        `help:"Seed of the plan. Default: a random one, which is printed." placeholder:"N"`
	Time     time.Duration `help:"Length of a run." default:"30s"`
	Nodes    int           `help:"Nodes of the cluster." default:"3"`
	Rate     int           `help:"Publishes a second." default:"600"`
	Runs     int           `help:"How many runs, with the seeds that follow each other." default:"1"`
	Out      string        `help:"Directory for what runs leave behind. Default: a new one in the directory for temporary files." type:"path" placeholder:"DIR"`
	Keep     bool          `help:"Keep the data directories of runs that were valid."`
	Race     bool          `help:"Build onceq with the race detector."`
	Binary   string        `help:"An onceq to test in place of building one." type:"path" placeholder:"FILE"`
	JSON     bool          `help:"Print results as JSON lines."`
}

func main() {
	os.Exit(run())
}

func run() int {
	var c cli
	kong.Parse(&c, kong.Name("jepsen"), kong.Description("Fault-injection tests of onceq."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if c.List {
		list()
		return exitOK
	}
	code, err := c.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "jepsen:", err)
	}
	return code
}

func list() {
	fmt.Println("workloads")
	for _, w := range workload.All() {
		fmt.Printf("  %-14s %s\n", w.Name, w.What)
	}
	fmt.Println("faults")
	for _, f := range nemesis.All() {
		fmt.Printf("  %-14s %s\n", f.Name, f.What)
	}
	fmt.Println("checkers")
	for _, k := range check.Checkers() {
		fmt.Printf("  %-14s %s\n", k.Name, k.What)
	}
}

func (c *cli) run(ctx context.Context) (int, error) {
	if c.Seed == 0 {
		c.Seed = rand.Uint64N(1_000_000) + 1
	}
	if c.Out == "" {
		dir, err := os.MkdirTemp("", "onceq-jepsen-")
		if err != nil {
			return exitFailure, err
		}
		c.Out = dir
	}
	binary := c.Binary
	if binary == "" {
		binary = filepath.Join(c.Out, "onceq")
		root, err := proc.Root(ctx)
		if err == nil {
			err = proc.Build{Out: binary, Race: c.Race}.Run(ctx, root)
		}
		if err != nil {
			return exitFailure, err
		}
	}
	worst := exitOK
	for i := range c.Runs {
		for _, w := range c.Workload {
			seed := c.Seed + uint64(i)
			cfg := jepsen.Config{
				Workload: w, Faults: c.Faults, Seed: seed, Time: c.Time, Nodes: c.Nodes, Rate: c.Rate,
				Binary: binary, Dir: filepath.Join(c.Out, fmt.Sprintf("%s-%d", w, seed)), KeepData: c.Keep,
				Progress: func(p jepsen.Progress) {
					fmt.Printf("%6.1fs %-6s %s pub %d unk %d ref %d del %d ack %d lost %d\n", p.At.Seconds(), p.Phase, p.Leader, p.Published, p.Unknown, p.Refused, p.Delivered, p.Acked, p.Lost)
				},
				Note: func(f string, a ...any) { fmt.Printf("  note: "+f+"\n", a...) },
			}
			res, err := jepsen.Run(ctx, cfg)
			if err != nil {
				return exitFailure, err
			}
			fmt.Println(res.Report.Verdict, res.Report.Counts, res.Report.Reasons)
			fmt.Printf("%+v\n", res.Report.Stats)
			for _, v := range res.Report.Violations {
				fmt.Printf("%8.2fs %s %s %s %v\n", float64(v.At)/1e9, v.Checker, v.ID, strings.Split(v.Text, "\n")[0], v.Lines)
			}
			if res.Report.Verdict == check.Invalid {
				worst = exitViolation
			}
		}
	}
	return worst, nil
}
