package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// line is one line of the table: a figure of a piece of work.
type line struct {
	text   string
	work   string
	of     func(result) float64
	format func(float64) string
	less   bool // less is better
}

func perSecond(r result) float64 { return r.PerSecond }

var lines = []line{
	{"publish 16 B, messages/s", "pub-16", perSecond, thousands, false},
	{"publish 1 KiB", "pub-1k", perSecond, thousands, false},
	{"end to end 16 B", "e2e-16", perSecond, thousands, false},
	{"end to end 1 KiB", "e2e-1k", perSecond, thousands, false},
	{"server CPU s per 1,000 messages, end to end 1 KiB", "e2e-1k", func(r result) float64 { return r.ServerCPU }, digits, true},
	{"disk bytes written a message, end to end 1 KiB, all nodes", "e2e-1k", func(r result) float64 { return r.Written }, thousands, true},
	{"one producer, one at a time, 1 KiB, p50 ms", "one-1k", func(r result) float64 { return r.P50 }, digits, true},
	{"2,000/s offered, 1 KiB, end to end p50 ms", "paced-1k", func(r result) float64 { return r.P50 }, digits, true},
	{"2,000/s offered, 1 KiB, end to end p99 ms", "paced-1k", func(r result) float64 { return r.P99 }, digits, true},
	{"drain of a backlog, 1 KiB, messages/s", "drain-1k", perSecond, thousands, false},
	{"kill -9 of the leader: longest gap between confirmations s", "failover", func(r result) float64 { return r.Gap }, digits, true},
	{"messages delivered twice in that", "failover", func(r result) float64 { return r.Twice }, thousands, true},
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// digits prints three significant ones.
func digits(v float64) string {
	if v == 0 {
		return "0"
	}
	decimals := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return fmt.Sprintf("%.*f", decimals, v)
}

// figures are the values of a line for a system, in ascending order.
func figures(results []result, l line, system string) (v []float64) {
	for _, r := range results {
		if r.Work == l.work && r.System == system && r.Err == "" {
			v = append(v, l.of(r))
		}
	}
	slices.Sort(v)
	return v
}

func median(v []float64) float64 { return (v[(len(v)-1)/2] + v[len(v)/2]) / 2 }

// cell is the median, and the least and greatest when they differ.
func cell(v []float64, format func(float64) string) string {
	if len(v) == 0 {
		return "-"
	}
	s := format(median(v))
	if len(v) > 1 && format(v[0]) != format(v[len(v)-1]) {
		s += fmt.Sprintf(" (%s to %s)", format(v[0]), format(v[len(v)-1]))
	}
	return s
}

// ratio is how many times better onceq is than the best of the peers that are
// durable. Above 1 is better, whichever way the figure points.
func ratio(results []result, systems []system, l line) (float64, bool) {
	own := figures(results, l, "onceq")
	var best []float64
	for _, s := range systems {
		v := figures(results, l, s.Name())
		if s.Peer() && s.Durable() && len(v) > 0 {
			best = append(best, median(v))
		}
	}
	if len(own) == 0 || len(best) == 0 || median(own) == 0 {
		return 0, false
	}
	if l.less {
		return slices.Min(best) / median(own), true
	}
	return median(own) / slices.Max(best), true
}

// reached is how much of what is possible at most onceq does: of a figure of which less is
// better, how much more is possible.
func reached(results []result, l line) (float64, bool) {
	own, most := figures(results, l, "onceq"), figures(results, l, "bare")
	if len(own) == 0 || len(most) == 0 || median(own) == 0 || median(most) == 0 {
		return 0, false
	}
	if l.less {
		return median(most) / median(own), true
	}
	return median(own) / median(most), true
}

// writeTable prints a line for each figure and a column for each system.
func writeTable(w io.Writer, systems []system, results []result, markdown bool) error {
	head := []string{"WORK"}
	for _, s := range systems {
		head = append(head, strings.ToUpper(s.Name()))
	}
	head = append(head, "RATIO")
	limit := slices.ContainsFunc(systems, func(s system) bool { return s.Name() == "bare" })
	if limit {
		head = append(head, "OF BARE")
	}
	rows := [][]string{}
	for _, l := range lines {
		row, any := []string{l.text}, false
		for _, s := range systems {
			v := figures(results, l, s.Name())
			any = any || len(v) > 0
			row = append(row, cell(v, l.format))
		}
		if !any {
			continue
		}
		text := "-"
		if v, ok := ratio(results, systems, l); ok {
			text = digits(v) + "x"
		}
		row = append(row, text)
		if limit {
			text = "-"
			if v, ok := reached(results, l); ok {
				text = fmt.Sprintf("%.0f%%", v*100)
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	if markdown {
		fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
		for _, row := range rows {
			if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | ")); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}
