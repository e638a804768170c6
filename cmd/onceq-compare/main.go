package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type options struct {
	Systems []string      `help:"Which systems: ${systems}." placeholder:"NAME,..." default:"onceq,jetstream,jetstream-always,rabbitmq"`
	Works   []string      `help:"Which work: ${works}. Default: all." placeholder:"NAME,..."`
	Runs    int           `help:"How often each system does each piece of work." default:"3" placeholder:"N"`
	Time    time.Duration `help:"How long a load is measured." default:"10s"`
	WarmUp  time.Duration `help:"How long it goes on before that." default:"2s"`
	Backlog int           `help:"Messages that are drained." default:"500000" placeholder:"N"`
	Dir     string        `help:"Where the data goes; the disk that is measured. Default: the directory for temporary files." type:"existingdir" placeholder:"DIR"`
	Onceq   string        `help:"Binary of onceq. Default: built from this tree." type:"existingfile" placeholder:"FILE"`
	Output  string        `short:"o" help:"How to write the figures: table, markdown, or jsonl (each run a line)." enum:"table,markdown,jsonl" default:"table"`
	Smoke   bool          `help:"A second of each, once: does everything still work?"`
}

const systemNames = "onceq, jetstream, jetstream-always, rabbitmq, bare"

const description = `Runs onceq and its peers in turn, in one run, under the same load, and prints
medians and ratios: how many times better onceq is than the best peer that is on
disks, by fsync, before it confirms.

Run it in its folder: JetStream is built from its Go module, onceq from this tree.
RabbitMQ is used when it is installed (apt-get install rabbitmq-server). A full run
takes about half an hour; use a machine that does nothing else.

RATIO is onceq to the best peer that is durable. With --systems onceq,...,bare there is
a limit beside: no queue, but three nodes of raft and raft-wal that make the same
messages durable, push them, take acks, and do nothing else. OF BARE is how much of
that onceq reaches.

Exit codes: 0 done, 1 a system could not be measured, 2 bad usage, 8 onceq lost a
message.`

func main() {
	beNode()
	var o options
	names := make([]string, len(works))
	for i, w := range works {
		names[i] = w.name + " (" + w.help + ")"
	}
	parser := kong.Must(&o, kong.Name("onceq-compare"), kong.Description(description), kong.Vars{
		"systems": systemNames, "works": strings.Join(names, "; "),
	})
	if _, err := parser.Parse(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "onceq-compare:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "onceq-compare:", err)
	}
	stop()
	os.Exit(code)
}

func run(ctx context.Context, o options) (code int, err error) {
	chosen, err := chooseWorks(o.Works)
	if err != nil {
		return 2, err
	}
	if o.Runs < 1 || o.Time <= 0 || o.WarmUp < 0 || o.Backlog < 4 {
		return 2, errors.New("--runs and --time must be more than 0, --backlog at least 4")
	}
	s := sizes{o.Time, o.WarmUp, o.Backlog, ""}
	if o.Smoke {
		o.Runs, s = 1, sizes{time.Second, 200 * time.Millisecond, 5000, ""}
	}
	dir, err := os.MkdirTemp(o.Dir, "onceq-compare-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	systems, err := chooseSystems(ctx, o, dir)
	if err != nil {
		return 2, err
	}
	fmt.Fprintf(os.Stderr, "%s, %d CPUs, data in %s\n", runtime.Version(), runtime.NumCPU(), dir)
	for _, sys := range systems {
		fmt.Fprintf(os.Stderr, "  %-17s %s\n", sys.Name(), sys.Version())
	}
	var results []result
	for n := range o.Runs {
		for i := range systems {
			// Another one begins each time: the machine may be warm or slow at first.
			sys := systems[(i+n)%len(systems)]
			for _, r := range measure(ctx, sys, chosen, s, filepath.Join(dir, fmt.Sprintf("%s-%d", sys.Name(), n)), n) {
				results = append(results, r)
				if o.Output == "jsonl" {
					b, _ := json.Marshal(r) // of plain fields
					fmt.Println(string(b))
				}
			}
			if ctx.Err() != nil {
				return 130, errors.New("interrupted")
			}
		}
	}
	if o.Output != "jsonl" {
		if err := writeTable(os.Stdout, systems, results, o.Output == "markdown"); err != nil {
			return 1, err
		}
	}
	return verdict(results)
}

// verdict is the exit code, and why.
func verdict(results []result) (int, error) {
	for _, r := range results {
		if r.System == "onceq" && r.Lost > 0 {
			return 8, fmt.Errorf("onceq lost %g messages in %s", r.Lost, r.Work)
		}
	}
	for _, r := range results {
		if r.Err != "" {
			return 1, fmt.Errorf("%s, %s: %s", r.System, r.Work, r.Err)
		}
	}
	return 0, nil
}

// measure starts a system, gives it all the work, and ends it.
func measure(ctx context.Context, sys system, chosen []work, s sizes, dir string, run int) (results []result) {
	failed := func(w work, err error) {
		results = append(results, result{System: sys.Name(), Work: w.name, Run: run, Err: err.Error()})
		fmt.Fprintf(os.Stderr, "%s, %s: %v\n", sys.Name(), w.name, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		failed(chosen[0], err)
		return results
	}
	defer os.RemoveAll(dir)
	c, err := sys.Start(ctx, dir)
	if err != nil {
		failed(chosen[0], fmt.Errorf("start: %w", err))
		return results
	}
	defer c.Close()
	for _, w := range chosen {
		if ctx.Err() != nil {
			return results
		}
		if !sys.Does(w) {
			continue
		}
		r := result{System: sys.Name(), Work: w.name, Run: run}
		if err := do(ctx, c, w, s, &r); err != nil {
			failed(w, err)
			continue
		}
		results = append(results, r)
		fmt.Fprintf(os.Stderr, "%s, %s, run %d: %s\n", sys.Name(), w.name, run+1, summary(r))
	}
	return results
}

func summary(r result) string {
	if r.Work == "failover" {
		return fmt.Sprintf("gap %s s, %s lost, %s delivered twice", digits(r.Gap), thousands(r.Lost), thousands(r.Twice))
	}
	return fmt.Sprintf("%s/s, p50 %s ms, p99 %s ms, %s CPU s per 1,000, %s B written a message",
		thousands(r.PerSecond), digits(r.P50), digits(r.P99), digits(r.ServerCPU), thousands(r.Written))
}

func chooseWorks(names []string) ([]work, error) {
	if len(names) == 0 {
		return works, nil
	}
	var chosen []work
	for _, name := range names {
		i := slices.IndexFunc(works, func(w work) bool { return w.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no work %q; there is: %s", name, strings.Join(workNames(), ", "))
		}
		chosen = append(chosen, works[i])
	}
	// A work that kills comes last: it leaves a cluster of two.
	slices.SortStableFunc(chosen, func(a, b work) int {
		return map[bool]int{false: 0, true: 1}[a.kills] - map[bool]int{false: 0, true: 1}[b.kills]
	})
	return chosen, nil
}

func workNames() (names []string) {
	for _, w := range works {
		names = append(names, w.name)
	}
	return names
}

// chooseSystems builds what is to be measured.
func chooseSystems(ctx context.Context, o options, dir string) (systems []system, err error) {
	var nats string
	for _, name := range o.Systems {
		switch name {
		case "onceq":
			s, err := newOnceq(ctx, o.Onceq, dir)
			if err != nil {
				return nil, err
			}
			systems = append(systems, s)
		case "jetstream", "jetstream-always":
			if nats == "" {
				nats = filepath.Join(dir, "nats-server")
				if err := goBuild(ctx, ".", nats, natsModule); err != nil {
					return nil, err
				}
			}
			version, err := moduleOf(ctx, "{{.Version}}", natsModule)
			if err != nil {
				return nil, err
			}
			systems = append(systems, &jetstreamSystem{nats, "nats-server " + version, name == "jetstream-always"})
		case "bare":
			s, err := newBare(ctx)
			if err != nil {
				return nil, err
			}
			systems = append(systems, s)
		case "rabbitmq":
			s, err := newRabbit(ctx)
			if errors.Is(err, errNoRabbit) && len(o.Systems) > 1 {
				fmt.Fprintln(os.Stderr, "left out:", err)
				continue
			}
			if err != nil {
				return nil, err
			}
			systems = append(systems, s)
		default:
			return nil, fmt.Errorf("no system %q; there is: %s", name, systemNames)
		}
	}
	if len(systems) == 0 {
		return nil, errors.New("no system to measure")
	}
	return systems, nil
}
