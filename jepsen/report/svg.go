package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"time"

	"onceq/jepsen/history"
)

// The size of a chart, in SVG units.
const (
	width      = 1100
	height     = 220
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
}

func scaleOf(events []history.Event) scale {
	s := scale{end: 1}
	for _, e := range events {
		s.end = max(s.end, e.T0, e.T1)
	}
	s.bucket = max(int64(500*time.Millisecond), s.end/bucketsMax)
	var b strings.Builder
	for _, e := range events {
		if e.F == history.Fault && e.Type != history.Invoke {
			fmt.Fprintf(&b, `<rect class="band" x="%.1f" y="0" width="%.1f" height="%d"><title>%s %s: %s</title></rect>`,
				s.x(e.T0), max(1, s.x(e.T1)-s.x(e.T0)), height-bottom, html.EscapeString(e.Key), html.EscapeString(e.Node), html.EscapeString(e.Text))
			fmt.Fprintf(&b, `<text class="bandname" transform="translate(%.1f,4) rotate(90)">%s</text>`, s.x(e.T0)+3, html.EscapeString(e.Key))
		}
	}
	s.bands = b.String()
	return s
}

func (s scale) x(t int64) float64 { return left + float64(width-left)*float64(t)/float64(s.end) }

func (s scale) buckets() int { return int(s.end/s.bucket) + 1 }

// frame draws bands, axes and a chart into an SVG.
func (s scale) frame(inside, label string, h int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s`, width+10, h, html.EscapeString(label), s.bands)
	step := niceStep(time.Duration(s.end).Seconds() / 10)
	for t := 0.0; t <= time.Duration(s.end).Seconds(); t += step {
		x := s.x(int64(t * 1e9))
		fmt.Fprintf(&b, `<text class="axis" x="%.1f" y="%d" text-anchor="middle">%g s</text>`, x, h-6, t)
	}
	b.WriteString(inside)
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
			most = max(most, v)
		}
	}
	var b strings.Builder
	for _, t := range ticks(most) {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="axis" x="%d" y="%.1f" text-anchor="end">%g%s</text>`,
			left, width, y(t, most), y(t, most), left-4, y(t, most)+4, t, unit)
	}
	for i, x := range all {
		var points []string
		flush := func() {
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
		fmt.Fprintf(&b, `<text class="legend %s" x="%d" y="14">%s</text>`, x.class, left+10+i*150, html.EscapeString(x.name))
	}
	return b.String()
}

func linear(v, most float64) float64 {
	return float64(height-bottom) - v/most*float64(height-bottom-20)
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

// rates are events a second.
func rates(s scale, events []history.Event) string {
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
	return s.frame(s.lines([]series{
		{"ok", "publishes ok", confirmed}, {"bad", "publishes not ok", other}, {"deliver", "deliveries", delivered}, {"ack", "acks ok", acked},
	}, "/s", linear, linearTicks), "rates", height)
}

const (
	latencyLeast = 0.1 // ms
	decades      = 6
)

func logarithmic(v, _ float64) float64 {
	d := math.Log10(max(v, latencyLeast) / latencyLeast)
	return float64(height-bottom) - d/decades*float64(height-bottom-20)
}

// latencies are quantiles of confirmed publishes, by when they were asked for.
func latencies(s scale, events []history.Event) string {
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
	return s.frame(s.lines([]series{{"ok", "p50", half}, {"deliver", "p99", high}, {"bad", "worst", most}}, " ms", logarithmic, ticks), "latencies", height)
}

// leaders draws a row for each node: what it said of itself, and when it said
// nothing.
func leaders(s scale, events []history.Event) string {
	const stale = int64(1500 * time.Millisecond)
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
		y := 16 + i*rowHeight
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
	return s.frame(b.String(), "leadership", 16+len(nodes)*rowHeight+bottom)
}
