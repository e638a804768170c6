package jepsen

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"onceq/jepsen/check"
	"onceq/jepsen/report"
)

// Summary is a result as one JSON object.
type Summary struct {
	Workload string            `json:"workload"`
	Faults   []string          `json:"faults"`
	LeftOut  []string          `json:"left_out,omitempty"` // faults that could not be made here, and why
	Seed     uint64            `json:"seed"`
	Verdict  check.Verdict     `json:"verdict"`
	Counts   map[string]int    `json:"violations"`
	Reasons  []string          `json:"reasons,omitempty"`
	Stats    check.Stats       `json:"stats"`
	First    time.Duration     `json:"first"` // when the first violation showed
	Shown    []check.Violation `json:"shown,omitempty"`
	Elapsed  time.Duration     `json:"elapsed"`
	Dir      string            `json:"dir"`
}

// Summary sums up.
func (r *Result) Summary() Summary {
	s := Summary{
		Workload: r.Setup.Workload, Faults: r.Setup.Faults, LeftOut: r.Setup.LeftOut, Seed: r.Setup.Seed, Verdict: r.Report.Verdict, Counts: r.Report.Counts,
		Reasons: r.Report.Reasons, Stats: r.Report.Stats, Shown: r.Report.Violations, Elapsed: r.Elapsed, Dir: r.Dir,
	}
	if len(s.Shown) > 0 {
		s.First = time.Duration(s.Shown[0].At)
	}
	return s
}

// ReadSummaries reads what Write left of the runs whose directories are in dir, the
// oldest first.
func ReadSummaries(dir string) ([]Summary, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*", resultsFile))
	if err != nil {
		return nil, err
	}
	var all []Summary
	at := map[string]time.Time{}
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		var s Summary
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		s.Dir = filepath.Dir(p) // it may have been moved
		at[s.Dir] = st.ModTime()
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b Summary) int { return at[a.Dir].Compare(at[b.Dir]) })
	return all, nil
}

const resultsFile = "results.json"

// By names the checkers that saw a violation, the first in front.
func (s Summary) By() []string {
	var names []string
	for _, v := range s.Shown {
		if !slices.Contains(names, v.Checker) {
			names = append(names, v.Checker)
		}
	}
	return names
}

// FirstOf is when the first violation showed that one of these checkers saw.
func (s Summary) FirstOf(checkers []string) time.Duration {
	for _, v := range s.Shown {
		if slices.Contains(checkers, v.Checker) {
			return time.Duration(v.At)
		}
	}
	return 0
}

// Write writes results.json, report.html and replay.txt. again is the command that
// repeats the run.
func (r *Result) Write(again string) error {
	b, err := json.MarshalIndent(r.Summary(), "", "  ")
	if err != nil {
		return err
	}
	var logs []string
	for _, n := range r.nodes {
		logs = append(logs, n+".log")
	}
	f, err := os.Create(filepath.Join(r.Dir, "report.html"))
	if err != nil {
		return err
	}
	err = report.Write(f, report.Run{
		Setup: r.Setup, Report: r.Report, Events: r.Events, Command: again, Logs: logs, Notes: r.Notes, Elapsed: r.Elapsed,
	})
	return errors.Join(err, f.Close(),
		os.WriteFile(filepath.Join(r.Dir, resultsFile), append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(r.Dir, "replay.txt"), []byte(again+"\n"), 0o644))
}
