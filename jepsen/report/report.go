// Package report shows a run to people: one HTML file that needs nothing else,
// with the verdict, rates and latencies over time, who led when, and for each
// violation the lines of the history around it.
package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"onceq/jepsen/check"
	"onceq/jepsen/history"
)

//go:embed report.html
var page string

// Run is what a report is made from.
type Run struct {
	Setup   history.Setup
	Report  *check.Report
	Events  []history.Event
	Command string // that repeats it
	Logs    []string
	Notes   []string
	Elapsed time.Duration
}

// linesMax bounds the lines that are shown around one violation. Those that it names
// are shown in any case.
const linesMax = 60

type violation struct {
	check.Violation
	At    string
	Lines []line
}

type line struct {
	Text string
	Hot  bool
}

type row struct {
	Name, Value string
}

type fault struct {
	Kind, Node, From, For, Text string
	Seen                        bool
}

type checker struct {
	Name, What string
	Count      int
}

// Write writes the page.
func Write(w io.Writer, r Run) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return err
	}
	var checkers []checker
	for _, c := range check.Checkers() {
		checkers = append(checkers, checker{c.Name, c.What, r.Report.Counts[c.Name]})
	}
	s := scaleOf(r.Events, r.Report.Violations)
	return t.Execute(w, map[string]any{
		"Run": r, "Verdict": string(r.Report.Verdict), "Sentence": sentence(r.Report), "Reasons": r.Report.Reasons,
		"Rows": rows(r), "Checkers": checkers, "Violations": violations(r), "Faults": faults(r.Events),
		"Stalls": stalls(r.Report.Stats.Stalls),
		"Rates":  rates(s, r.Events), "Latencies": latencies(s, r.Events), "Leaders": leaders(s, r.Events),
		"Memory": resident(s, r.Events), "Disk": onDisk(s, r.Events),
		"Logs": r.Logs, "Notes": r.Notes, "Command": r.Command,
	})
}

// sentence says what the verdict means.
func sentence(r *check.Report) string {
	switch r.Verdict {
	case check.Invalid:
		n := 0
		for _, k := range r.Counts {
			n += k
		}
		return fmt.Sprintf("Promises were seen broken, %d times, by %d of %d checkers.", n, len(r.Counts), len(check.Checkers()))
	case check.Unknown:
		return "Nothing was seen broken, and too little was seen to call the run valid:"
	}
	return fmt.Sprintf("Nothing was seen broken by any of %d checkers, enough happened to judge, and the queues were drained.", len(check.Checkers()))
}

func rows(r Run) []row {
	s := r.Report.Stats
	return []row{
		{"workload", r.Setup.Workload},
		{"faults", mixed(r.Setup) + strings.Join(r.Setup.Faults, ", ")},
		{"left out", cmp.Or(strings.Join(r.Setup.LeftOut, "; "), "nothing")},
		{"network", cmp.Or(r.Setup.Network, "loopback")},
		{"seed", fmt.Sprint(r.Setup.Seed)},
		{"nodes", fmt.Sprint(r.Setup.Nodes)},
		{"messages", fmt.Sprint(s.Messages)},
		{"publishes", counted(s.Publishes)},
		{"answered as duplicates", fmt.Sprint(s.Duplicates)},
		{"stored without a confirmation", fmt.Sprint(s.Recovered)},
		{"deliveries", fmt.Sprint(s.Deliveries)},
		{"handed out again, by cause", counted(s.Again)},
		{"acks", counted(s.Acks)},
		{"nacks", fmt.Sprint(s.Nacks)},
		{"seals", counted(s.Seals)},
		{"faults, whose effect was seen", counted(s.Faults)},
		{"faults without an effect that was seen", counted(s.Unseen)},
		{"most memory, most disk of a node", most(r.Events)},
		{"stops of clients", counted(s.Stops)},
		{"longest time without a confirmed publish", fmt.Sprintf("%.2f s", s.LongestGap)},
		{"took", r.Elapsed.Round(time.Second / 10).String()},
	}
}

type stall struct {
	Kind          string
	Faults        int
	Median, Worst string
}

// stalls are the longest first.
func stalls(by map[string]check.Stall) []stall {
	kinds := slices.Collect(maps.Keys(by))
	slices.SortFunc(kinds, func(a, b string) int { return cmp.Or(cmp.Compare(by[b].Worst, by[a].Worst), cmp.Compare(a, b)) })
	var all []stall
	for _, k := range kinds {
		s := by[k]
		all = append(all, stall{k, s.Faults, fmt.Sprintf("%.2f s", s.Median), fmt.Sprintf("%.2f s", s.Worst)})
	}
	return all
}

func mixed(s history.Setup) string {
	if s.Mix {
		return "a mix of "
	}
	return ""
}

func counted(m map[string]int) string {
	var parts []string
	sums := map[string]int{}
	for k, n := range m {
		switch k {
		case "":
			k = "without cause"
		case string(history.Info), string(history.Invoke):
			k = "unknown"
		}
		sums[k] += n
	}
	for k, n := range sums {
		parts = append(parts, fmt.Sprintf("%s %d", k, n))
	}
	if len(parts) == 0 {
		return "none"
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func faults(events []history.Event) []fault {
	var all []fault
	for _, e := range events {
		if e.F == history.Fault && e.Type == history.OK {
			all = append(all, fault{e.Key, e.Node, seconds(e.T0), seconds(e.T1 - e.T0), e.Text, e.Seen})
		}
	}
	return all
}

func seconds(t int64) string { return fmt.Sprintf("%.2f s", time.Duration(t).Seconds()) }

// group is what one checker has seen. Count is of all, not only of those shown.
type group struct {
	Name, What, First string
	Count             int
	Shown             []violation
}

// violations are those of each checker, the one that showed first in front.
func violations(r Run) []group {
	var all []group
	for _, v := range told(r) {
		i := slices.IndexFunc(all, func(g group) bool { return g.Name == v.Checker })
		if i < 0 {
			i = len(all)
			g := group{Name: v.Checker, First: v.At, Count: r.Report.Counts[v.Checker]}
			for _, c := range check.Checkers() {
				if c.Name == v.Checker {
					g.What = c.What
				}
			}
			all = append(all, g)
		}
		all[i].Shown = append(all[i].Shown, v)
	}
	return all
}

// told adds to each violation what happened to its message, and what was done to
// the cluster meanwhile.
func told(r Run) []violation {
	byID := map[string][]history.Event{}
	var around []history.Event
	for _, e := range r.Events {
		if e.ID != "" {
			byID[e.ID] = append(byID[e.ID], e)
		} else if e.F == history.Fault || e.F == history.Crash || e.F == history.Drain || e.F == history.Silent || e.F == history.Stopped || e.F == history.Die || e.F == history.Leave {
			around = append(around, e)
		}
	}
	var all []violation
	for _, v := range r.Report.Violations {
		hot := map[int]bool{}
		for _, n := range v.Lines {
			hot[n] = true
		}
		shown := slices.Clone(byID[v.ID])
		for _, n := range v.Lines {
			if n < len(r.Events) {
				shown = append(shown, r.Events[n])
			}
		}
		procs := map[string]bool{"nemesis": true, "monitor": true}
		from := v.At
		for _, e := range shown {
			procs[e.Proc] = true
			from = min(from, e.T0)
		}
		if len(shown) > 0 {
			for _, e := range around {
				if procs[e.Proc] && e.T0 <= v.At && max(e.T0, e.T1) >= from {
					shown = append(shown, e)
				}
			}
		}
		slices.SortStableFunc(shown, func(a, b history.Event) int { return a.I - b.I })
		shown = slices.CompactFunc(shown, func(a, b history.Event) bool { return a.I == b.I })
		all = append(all, violation{Violation: v, At: seconds(v.At), Lines: excerpt(shown, hot)})
	}
	return all
}

// excerpt takes the hot lines, and of the others those that are next to them.
func excerpt(shown []history.Event, hot map[int]bool) (lines []line) {
	var named, order []int
	for i, e := range shown {
		order = append(order, i)
		if hot[e.I] {
			named = append(named, i)
		}
	}
	far := func(i int) int {
		least := len(shown)
		for _, n := range named {
			least = min(least, max(i-n, n-i))
		}
		return least
	}
	slices.SortStableFunc(order, func(a, b int) int { return far(a) - far(b) })
	taken := order[:min(len(order), max(linesMax, len(named)))]
	slices.Sort(taken)
	next := 0
	for _, i := range taken {
		lines = append(lines, gap(i-next)...)
		lines = append(lines, line{describe(shown[i]), hot[shown[i].I]})
		next = i + 1
	}
	return append(lines, gap(len(shown)-next)...)
}

// gap stands for lines that are left out.
func gap(n int) []line {
	if n == 0 {
		return nil
	}
	return []line{{Text: fmt.Sprintf("... %d more", n)}}
}

func describe(e history.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%7d %9.3f", e.I, time.Duration(e.T0).Seconds())
	if e.Type == history.Invoke {
		fmt.Fprintf(&b, "           ")
	} else {
		fmt.Fprintf(&b, " %9.3f ", time.Duration(e.T1).Seconds())
	}
	fmt.Fprintf(&b, "%-8s %-8s %-6s", e.Proc, e.F, e.Type)
	for _, x := range []row{{"id", e.ID}, {"key", e.Key}, {"ordering-key", e.OrderingKey}, {"after", e.After}, {"node", e.Node}, {"inner", e.Inner}, {"lease", e.Lease}, {"text", e.Text}, {"err", e.Err}} {
		if x.Value != "" {
			fmt.Fprintf(&b, " %s=%s", x.Name, strings.ReplaceAll(x.Value, "\n", " / "))
		}
	}
	if e.F == history.Deliver || e.F == history.Publish && e.Type == history.OK {
		fmt.Fprintf(&b, " seq=%v", e.Place())
	}
	if e.Delay > 0 {
		fmt.Fprintf(&b, " delay=%v", time.Duration(e.Delay))
	}
	for _, x := range e.Listed {
		fmt.Fprintf(&b, " %s@%d:%s", x.ID, x.Attempt, x.State)
	}
	if e.Attempt > 0 {
		fmt.Fprintf(&b, " attempt=%d", e.Attempt)
	}
	if e.Copies > 0 {
		fmt.Fprintf(&b, " copies=%d", e.Copies)
	}
	if e.Dup {
		b.WriteString(" duplicate")
	}
	if e.State != nil {
		fmt.Fprintf(&b, " %+v", *e.State)
	}
	if e.Queue != nil {
		fmt.Fprintf(&b, " %+v", *e.Queue)
	}
	if e.Sizes != nil {
		fmt.Fprintf(&b, " %+v", *e.Sizes)
	}
	return b.String()
}
