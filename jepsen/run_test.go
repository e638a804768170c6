package jepsen

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onceq/jepsen/check"
	"onceq/jepsen/history"
	"onceq/jepsen/proc"
	"onceq/jepsen/proc/proctest"
	"onceq/jepsen/workload"
)

func TestMain(m *testing.M) {
	if workload.Child() {
		return
	}
	goleak.VerifyTestMain(m)
}

// build builds onceq once for all scenarios.
func build(t *testing.T) string {
	t.Helper()
	root, err := proc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "onceq")
	if err := (proc.Build{Out: binary}).Run(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	return binary
}

// TestRun_ShortScenarios makes runs that end when something was published, delivered
// and broken.
func TestRun_ShortScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("starts clusters of processes")
	}
	binary := build(t)
	seed := rand.Uint64N(1_000_000)
	for _, s := range []struct {
		workload string
		faults   []string
		seen     int
	}{
		{"queue", []string{"kill", "lost-reply", "cut"}, 3},
		{"dedup", []string{"lost-reply", "transfer"}, 2},
		{"lease", []string{"cut"}, 1},
		{"order", []string{"refuse"}, 1},
		{"outbox", []string{"kill", "lost-reply"}, 1},
		{"stall", []string{"cut"}, 1},
		// Without root two of them are left out.
		{"queue", []string{"mix", "kill", "partition-one", "power-loss-all"}, 1},
	} {
		t.Run(s.workload, func(t *testing.T) {
			dir := t.TempDir()
			res, err := Run(t.Context(), Config{
				Workload: s.workload, Faults: s.faults, Seed: seed, Time: timeMax, Rate: 200, Binary: binary, Dir: dir, Note: t.Logf,
				Enough: func(p Progress) bool { return p.Published > 0 && p.Delivered > 0 && p.Seen >= s.seen },
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("seed %d: %s in %v, %+v", seed, res.Report.Verdict, res.Elapsed, res.Report.Stats)
			for _, v := range res.Report.Violations {
				t.Errorf("%s %s: %s (lines %v)", v.Checker, v.ID, v.Text, v.Lines)
			}
			// On a slow machine too little may happen for a verdict; but not nothing.
			for _, reason := range res.Report.Reasons {
				t.Logf("unknown: %s", reason)
			}
			seen, tidy := 0, 0
			for _, e := range res.Events {
				if e.F == history.Tidy {
					tidy++ // when it begins, and when it ends
				}
				if e.F == history.Sizes && tidy > 0 && (e.Sizes.Log == 0 || e.Node == "") {
					t.Errorf("a node without a log: %s, %+v", e.Node, *e.Sizes)
				}
				if e.F == history.Fault && e.Type == history.OK && e.Seen {
					seen++
				}
			}
			if stats := res.Report.Stats; stats.Publishes["ok"] == 0 || stats.Deliveries == 0 || seen < s.seen {
				t.Errorf("%s, and too little happened: %d faults had an effect, %+v", res.Report.Verdict, seen, stats)
			}
			if tidy != 2 {
				t.Errorf("%d lines of 2 say that it was waited for what nodes keep", tidy)
			}
			if err := res.Write("go test"); err != nil {
				t.Fatal(err)
			}
			for _, f := range []string{"history.jsonl", "report.html", "results.json", "replay.txt", "n1.log"} {
				if st, err := os.Stat(filepath.Join(dir, f)); err != nil || st.Size() == 0 {
					t.Errorf("%s: %v", f, err)
				}
			}
		})
	}
}

// timeMax bounds a run that ends when enough has happened.
const timeMax = time.Minute

func TestRun_RefusesADirectoryWithAnotherRunInIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "n1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), Config{Dir: dir, Binary: "/nothing"}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("the run gives %v", err)
	}
}

func TestRun_RefusesNonsenseBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{
		{Workload: "nonsense"},
		{Faults: []string{"kill", "nonsense"}},
		{Nodes: 17},
		{Rate: -1},
		{Time: -time.Second},
	} {
		c.Dir = filepath.Join(t.TempDir(), "run")
		if _, err := Run(context.Background(), c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
		if c.Check() == nil {
			t.Errorf("%+v is found good", c)
		}
		if _, err := os.Stat(c.Dir); err == nil {
			t.Errorf("%+v has left something behind", c)
		}
	}
}

func TestRun_AllNodesEndAtTheStart_TellsWhatTheySaid(t *testing.T) {
	t.Parallel()
	cfg := Config{Faults: []string{"kill"}, Binary: proctest.Program(t, "echo no such option >&2; exit 3"), Dir: filepath.Join(t.TempDir(), "run")}
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no such option") {
		t.Errorf("the run gives %v", err)
	}
}

func TestRun_InterruptedBeforeANodeLeads_SaysSo(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	cfg := Config{Faults: []string{"kill"}, Binary: proctest.Program(t, "read line"), Dir: filepath.Join(t.TempDir(), "run"),
		Progress: func(Progress) { interrupt() }}
	res, err := Run(ctx, cfg)
	if !errors.Is(err, ErrInterrupted) || strings.Contains(err.Error(), "no leader") {
		t.Fatalf("the run gives %v", err)
	}
	if res.Report.Verdict != check.Unknown || !slices.Contains(res.Notes, "interrupted") {
		t.Errorf("%s, notes %q", res.Report.Verdict, res.Notes)
	}
}
