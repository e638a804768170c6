package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"onceq/jepsen"
	"onceq/jepsen/check"
	"onceq/jepsen/report"
)

// terminal shows runs to a person, or results to a program.
type terminal struct {
	out  io.Writer // results
	errs io.Writer // how it goes
	json bool
	live bool // the progress line is written over

	mu    sync.Mutex // guards what follows, and the order of output
	shown time.Time
	open  bool // a progress line is on the screen
}

// progressEvery is how often progress is a line when it is not written over.
const progressEvery = 10 * time.Second

// shownMost is how many violations of a checker are shown; the report has more.
const shownMost = 5

func newTerminal(out, errs io.Writer, asJSON bool) *terminal {
	f, ok := errs.(*os.File)
	return &terminal{out: out, errs: errs, json: asJSON, live: ok && !asJSON && term.IsTerminal(int(f.Fd()))}
}

func (t *terminal) title(workload string, faults []string, seed uint64, d time.Duration) {
	if !t.json {
		fmt.Fprintf(t.errs, "%s for %v, faults %s, seed %d\n", workload, d, strings.Join(faults, ","), seed)
	}
}

func (t *terminal) progress(p jepsen.Progress) {
	if t.json {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.live && time.Since(t.shown) < progressEvery {
		return
	}
	t.shown = time.Now()
	leader := p.Leader
	if leader == "" {
		leader = "-"
	}
	line := fmt.Sprintf("  %6.1f s %-6s leader %-3s published %d (%d unknown, %d refused)  delivered %d  acked %d (%d lost)",
		p.At.Seconds(), p.Phase, leader, p.Published, p.Unknown, p.Refused, p.Delivered, p.Acked, p.Lost)
	if p.Fault != "" {
		line += "  " + p.Fault
	}
	if t.live {
		fmt.Fprintf(t.errs, "\r\x1b[K%s", line)
		t.open = true
	} else {
		fmt.Fprintln(t.errs, line)
	}
}

func (t *terminal) note(format string, args ...any) {
	if t.json {
		return
	}
	t.end()
	fmt.Fprintf(t.errs, "  note: "+format+"\n", args...)
}

// end ends the progress line.
func (t *terminal) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open {
		fmt.Fprint(t.errs, "\r\x1b[K")
		t.open = false
	}
}

func (t *terminal) result(res *jepsen.Result) {
	if t.json {
		b, err := json.Marshal(res.Summary())
		if err != nil {
			b = fmt.Appendf(nil, "%q", err)
		}
		fmt.Fprintln(t.out, string(b))
		return
	}
	t.report(res.Report)
	for _, f := range res.Setup.LeftOut {
		fmt.Fprintf(t.out, "  LEFT OUT %s\n", f)
	}
	fmt.Fprintf(t.out, "  report   %s\n", filepath.Join(res.Dir, "report.html"))
}

func (t *terminal) report(r *check.Report) {
	s := r.Stats
	fmt.Fprintf(t.out, "%s\n", strings.ToUpper(string(r.Verdict)))
	for _, reason := range r.Reasons {
		fmt.Fprintf(t.out, "  because  %s\n", reason)
	}
	fmt.Fprintf(t.out, "  messages %d   publishes %s   duplicates %d\n", s.Messages, counted(s.Publishes), s.Duplicates)
	fmt.Fprintf(t.out, "  deliveries %d   again %s   acks %s\n", s.Deliveries, counted(s.Again), counted(s.Acks))
	fmt.Fprintf(t.out, "  faults   %s   longest stall %.1f s\n", counted(s.Faults), s.LongestGap)
	if len(s.Stops) > 0 {
		fmt.Fprintf(t.out, "  stops of clients  %s\n", counted(s.Stops))
	}
	for i, kind := range slices.Sorted(maps.Keys(s.Stalls)) {
		if i == 0 {
			fmt.Fprintf(t.out, "  %-20s %6s %9s %9s\n", "STALL BY FAULT", "FAULTS", "MEDIAN", "WORST")
		}
		x := s.Stalls[kind]
		fmt.Fprintf(t.out, "  %-20s %6d %7.2f s %7.2f s\n", kind, x.Faults, x.Median, x.Worst)
	}
	shown := map[string]int{}
	var violations []check.Violation
	for _, v := range r.Violations {
		if shown[v.Checker] < shownMost {
			shown[v.Checker]++
			violations = append(violations, v)
		}
	}
	for _, name := range keys(r.Counts) {
		text := fmt.Sprintf("%d times", r.Counts[name])
		if shown[name] < r.Counts[name] {
			text += fmt.Sprintf(", %d of %d shown", shown[name], r.Counts[name])
		}
		fmt.Fprintf(t.out, "  VIOLATED %s: %s\n", name, text)
	}
	for _, v := range violations {
		text, _, _ := strings.Cut(v.Text, "\n")
		fmt.Fprintf(t.out, "  %8.2f s %-12s %s %s (lines %v)\n", time.Duration(v.At).Seconds(), v.Checker, v.ID, text, v.Lines)
	}
}

// mutant shows what came of a broken build.
func (t *terminal) mutant(r caught) {
	switch {
	case t.json:
		b, err := json.Marshal(r)
		if err != nil {
			b = fmt.Appendf(nil, "%q", err)
		}
		fmt.Fprintln(t.out, string(b))
	case r.Error != "":
		fmt.Fprintf(t.out, "%-24s NOT RUN: %s\n", r.Mutant, r.Error)
	case len(r.By) == 0:
		fmt.Fprintf(t.out, "%-24s SURVIVED %d runs, the last with seed %d: %s%s\n", r.Mutant, r.Runs, r.Seed, r.Breaks, besides(r.Beside))
	default:
		fmt.Fprintf(t.out, "%-24s caught by %s in %.1f s (run %d, seed %d)\n", r.Mutant, strings.Join(r.By, ", "), r.Seconds, r.Runs, r.Seed)
	}
}

// besides tells of checkers that are about something else.
func besides(checkers []string) string {
	if len(checkers) == 0 {
		return ""
	}
	return " (seen only by " + strings.Join(checkers, ", ") + ")"
}

// mutants shows where the page of all broken builds is.
func (t *terminal) mutants(n int, page string) {
	if !t.json {
		fmt.Fprintf(t.out, "\n%d broken builds  %s\n", n, page)
	}
}

// total shows what several runs come to.
func (t *terminal) total(sum report.Total, page string) {
	if t.json {
		return
	}
	fmt.Fprintf(t.out, "%s  %s\n", sum, page)
	for i, f := range sum.Faults {
		if i == 0 {
			fmt.Fprintf(t.out, "  %-20s %6s %15s %9s\n", "FAULT", "SEEN", "STALL, MEDIAN", "WORST")
		}
		median, worst := f.StallTexts()
		fmt.Fprintf(t.out, "  %-20s %6d %15s %9s\n", f.Name, f.Made, median, worst)
	}
}

func keys(m map[string]int) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

func counted(m map[string]int) string {
	var parts []string
	for _, k := range keys(m) {
		name := k
		if name == "" {
			name = "without cause"
		}
		parts = append(parts, fmt.Sprintf("%s %d", name, m[k]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
