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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

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
	Faults   []string      `help:"Kinds of faults; mix, alone or with kinds, draws them by weight; all has each of them come, which takes many minutes; none has none." default:"mix" placeholder:"NAME"`
	Seed     uint64        `help:"Seed of the plan. Default: a random one, which is printed." placeholder:"N"`
	Time     time.Duration `help:"Length of a run." default:"30s"`
	Nodes    int           `help:"Nodes of the cluster." default:"3"`
	Rate     int           `help:"Publishes a second." default:"600"`
	Runs     int           `help:"How many runs of each workload, with the seeds that follow each other." default:"1"`
	Out      string        `help:"Directory for what runs leave behind. Default: a new one in the directory for temporary files." type:"path" placeholder:"DIR"`
	Keep     bool          `help:"Keep the data directories of runs that were valid."`
	Race     bool          `help:"Build onceq with the race detector."`
	Binary   string        `help:"An onceq to test in place of building one." type:"path" placeholder:"FILE"`
	Judge    string        `help:"An onceq whose node verify is believed, when the one that is tested is broken on purpose." type:"path" placeholder:"FILE"`
	Older    string        `help:"An onceq that nodes begin with when they will be upgraded. Default: one that is built, of the same sources, that knows only the first version of the machine." type:"path" placeholder:"FILE"`
	Server   []string      `help:"More arguments of onceq server." placeholder:"ARG" sep:"none"`
	Mutant   []string      `help:"Test deliberately broken builds instead, which must be caught; all for all." placeholder:"NAME"`
	Tries    int           `help:"Runs that a mutant may survive before it counts as not caught." default:"3"`
	Check    string        `help:"Judge the history in a file again." type:"path" placeholder:"FILE"`
	Sum      string        `help:"Sum up the runs in a directory, of whatever commands." type:"path" placeholder:"DIR"`
	JSON     bool          `name:"json" help:"Print a result as a line of JSON for each run."`

	tested string `kong:"-"` // the onceq that the runs are of
}

func main() {
	if workload.Child() {
		return
	}
	var c cli
	parser := kong.Must(&c, kong.Name("jepsen"), kong.Description("Fault-injection tests of onceq. Exit code 0: valid; 8: a promise was seen broken; 7: nothing was seen broken, and too little happened to call it valid; 1: a run could not be made, or a broken build was not caught; 2: it was asked for in a way that makes no sense. Of several runs the worst counts."))
	if _, err := parser.Parse(os.Args[1:]); err != nil {
		parser.Errorf("%s", err)
		os.Exit(exitUsage)
	}
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
	case c.Sum != "":
		return c.sumUp(c.Sum)
	case c.Runs < 1:
		return exitUsage, fmt.Errorf("--runs %d: write 1 or more", c.Runs)
	case c.Tries < 1:
		return exitUsage, fmt.Errorf("--tries %d: write 1 or more", c.Tries)
	}
	if len(c.Workload) == 1 && c.Workload[0] == "all" {
		c.Workload = nil
		for _, w := range workload.All() {
			c.Workload = append(c.Workload, w.Name)
		}
	}
	if len(c.Mutant) == 0 {
		for _, w := range c.Workload {
			if err := c.config(w, c.Seed).Check(); err != nil {
				return exitUsage, err
			}
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
	if c.tested = c.Binary; c.tested == "" {
		c.tested = filepath.Join(c.Out, "onceq")
		if err := c.build(ctx, proc.Build{Out: c.tested, Race: c.Race}); err != nil {
			return exitFailure, err
		}
	}
	worst, made, err := c.runs(ctx)
	if made < 2 {
		return worst, err
	}
	_, serr := c.sumUp(c.Out)
	return worst, errors.Join(err, serr)
}

// runs makes all runs, until one cannot be made or the command is interrupted. It
// returns the worst exit code and how many were made.
func (c *cli) runs(ctx context.Context) (worst, made int, err error) {
	for i := range c.Runs {
		for _, w := range c.Workload {
			code, err := c.one(ctx, w, c.Seed+uint64(i))
			worst = worse(worst, code)
			if err != nil {
				return worst, made, err
			}
			if made++; ctx.Err() != nil {
				return worst, made, nil
			}
		}
	}
	return worst, made, nil
}

// worse is the one of two exit codes that matters more: a violation that was seen
// stands, whatever came after it.
func worse(a, b int) int {
	rank := []int{exitOK, exitUnknown, exitInterrupted, exitFailure, exitViolation}
	if slices.Index(rank, a) > slices.Index(rank, b) {
		return a
	}
	return b
}

// sumUp writes a page of the runs in a directory, and shows what they come to.
func (c *cli) sumUp(dir string) (int, error) {
	all, err := jepsen.ReadSummaries(dir)
	if err != nil {
		return exitFailure, err
	}
	if len(all) == 0 {
		return exitFailure, fmt.Errorf("%s has no directory of a run in it", dir)
	}
	var rows []report.Row
	for _, s := range all {
		rows = append(rows, report.Row{
			Workload: s.Workload, Seed: s.Seed, Verdict: s.Verdict, Counts: s.Counts, Reasons: s.Reasons, Stats: s.Stats,
			Elapsed: s.Elapsed, Link: filepath.Base(s.Dir) + "/report.html",
		})
	}
	path := filepath.Join(dir, "index.html")
	f, err := os.Create(path)
	if err != nil {
		return exitFailure, err
	}
	if err := errors.Join(report.WriteRuns(f, rows), f.Close()); err != nil {
		return exitFailure, err
	}
	total := report.Sum(rows)
	c.terminal().total(total, path)
	return codeOf(total.Verdict), nil
}

func (c *cli) build(ctx context.Context, b proc.Build) error {
	root, err := proc.Root(ctx)
	if err != nil {
		return fmt.Errorf("an onceq (name one with --binary otherwise): %w", err)
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
	t := c.terminal()
	t.title(name, c.Faults, seed, c.Time)
	cfg := c.config(name, seed)
	cfg.FaultFS, cfg.Older, cfg.Dir = filepath.Join(c.Out, "faultfs"), c.older(), freeDir(c.Out, fmt.Sprintf("%s-%d", name, seed))
	cfg.Progress, cfg.Note = t.progress, t.note
	res, err := jepsen.Run(ctx, cfg)
	t.end()
	interrupted := errors.Is(err, jepsen.ErrInterrupted)
	if err != nil && (!interrupted || res == nil) {
		return exitFailure, err
	}
	if err := res.Write(c.again(name, seed)); err != nil {
		return exitFailure, err
	}
	t.result(res)
	if code := codeOf(res.Report.Verdict); !interrupted || code == exitViolation {
		return code, nil
	}
	return exitInterrupted, nil
}

// codeOf is the exit code that tells a verdict.
func codeOf(v check.Verdict) int {
	switch v {
	case check.Invalid:
		return exitViolation
	case check.Unknown:
		return exitUnknown
	}
	return exitOK
}

func (c *cli) terminal() *terminal { return newTerminal(os.Stdout, os.Stderr, c.JSON) }

// config is one run of the command.
func (c *cli) config(workload string, seed uint64) jepsen.Config {
	return jepsen.Config{
		Workload: workload, Faults: c.Faults, Seed: seed, Time: c.Time, Nodes: c.Nodes, Rate: c.Rate,
		Binary: c.tested, Judge: c.Judge, KeepData: c.Keep, ServerArgs: c.Server,
	}
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

// again is the command that repeats a run, with all that it depends on.
func (c *cli) again(name string, seed uint64) string {
	args := []string{"--workload", name, "--faults", strings.Join(c.Faults, ","), "--seed", strconv.FormatUint(seed, 10),
		"--time", c.Time.String(), "--nodes", strconv.Itoa(c.Nodes), "--rate", strconv.Itoa(c.Rate)}
	if c.Binary != "" {
		args = append(args, "--binary", c.Binary)
	}
	if c.Judge != "" {
		args = append(args, "--judge", c.Judge)
	}
	if c.Older != "" {
		args = append(args, "--older", c.Older)
	}
	if c.Race {
		args = append(args, "--race")
	}
	for _, a := range c.Server {
		args = append(args, "--server="+a)
	}
	for i, a := range args {
		if strings.ContainsFunc(a, forShell) {
			args[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return "go run ./cmd/jepsen " + strings.Join(args, " ")
}

// forShell says whether a shell may take a character for more than itself.
func forShell(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_=/.,:+@%", r)
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
	newTerminal(os.Stdout, os.Stderr, false).report(r)
	return codeOf(r.Verdict), nil
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
