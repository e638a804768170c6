package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"onceq/jepsen/check"
	"onceq/jepsen/history"
)

func TestWrite_ShowsTheVerdictAndTheLinesAroundAViolation(t *testing.T) {
	t.Parallel()
	events, err := history.ParseText(`
		run faults=kill
		0 1 p1 publish a seq=0
		500 900 nemesis fault key=kill node=n<1> text=gone seen
		1000 1001 p2 publish a seq=7
		1100 1101 p1 publish other seq=8
		1200 1201 j status node=n1 role=leader term=3 applied=9`)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	err = Write(&buf, Run{Setup: *events[0].Setup, Report: check.Run(events), Events: events, Command: "jepsen --seed 7", Logs: []string{"n1.log"}})
	if err != nil {
		t.Fatal(err)
	}
	text := buf.String()
	for _, want := range []string{">invalid<", "stored-twice a", "at offset 0 (publish) and at offset 7", "key=kill", "jepsen --seed 7", `href="n1.log"`, "<td>kill</td><td>1</td>", "n&lt;1&gt;", `class="leading"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the report", want)
		}
	}
	if strings.Contains(text, "n<1>") {
		t.Error("a name is not escaped")
	}
	for _, svg := range strings.Split(text, "<svg")[1:] {
		d := xml.NewDecoder(strings.NewReader("<svg" + svg[:strings.Index(svg, "</svg>")+6]))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("a chart is not well-formed: %v", err)
			}
		}
	}
}

func TestWrite_AnEmptyHistoryIsShownToo(t *testing.T) {
	t.Parallel()
	if err := Write(io.Discard, Run{Report: check.Run(nil)}); err != nil {
		t.Fatal(err)
	}
}

// pageOf writes the report of a history that is written by hand.
func pageOf(t *testing.T, text string, r Run) string {
	t.Helper()
	events, err := history.ParseText(text)
	if err != nil {
		t.Fatal(err)
	}
	r.Setup, r.Events = *events[0].Setup, events
	var buf bytes.Buffer
	if err := Write(&buf, r); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// part is what stands between two marks in a page.
func part(t *testing.T, page, from, to string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, from)
	inside, _, ended := strings.Cut(rest, to)
	if !ok || !ended {
		t.Fatalf("%q to %q is not in the page", from, to)
	}
	return inside
}

// points are the places that a line of a chart goes through.
func points(t *testing.T, chart, class string) (xs, ys []float64) {
	t.Helper()
	for _, p := range strings.Fields(part(t, chart, `<polyline class="`+class+`" points="`, `"`)) {
		x, y, _ := strings.Cut(p, ",")
		for to, text := range map[*[]float64]string{&xs: x, &ys: y} {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatalf("%s: a point is %q", class, p)
			}
			*to = append(*to, v)
		}
	}
	return xs, ys
}

// TestWrite_APersonFindsAllOfARun goes through what a page has to show: three
// publishes of 10, 10 and 100 ms in 2 s, of which the middle was refused.
func TestWrite_APersonFindsAllOfARun(t *testing.T) {
	t.Parallel()
	page := pageOf(t, `
		run faults=kill
		0 10 p1 publish a seq=0
		100 110 p1 publish b fail err=refused
		500 1000 nemesis fault key=kill node=n2 text=process+7+is+gone seen
		1600 1700 p1 publish c seq=1
		1950 1960 c1 deliver a seq=0 attempt=1
		100 101 j status node=n1 role=leader term=1 applied=3
		1000 1001 j status node=n2 role=follower term=1 applied=4
		1800 1801 j status node=n2 role=leader term=2 applied=5
		1900 1900 j crash node=n1 err=killed
		2000 2000 j drain`, Run{
		Report: &check.Report{
			Verdict: check.Invalid, Counts: map[string]int{"lost": 1},
			Violations: []check.Violation{{Checker: "lost", ID: "c", Text: "it is <nowhere>", At: 1.9e9, Lines: []int{7}}},
			Stats:      check.Stats{Stalls: map[string]check.Stall{"kill": check.NewStall([]float64{0.5, 1.25, 0.25})}},
		},
		Command: "go run ./cmd/jepsen --seed 7 --server='a b'", Logs: []string{"n1.log", "n2.log"}, Notes: []string{"n1 ended by itself: killed"},
	})
	charts := map[string]string{}
	for _, name := range []string{"rates", "latencies", "leadership"} {
		chart := part(t, page, `aria-label="`+name+`"`, "</svg>")
		charts[name] = chart
		// From a quarter of the run to a half of it.
		if !strings.Contains(chart, `<rect class="band" x="320.0" y="0" width="260.0"`) || !strings.Contains(chart, "<title>kill n2, 0.50 s to 1.00 s: process 7 is gone</title>") {
			t.Errorf("%s: the fault is not shown:\n%s", name, chart)
		}
		if !strings.Contains(chart, `<line class="mark" x1="1048.0" x2="1048.0"`) || !strings.Contains(chart, "<title>lost c at 1.90 s</title>") {
			t.Errorf("%s: the violation is not marked:\n%s", name, chart)
		}
	}
	xs, ys := points(t, charts["rates"], "ok")
	// One in the first half second, one in the last: at one height, and the rest at 0.
	if len(xs) != 5 || ys[0] != ys[3] || ys[1] <= ys[0] || ys[1] != ys[2] || xs[0] != 190 || xs[1] != 450 {
		t.Errorf("publishes ok: x %v, y %v", xs, ys)
	}
	if _, bad := points(t, charts["rates"], "bad"); bad[0] >= bad[1] {
		t.Errorf("publishes refused: y %v", bad)
	}
	if _, out := points(t, charts["rates"], "deliver"); out[3] >= out[2] {
		t.Errorf("deliveries: y %v", out)
	}
	// 10 ms, a gap where none began, and 100 ms: on a scale of decades one higher.
	ways := strings.SplitAfter(charts["latencies"], `<polyline class="ok"`)
	if len(ways) != 3 {
		t.Fatalf("%d lines of latencies, want 2:\n%s", len(ways)-1, charts["latencies"])
	}
	xs, ys = points(t, `<polyline class="ok"`+ways[1], "ok")
	late, slow := points(t, `<polyline class="ok"`+ways[2], "ok")
	if xs[0] != 190 || late[0] != 970 || math.Abs(ys[0]-slow[0]-(height-bottom-10)/float64(decades)) > 0.2 {
		t.Errorf("latencies at %v and %v, y %v and %v", xs, late, ys, slow)
	}
	if len(xs) < 2 || len(late) < 2 {
		t.Error("a line of one point shows nothing")
	}
	if n := strings.Count(charts["leadership"], `<rect class="leading"`); n != 2 {
		t.Errorf("%d stretches of leadership, want 2", n)
	}
	for _, want := range []string{
		`>n1</text>`, `>n2</text>`, `<title>n1 leader, term 1, applied 3</title>`, `<title>n2 follower, term 1, applied 4</title>`,
		`<title>n2 leader, term 2, applied 5</title>`, "<title>n1 ended by itself: killed</title>",
	} {
		if !strings.Contains(charts["leadership"], want) {
			t.Errorf("%q is not in the leadership", want)
		}
	}
	if lines := part(t, page, `<h2 id="lost">`, "</details>"); !strings.Contains(lines, "it is &lt;nowhere&gt;") || strings.Count(lines, "<b>      7 ") != 1 || strings.Count(lines, "<b>  ") != 1 || !strings.Contains(lines, "<pre>      6 ") {
		t.Errorf("the lines of the violation:\n%s", lines)
	}
	for from, want := range map[string]string{
		"<h1":                     ` class="invalid">invalid`,
		"<pre>go run":             " ./cmd/jepsen --seed 7 --server=&#39;a b&#39;",
		"<h2>Longest time":        "<tr><td>kill</td><td>3</td><td>0.50 s</td><td>1.25 s</td></tr>",
		"<h2>Faults</h2>":         "<tr><td>kill</td><td>n2</td><td>0.50 s</td><td>0.50 s</td><td>process 7 is gone</td></tr>",
		"<h2>Checkers</h2>":       `<td><b class="invalid">lost</b></td><td><b class="invalid">1</b></td>`,
		"<h2>Notes</h2>":          "n1 ended by itself: killed",
		"<h2>Files</h2>":          `<a href="n1.log">n1.log</a></li><li><a href="n2.log">n2.log</a>`,
		"<h2>What was broken</h2": `<td><a href="#lost">lost</a></td><td><b class="invalid">1</b></td><td>1.90 s</td>`,
	} {
		if rest := part(t, page, from, "</html>"); !strings.Contains(rest, want) {
			t.Errorf("%q does not come after %q", want, from)
		}
	}
	if strings.Contains(page, " shown</span>") {
		t.Error("all violations are shown, and the page says that some are")
	}
}

// TestWrite_WhatAViolationNamesIsShown_HoweverMuchHappenedBefore: also of a message
// that was handed out again and again, and of a violation that is of no message.
func TestWrite_WhatAViolationNamesIsShown_HoweverMuchHappenedBefore(t *testing.T) {
	t.Parallel()
	text := "0 1 p1 publish a seq=0\n" // lines 1 and 2
	for i := range 200 {
		text += fmt.Sprintf("%d %d c1 deliver a seq=0 attempt=%d\n", 10+i, 10+i, i+1) // lines 3 to 202
	}
	text += "900 990 monitor drain fail err=left"
	page := pageOf(t, text, Run{Report: &check.Report{
		Verdict: check.Invalid, Counts: map[string]int{"zombie": 37, "drain": 1},
		Violations: []check.Violation{
			{Checker: "zombie", ID: "a", Text: "it came again", At: 2e8, Lines: []int{2, 180}},
			{Checker: "drain", Text: "left", At: 9.9e8, Lines: []int{203}},
		},
	}})
	zombie := part(t, page, `<h2 id="zombie">`, "</details>")
	for _, want := range []string{"37 times, 1 of 37 shown", "<b>      2 ", "<b>    180 ", "\n    179 ", "\n    181 ", "more\n<", "... "} {
		if !strings.Contains(zombie, want) {
			t.Errorf("%q is not among the lines:\n%s", want, zombie)
		}
	}
	if n := strings.Count(zombie, " deliver "); n < 50 || n > linesMax {
		t.Errorf("%d deliveries are shown:\n%s", n, zombie)
	}
	// What is left out is counted: 2 lines of the publish and 200 deliveries.
	sum := strings.Count(zombie, " publish ") + strings.Count(zombie, " deliver ")
	for _, l := range strings.Split(zombie, "\n") {
		var n int
		if _, err := fmt.Sscanf(l, "... %d more", &n); err == nil {
			sum += n
		}
	}
	if sum != 202 {
		t.Errorf("%d lines are shown or counted as left out, there are 202:\n%s", sum, zombie)
	}
	if drain := part(t, page, `<h2 id="drain">`, "</details>"); !strings.Contains(drain, "<b>    203 ") || strings.Contains(drain, " shown</span>") {
		t.Errorf("the lines of the drain:\n%s", drain)
	}
}

// More is named than there is room for otherwise.
func TestExcerpt_AllNamedLinesAreKept(t *testing.T) {
	t.Parallel()
	var shown []history.Event
	hot := map[int]bool{}
	for i := range 3 * linesMax {
		shown = append(shown, history.Event{I: i})
		hot[i] = i >= linesMax/2
	}
	lines := excerpt(shown, hot)
	if want := 3*linesMax - linesMax/2 + 1; len(lines) != want || lines[0].Text != fmt.Sprintf("... %d more", linesMax/2) || !lines[1].Hot {
		t.Errorf("%d lines, want %d; first %+v", len(lines), want, lines[:2])
	}
	if n := len(excerpt(shown, nil)); n != linesMax+1 {
		t.Errorf("%d lines when none is named", n)
	}
}

// TestWrite_ShowsWhatNodesTake: a line for each node, with a gap where nobody could tell.
func TestWrite_ShowsWhatNodesTake(t *testing.T) {
	t.Parallel()
	page := pageOf(t, `
		0 100 j sizes node=n1 log=1024 bodies=1024 ballast=999999 resident=4096 peak=8192
		0 100 j sizes node=n2 log=1024 resident=2048 peak=4096
		2000 2100 j sizes node=n1 log=3072 resident=0
		2000 2100 j sizes node=n2 log=1024 resident=4096 peak=4096
		3900 4000 j drain`, Run{Report: &check.Report{}})
	memory, disk := part(t, page, `aria-label="memory"`, "</svg>"), part(t, page, `aria-label="disk"`, "</svg>")
	if xs, ys := points(t, memory, "ok"); len(xs) != 4 || ys[0] != ys[3] {
		t.Errorf("memory of n1: x %v, y %v", xs, ys)
	}
	if xs, ys := points(t, memory, "deliver"); len(xs) != 9 || ys[0] <= ys[8] {
		t.Errorf("memory of n2: x %v, y %v", xs, ys)
	}
	if xs, ys := points(t, disk, "ok"); len(xs) != 9 || ys[0] <= ys[8] {
		t.Errorf("disk of n1: x %v, y %v", xs, ys)
	}
	if !strings.Contains(page, "<td>8 MiB, 3 MiB</td>") || strings.Count(page, "<i></i>n1</span>") != 2 {
		t.Error("the most, or the names, are not there")
	}
}
