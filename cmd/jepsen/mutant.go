package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"onceq/jepsen"
	"onceq/jepsen/check"
	"onceq/jepsen/mutants"
	"onceq/jepsen/proc"
	"onceq/jepsen/report"
)

// caught is what came of one mutant.
type caught struct {
	Mutant  string   `json:"mutant"`
	Breaks  string   `json:"breaks"`
	By      []string `json:"by,omitempty"`     // checkers, the one that showed first in front
	Beside  []string `json:"beside,omitempty"` // what checkers saw that are not about the rule, when none that is saw it
	Seconds float64  `json:"seconds"`          // of traffic until it showed
	Runs    int      `json:"runs"`
	Seed    uint64   `json:"seed"` // of the last run
	Error   string   `json:"error,omitempty"`
	page    string   // of its last run
}

// mutants builds each mutant and runs the workload that should catch it.
func (c *cli) mutants(ctx context.Context) (int, error) {
	all, err := mutants.Find(c.Mutant)
	if err != nil {
		return exitUsage, err
	}
	root, err := proc.Root(ctx)
	if err != nil {
		return exitFailure, err
	}
	c.Judge = filepath.Join(c.Out, "onceq-judge")
	if err := c.build(ctx, proc.Build{Out: c.Judge}); err != nil {
		return exitFailure, err
	}
	t := c.terminal()
	var done []caught
	var lines []report.Mutant
	for _, m := range all {
		r := c.mutant(ctx, m, root)
		if ctx.Err() != nil {
			return exitInterrupted, nil
		}
		done = append(done, r)
		lines = append(lines, report.Mutant{Name: m.Name, Breaks: m.Breaks, Workload: m.Workload, By: r.By, Beside: r.Beside, Seconds: r.Seconds, Runs: r.Runs, Error: r.Error, Link: r.page})
		t.mutant(r)
	}
	page, err := c.listMutants(lines)
	if err != nil {
		return exitFailure, err
	}
	t.mutants(len(lines), page)
	if err := notCaught(done); err != nil {
		return exitFailure, err
	}
	return exitOK, nil
}

// notCaught says of how many broken builds nothing was seen. One that could not be run
// says nothing about the suite, and is no success.
func notCaught(all []caught) error {
	survived, notRun := 0, 0
	for _, r := range all {
		switch {
		case r.Error != "":
			notRun++
		case len(r.By) == 0:
			survived++
		}
	}
	var parts []string
	if survived > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d mutants were not caught", survived, len(all)))
	}
	if notRun > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d mutants could not be run", notRun, len(all)))
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(strings.Join(parts, ", "))
}

// listMutants writes the page of which checker caught which mutant.
func (c *cli) listMutants(all []report.Mutant) (string, error) {
	path := filepath.Join(c.Out, "mutants.html")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(report.WriteMutants(f, all), f.Close())
}

func (c *cli) mutant(ctx context.Context, m mutants.Mutant, root string) caught {
	r := caught{Mutant: m.Name, Breaks: m.Breaks}
	dir := filepath.Join(c.Out, "mutant-"+m.Name)
	fail := func(err error) caught { r.Error = err.Error(); return r }
	flags, err := m.Prepare(ctx, root, filepath.Join(dir, "build"))
	if err != nil {
		return fail(err)
	}
	server := filepath.Join(dir, "onceq")
	if err := (proc.Build{Out: server, Flags: flags, Race: c.Race}).Run(ctx, root); err != nil {
		return fail(err)
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	if m.OfClient() {
		// The client library is part of the harness, so that is built anew too.
		self = filepath.Join(dir, "jepsen")
		if err := (proc.Build{Out: self, Package: "./cmd/jepsen", Flags: flags}).Run(ctx, root); err != nil {
			return fail(err)
		}
	}
	for r.Runs = 1; ; r.Runs++ {
		r.Seed = c.Seed + uint64(r.Runs-1)
		s, err := c.child(ctx, self, server, dir, m, r.Seed)
		if err != nil {
			return fail(err)
		}
		if rel, err := filepath.Rel(c.Out, filepath.Join(s.Dir, "report.html")); err == nil {
			r.page = rel
		}
		if s.Verdict == check.Invalid && m.Caught(s.By()) {
			r.By, r.Beside, r.Seconds = s.By(), nil, s.FirstOf(m.By).Seconds()
			return r
		}
		for _, checker := range s.By() {
			if !slices.Contains(r.Beside, checker) {
				r.Beside = append(r.Beside, checker)
			}
		}
		if r.Runs == c.Tries || ctx.Err() != nil {
			return r
		}
	}
}

// child makes one run in a process of its own.
func (c *cli) child(ctx context.Context, self, server, dir string, m mutants.Mutant, seed uint64) (jepsen.Summary, error) {
	var s jepsen.Summary
	cmd := exec.CommandContext(ctx, self, "--json", "--binary", server, "--judge", c.Judge, "--workload", m.Workload, "--faults", strings.Join(m.Faults, ","),
		"--seed", strconv.FormatUint(seed, 10), "--time", c.Time.String(), "--nodes", strconv.Itoa(c.Nodes), "--rate", strconv.Itoa(c.Rate), "--out", dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	code := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &code) {
		return s, err
	}
	if jerr := json.Unmarshal(out.Bytes(), &s); jerr != nil {
		return s, fmt.Errorf("run of the mutant: %v: %s", err, lastLine(errs.String()))
	}
	if !slices.Contains([]check.Verdict{check.Valid, check.Invalid, check.Unknown}, s.Verdict) {
		return s, fmt.Errorf("run of the mutant: verdict %q", s.Verdict)
	}
	return s, nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
