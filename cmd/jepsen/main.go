// Command jepsen runs the fault-injection tests: it builds onceq, starts a
// cluster of processes on this machine, and lets workloads run against it while
// it breaks things. See package jepsen.
package main

import (
	"context"
	"errors"
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
	"onceq/jepsen/history"
	"onceq/jepsen/mutants"
	"onceq/jepsen/nemesis"
	"onceq/jepsen/proc"
	"onceq/jepsen/report"
	"onceq/jepsen/workload"
)

// The exit codes are those of onceq. Unknown is neither: nothing was seen broken,
// and the run proved nothing. Who gates on a run has to decide about it; a machine
// that is too slow gives it often.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitUnknown     = 7
	exitViolation   = 8
	exitInterrupted = 130
)

type cli struct {
	List     bool          `help:"List workloads, faults, checkers and mutants."`
	Workload []string      `help:"Workloads, one after the other; all for all." default:"queue" placeholder:"NAME"`
	Faults   []string      `help:"Kinds of faults; all, or none; mix, alone or with kinds, draws them by weight." default:"all" placeholder:"NAME"`
	Seed     uint64        `help:"Seed of the plan. Default: a random one, which is printed." placeholder:"N"`
	Time     time.Duration `help:"Length of a run." default:"30s"`
	Nodes    int           `help:"Nodes of the cluster." default:"3"`
	Rate     int           `help:"Publishes a second." default:"600"`
	Runs     int           `help:"How many runs of each workload, with the seeds that follow each other." default:"1"`
	Out      string        `help:"Directory for what runs leave behind. Default: a new one in the directory for temporary files." type:"path" placeholder:"DIR"`
	Keep     bool          `help:"Keep the data directories of runs that were valid."`
	Race     bool          `help:"Build onceq with the race detector."`
	Binary   string        `help:"An onceq to test in place of building one." type:"path" placeholder:"FILE"`
	Older    string        `help:"An onceq that nodes begin with when they will be upgraded. Default: one that is built, of the same sources, that knows one version of the machine less." type:"path" placeholder:"FILE"`
	Server   []string      `help:"More arguments of onceq server." placeholder:"ARG" sep:"none"`
	Mutant   []string      `help:"Test deliberately broken builds instead, which must be caught; all for all." placeholder:"NAME"`
	Tries    int           `help:"Runs that a mutant may survive before it counts as not caught." default:"3"`
	Check    string        `help:"Judge the history in a file again." type:"path" placeholder:"FILE"`
	JSON     bool          `name:"json" help:"Print a result as a line of JSON for each run."`

	done []report.Row // runs so far
}

func main() {
	if workload.Box() {
		return
	}
	var c cli
	kong.Parse(&c, kong.Name("jepsen"), kong.Description("Fault-injection tests of onceq. Exit code 0: valid; 8: a promise was seen broken; 7: nothing was seen broken, and too little happened to call it valid; 1: a run could not be made, or a broken build was not caught. Of several runs the worst counts."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := c.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "jepsen:", err)
	}
	os.Exit(code)
}

func (c *cli) run(ctx context.Context) (int, error) {
	switch {
	case c.List:
		list()
		return exitOK, nil
	case c.Check != "":
		return judge(c.Check)
	}
	if len(c.Workload) == 1 && c.Workload[0] == "all" {
		c.Workload = nil
		for _, w := range workload.All() {
			c.Workload = append(c.Workload, w.Name)
		}
	}
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
	if c.Older != "" {
		if _, err := os.Stat(c.Older); err != nil {
			return exitUsage, fmt.Errorf("--older: %w", err)
		}
	}
	if len(c.Mutant) > 0 {
		return c.mutants(ctx)
	}
	if c.Binary == "" {
		c.Binary = filepath.Join(c.Out, "onceq")
		if err := c.build(ctx, proc.Build{Out: c.Binary, Race: c.Race}); err != nil {
			return exitFailure, err
		}
	}
	worst := exitOK
	for i := range c.Runs {
		for _, w := range c.Workload {
			code, err := c.one(ctx, w, c.Seed+uint64(i))
			if err != nil || code == exitInterrupted {
				return max(code, worst), err
			}
			worst = max(worst, code)
		}
	}
	return worst, c.listRuns()
}

// listRuns writes a page of several runs.
func (c *cli) listRuns() error {
	if len(c.done) < 2 {
		return nil
	}
	path := filepath.Join(c.Out, "index.html")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(report.WriteRuns(f, c.done), f.Close()); err != nil {
		return err
	}
	if !c.JSON {
		fmt.Printf("%d runs  %s\n", len(c.done), path)
	}
	return nil
}

func (c *cli) build(ctx context.Context, b proc.Build) error {
	root, err := proc.Root(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.Out), 0o755); err != nil {
		return err
	}
	if !c.JSON {
		fmt.Fprintln(os.Stderr, "building onceq")
	}
	return b.Run(ctx, root)
}

// one makes one run and shows it.
func (c *cli) one(ctx context.Context, name string, seed uint64) (int, error) {
	t := newTerminal(c.JSON)
	t.title(name, c.Faults, seed, c.Time)
	res, err := jepsen.Run(ctx, jepsen.Config{
		Workload: name, Faults: c.Faults, Seed: seed, Time: c.Time, Nodes: c.Nodes, Rate: c.Rate,
		Binary: c.Binary, FaultFS: filepath.Join(c.Out, "faultfs"), Older: c.older(), Dir: freeDir(c.Out, fmt.Sprintf("%s-%d", name, seed)), KeepData: c.Keep, ServerArgs: c.Server,
		Progress: t.progress, Note: t.note,
	})
	t.end()
	interrupted := errors.Is(err, jepsen.ErrInterrupted)
	if err != nil && !interrupted {
		return exitFailure, err
	}
	if err := res.Write(c.again(name, seed)); err != nil {
		return exitFailure, err
	}
	t.result(res)
	c.done = append(c.done, report.Row{
		Workload: name, Faults: res.Report.Stats.Faults, Seed: seed, Verdict: res.Report.Verdict, Counts: res.Report.Counts, Reasons: res.Report.Reasons,
		Messages: res.Report.Stats.Messages, Elapsed: res.Elapsed, Link: filepath.Base(res.Dir) + "/report.html",
	})
	switch {
	case res.Report.Verdict == check.Invalid:
		return exitViolation, nil
	case interrupted:
		return exitInterrupted, nil
	case res.Report.Verdict == check.Unknown:
		return exitUnknown, nil
	}
	return exitOK, nil
}

// older is where the build is that nodes are upgraded from.
func (c *cli) older() string {
	if c.Older != "" {
		return c.Older
	}
	return filepath.Join(c.Out, "onceq-older")
}

// freeDir is a directory that does not exist yet.
func freeDir(out, name string) string {
	dir := filepath.Join(out, name)
	for n := 2; ; n++ {
		if _, err := os.Lstat(dir); err != nil {
			return dir
		}
		dir = filepath.Join(out, fmt.Sprintf("%s-again%d", name, n))
	}
}

// again is the command that repeats a run.
func (c *cli) again(name string, seed uint64) string {
	return fmt.Sprintf("go run ./cmd/jepsen --workload %s --faults %s --seed %d --time %v --nodes %d --rate %d",
		name, strings.Join(c.Faults, ","), seed, c.Time, c.Nodes, c.Rate)
}

func judge(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return exitFailure, err
	}
	defer f.Close()
	events, err := history.Read(f)
	if err != nil {
		return exitFailure, err
	}
	r := check.Run(events)
	newTerminal(false).report(r)
	switch r.Verdict {
	case check.Invalid:
		return exitViolation, nil
	case check.Unknown:
		return exitUnknown, nil
	}
	return exitOK, nil
}

func list() {
	fmt.Println("workloads")
	for _, w := range workload.All() {
		fmt.Printf("  %-22s %s\n", w.Name, w.What)
	}
	fmt.Println("faults (mix: by chance, alone or together)")
	for _, f := range nemesis.All() {
		what := f.What
		if needs := f.Requires(); needs != "" {
			what += " [needs " + needs + "]"
		}
		fmt.Printf("  %-22s %s\n", f.Name, what)
	}
	fmt.Println("checkers")
	for _, k := range check.Checkers() {
		fmt.Printf("  %-22s %s\n", k.Name, k.What)
	}
	fmt.Println("mutants: what each breaks")
	for _, m := range mutants.All() {
		what := m.Breaks
		if m.Slow {
			what += " [slow]"
		}
		fmt.Printf("  %-22s %s\n", m.Name, what)
	}
}
