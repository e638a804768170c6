package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"onceq/jepsen/check"
	"onceq/jepsen/history"
)

// The size of a chart, in SVG units.
const (
	width      = 1100
	height     = 220
	head       = 96 // above a chart, for the names of faults
	left       = 60
	bottom     = 22
	rowHeight  = 26
	bucketsMax = 400
)

// scale turns times of a run into places.
type scale struct {
	end    int64 // of the run
	bucket int64 // length of what is summed up
	bands  string
	marks  string // of violations
}

func scaleOf(events []history.Event, violations []check.Violation) scale {
	s := scale{end: 1}
	for _, e := range events {
		s.end = max(s.end, e.T0, e.T1)
	}
	s.bucket = max(int64(500*time.Millisecond), s.end/bucketsMax)
	var b strings.Builder
	for _, e := range events {
		if e.F == history.Fault && e.Type != history.Invoke {
			fmt.Fprintf(&b, `<rect class="band" x="%.1f" y="0" width="%.1f" height="{height}"><title>%s %s, %s to %s: %s</title></rect>`,
				s.x(e.T0), max(1, s.x(e.T1)-s.x(e.T0)), html.EscapeString(e.Key), html.EscapeString(e.Node), seconds(e.T0), seconds(e.T1), html.EscapeString(e.Text))
			fmt.Fprintf(&b, `<text class="bandname" transform="translate(%.1f,%d) rotate(-90)">%s</text>`, s.x(e.T0)+9, head-6, html.EscapeString(e.Key))
		}
	}
	s.bands = b.String()
	b.Reset()
	for _, v := range violations {
		fmt.Fprintf(&b, `<line class="mark" x1="%.1f" x2="%.1f" y1="%d" y2="{height}"><title>%s %s at %s</title></line>`,
			s.x(v.At), s.x(v.At), head, html.EscapeString(v.Checker), html.EscapeString(v.ID), seconds(v.At))
	}
	s.marks = b.String()
	return s
}

func (s scale) x(t int64) float64 { return left + float64(width-left)*float64(t)/float64(s.end) }

func (s scale) buckets() int { return int(s.end/s.bucket) + 1 }

// frame draws bands, axes and a chart into an SVG.
func (s scale) frame(inside, label string, h int) string {
	var b strings.Builder
	bottomOf := strconv.Itoa(h - bottom)
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s`, width+10, h, html.EscapeString(label), strings.ReplaceAll(s.bands, "{height}", bottomOf))
	step := niceStep(time.Duration(s.end).Seconds() / 10)
	for t := 0.0; t <= time.Duration(s.end).Seconds(); t += step {
		x := s.x(int64(t * 1e9))
		fmt.Fprintf(&b, `<text class="axis" x="%.1f" y="%d" text-anchor="middle">%g s</text>`, x, h-6, t)
	}
	b.WriteString(inside)
	b.WriteString(strings.ReplaceAll(s.marks, "{height}", bottomOf))
	b.WriteString(`</svg>`)
	return b.String()
}

func niceStep(least float64) float64 {
	for _, s := range []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600} {
		if s >= least {
			return s
		}
	}
	return 7200
}

type series struct {
	class, name string
	values      []float64
}

// lines draws series on one linear scale.
func (s scale) lines(all []series, unit string, y func(v, most float64) float64, ticks func(most float64) []float64) string {
	most := 1.0
	for _, x := range all {
		for _, v := range x.values {
			if v > most { // a gap is none
				most = v
			}
		}
	}
	var b strings.Builder
	for _, t := range ticks(most) {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="axis" x="%d" y="%.1f" text-anchor="end">%g%s</text>`,
			left, width, y(t, most), y(t, most), left-4, y(t, most)+4, t, unit)
	}
	for _, x := range all {
		var points []string
		flush := func() {
			if len(points) == 1 {
				points = append(points, points[0]) // a line to itself: a point alone is not drawn
			}
			if len(points) > 0 {
				fmt.Fprintf(&b, `<polyline class="%s" points="%s"/>`, x.class, strings.Join(points, " "))
			}
			points = points[:0]
		}
		for j, v := range x.values {
			if math.IsNaN(v) {
				flush()
				continue
			}
			points = append(points, fmt.Sprintf("%.1f,%.1f", s.x(int64(j)*s.bucket+s.bucket/2), y(v, most)))
		}
		flush()
	}
	return b.String()
}

func linear(v, most float64) float64 {
	return float64(head+height-bottom) - v/most*float64(height-bottom-10)
}

func linearTicks(most float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10(most)))
	if most/step < 3 {
		step /= 2
	}
	var all []float64
	for t := 0.0; t <= most; t += step {
		all = append(all, t)
	}
	return all
}

// chart is a drawing and what its lines are.
type chart struct {
	Drawing template.HTML
	Legend  []legend
}

type legend struct{ Class, Name string }

func (s scale) chart(drawing string, all []series) chart {
	c := chart{Drawing: template.HTML(drawing)} // made of numbers and of names that are escaped
	for _, x := range all {
		c.Legend = append(c.Legend, legend{x.class, x.name})
	}
	return c
}

// rates are events a second.
func rates(s scale, events []history.Event) chart {
	n := s.buckets()
	confirmed, other, delivered, acked := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	per := float64(time.Second) / float64(s.bucket)
	for _, e := range events {
		i := int(max(e.T0, e.T1) / s.bucket)
		switch {
		case e.Type == history.Invoke:
		case e.F == history.Publish && e.Type == history.OK:
			confirmed[i] += per
		case e.F == history.Publish:
			other[i] += per
		case e.F == history.Deliver:
			delivered[i] += per
		case e.F == history.Ack && e.Type == history.OK:
			acked[i] += per
		}
	}
	all := []series{{"ok", "publishes ok", confirmed}, {"bad", "publishes refused or unknown", other}, {"deliver", "deliveries", delivered}, {"ack", "acks ok", acked}}
	return s.chart(s.frame(s.lines(all, "/s", linear, linearTicks), "rates", head+height), all)
}

const (
	latencyLeast = 0.1 // ms
	decades      = 6
)

func logarithmic(v, _ float64) float64 {
	d := math.Log10(max(v, latencyLeast) / latencyLeast)
	return float64(head+height-bottom) - d/decades*float64(height-bottom-10)
}

// latencies are quantiles of confirmed publishes, by when they were asked for.
func latencies(s scale, events []history.Event) chart {
	n := s.buckets()
	all := make([][]float64, n)
	for _, e := range events {
		if e.F == history.Publish && e.Type == history.OK {
			i := e.T0 / s.bucket
			all[i] = append(all[i], float64(e.T1-e.T0)/1e6)
		}
	}
	half, high, most := make([]float64, n), make([]float64, n), make([]float64, n)
	for i, v := range all {
		if len(v) == 0 {
			half[i], high[i], most[i] = math.NaN(), math.NaN(), math.NaN()
			continue
		}
		slices.Sort(v)
		half[i], high[i], most[i] = v[len(v)/2], v[len(v)*99/100], v[len(v)-1]
	}
	ticks := func(float64) []float64 { return []float64{0.1, 1, 10, 100, 1000, 10_000} }
	lines := []series{{"bad", "slowest", most}, {"deliver", "p99", high}, {"ok", "p50", half}}
	return s.chart(s.frame(s.lines(lines, " ms", logarithmic, ticks), "latencies", head+height), lines)
}

// leaders draws a row for each node: what it said of itself, and when it said
// nothing.
func leaders(s scale, events []history.Event) chart {
	const stale = int64(600 * time.Millisecond) // more than between two answers
	byNode := map[string][]history.Event{}
	for _, e := range events {
		if e.F == history.Status && e.State != nil {
			byNode[e.Node] = append(byNode[e.Node], e)
		}
	}
	var nodes []string
	for n := range byNode {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	var b strings.Builder
	for i, n := range nodes {
		y := head + i*rowHeight
		fmt.Fprintf(&b, `<text class="axis" x="%d" y="%d" text-anchor="end">%s</text>`, left-4, y+15, html.EscapeString(n))
		es := byNode[n]
		for j, e := range es {
			end := e.T1 + stale
			if j+1 < len(es) {
				end = min(end, es[j+1].T1)
			}
			class := "follower"
			if e.State.Role == "leader" {
				class = "leading"
			} else if e.State.Role != "follower" {
				class = "candidate"
			}
			fmt.Fprintf(&b, `<rect class="%s" x="%.1f" y="%d" width="%.2f" height="%d"><title>%s %s, term %d, applied %d</title></rect>`,
				class, s.x(e.T1), y, max(0.5, s.x(min(end, s.end))-s.x(e.T1)), rowHeight-6, html.EscapeString(n), html.EscapeString(e.State.Role), e.State.Term, e.State.Applied)
		}
	}
	for _, e := range events {
		if i := slices.Index(nodes, e.Node); e.F == history.Crash && i >= 0 {
			fmt.Fprintf(&b, `<text class="crash" x="%.1f" y="%d">✕<title>%s ended by itself: %s</title></text>`, s.x(e.T0)-4, head+i*rowHeight+16, html.EscapeString(e.Node), html.EscapeString(e.Err))
		}
	}
	return s.chart(s.frame(b.String(), "leadership", head+len(nodes)*rowHeight+bottom), []series{{class: "leading", name: "leads"}, {class: "follower", name: "follows"}, {class: "candidate", name: "neither"}})
}
