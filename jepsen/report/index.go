package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"onceq/jepsen/check"
)

//go:embed index.html
var indexPage string

// Row is one run in a list of runs.
type Row struct {
	Workload string
	Faults   map[string]int // made, by kind
	Seed     uint64
	Verdict  check.Verdict
	Counts   map[string]int // violations by checker
	Reasons  []string       // why it is unknown
	Messages int
	Elapsed  time.Duration
	Link     string // to its page
}

// Mutant is what came of one broken build.
type Mutant struct {
	Name, Breaks, Workload string
	By                     []string // checkers, the one that showed first in front; none: it survived
	Seconds                float64  // of traffic until it showed
	Runs                   int
	Error                  string // it could not be run
	Link                   string
}

type column struct {
	Name   string
	Number bool
}

type cell struct{ Text, Class, Link string }

type index struct {
	Title, Class, Sentence string
	Columns                []column
	Rows                   [][]cell
}

func (x index) write(w io.Writer) error {
	t, err := template.New("index").Parse(indexPage)
	if err != nil {
		return err
	}
	return t.Execute(w, x)
}

// WriteRuns writes the page that lists several runs.
func WriteRuns(w io.Writer, rows []Row) error {
	x := index{Title: "valid", Class: "good", Columns: []column{{"run", false}, {"verdict", false}, {"faults", false}, {"seen", false}, {"messages", true}, {"took", true}}}
	count := map[check.Verdict]int{}
	for _, r := range rows {
		count[r.Verdict]++
		class, seen := "good", "nothing broken"
		switch r.Verdict {
		case check.Invalid:
			class, seen = "bad", counted(r.Counts)
		case check.Unknown:
			class, seen = "warn", strings.Join(r.Reasons, "; ")
		}
		x.Rows = append(x.Rows, []cell{
			{Text: fmt.Sprintf("%s, seed %d", r.Workload, r.Seed), Link: r.Link}, {Text: string(r.Verdict), Class: class},
			{Text: counted(r.Faults), Class: "soft"}, {Text: seen},
			{Text: fmt.Sprint(r.Messages), Class: "number"}, {Text: r.Elapsed.Round(time.Second / 10).String(), Class: "number"},
		})
	}
	switch {
	case count[check.Invalid] > 0:
		x.Title, x.Class = "invalid", "bad"
	case count[check.Unknown] > 0:
		x.Title, x.Class = "unknown", "warn"
	}
	x.Sentence = fmt.Sprintf("%d runs: %d valid, %d invalid, %d unknown.", len(rows), count[check.Valid], count[check.Invalid], count[check.Unknown])
	return x.write(w)
}

// WriteMutants writes the page that says which checker caught which broken build,
// and how fast.
func WriteMutants(w io.Writer, all []Mutant) error {
	x := index{Title: "all caught", Class: "good", Columns: []column{{"broken build", false}, {"the rule it breaks", false}, {"workload", false}, {"caught by", false}, {"after", true}, {"run", true}}}
	caught := 0
	for _, m := range all {
		by, after := cell{Text: strings.Join(m.By, ", ")}, cell{Text: fmt.Sprintf("%.1f s", m.Seconds), Class: "number"}
		switch {
		case m.Error != "":
			by, after = cell{Text: "not run: " + m.Error, Class: "bad"}, cell{}
		case len(m.By) == 0:
			by, after = cell{Text: "survived", Class: "bad"}, cell{}
		default:
			caught++
		}
		x.Rows = append(x.Rows, []cell{
			{Text: m.Name, Link: m.Link}, {Text: m.Breaks}, {Text: m.Workload, Class: "soft"}, by, after, {Text: fmt.Sprint(m.Runs), Class: "number"},
		})
	}
	if caught < len(all) {
		x.Title, x.Class = "not all caught", "bad"
	}
	x.Sentence = fmt.Sprintf("%d of %d deliberately broken builds were caught. After: seconds of traffic until the first violation showed.", caught, len(all))
	return x.write(w)
}
