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
	By      []string `json:"by,omitempty"` // checkers, the one that showed first in front
	Seconds float64  `json:"seconds"`      // of traffic until it showed
	Runs    int      `json:"runs"`
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
	survived := 0
	var lines []report.Mutant
	for _, m := range all {
		r := c.mutant(ctx, m, root)
		if ctx.Err() != nil {
			return exitInterrupted, nil
		}
		if len(r.By) == 0 {
			survived++
		}
		lines = append(lines, report.Mutant{Name: m.Name, Breaks: m.Breaks, Workload: m.Workload, By: r.By, Seconds: r.Seconds, Runs: r.Runs, Error: r.Error, Link: r.page})
		if c.JSON {
			b, err := json.Marshal(r)
			if err != nil {
				return exitFailure, err
			}
			fmt.Println(string(b))
			continue
		}
		switch {
		case r.Error != "":
			fmt.Printf("%-24s NOT RUN: %s\n", m.Name, r.Error)
		case len(r.By) == 0:
			fmt.Printf("%-24s SURVIVED %d runs: %s\n", m.Name, r.Runs, m.Breaks)
		default:
			fmt.Printf("%-24s caught by %s in %.1f s (run %d)\n", m.Name, strings.Join(r.By, ", "), r.Seconds, r.Runs)
		}
	}
	if err := c.listMutants(lines); err != nil {
		return exitFailure, err
	}
	if survived > 0 {
		return exitFailure, fmt.Errorf("%d of %d mutants were not caught", survived, len(all))
	}
	return exitOK, nil
}

// listMutants writes the page of which checker caught which mutant, and prints it.
func (c *cli) listMutants(all []report.Mutant) error {
	path := filepath.Join(c.Out, "mutants.html")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(report.WriteMutants(f, all), f.Close()); err != nil || c.JSON {
		return err
	}
	fmt.Printf("\n%d broken builds  %s\n", len(all), path)
	return nil
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
		s, err := c.child(ctx, self, server, dir, m, c.Seed+uint64(r.Runs-1))
		if err != nil {
			return fail(err)
		}
		if rel, err := filepath.Rel(c.Out, filepath.Join(s.Dir, "report.html")); err == nil {
			r.page = rel
		}
		if s.Verdict == check.Invalid {
			r.By, r.Seconds = s.By(), s.First.Seconds()
			return r
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
