package jepsen

import (
	"encoding/json"
	"errors"
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
		os.WriteFile(filepath.Join(r.Dir, "results.json"), append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(r.Dir, "replay.txt"), []byte(again+"\n"), 0o644))
}
