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
	Seed     uint64
	Verdict  check.Verdict
	Counts   map[string]int // violations by checker
	Reasons  []string       // why it is unknown
	Stats    check.Stats
	Elapsed  time.Duration
	Link     string // to its page
}

// Mutant is what came of one broken build.
type Mutant struct {
	Name, Breaks, Workload string
	By                     []string // checkers, the one that showed first in front; none: it survived
	Beside                 []string // of one that survived: what was seen that is not about the rule
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

type table struct {
	Columns []column
	Rows    [][]cell
}

type index struct {
	Title, Class, Sentence string
	Tables                 []table
}

func (x index) write(w io.Writer) error {
	t, err := template.New("index").Parse(indexPage)
	if err != nil {
		return err
	}
	return t.Execute(w, x)
}

// WriteRuns writes the page that lists several runs, and what they come to.
func WriteRuns(w io.Writer, rows []Row) error {
	total := Sum(rows)
	runs := table{Columns: []column{{"run", false}, {"verdict", false}, {"faults", false}, {"seen", false}, {"messages", true}, {"took", true}}}
	for _, r := range rows {
		class, seen := "good", "nothing broken"
		switch r.Verdict {
		case check.Invalid:
			class, seen = "bad", counted(r.Counts)
		case check.Unknown:
			class, seen = "warn", strings.Join(r.Reasons, "; ")
		}
		runs.Rows = append(runs.Rows, []cell{
			{Text: fmt.Sprintf("%s, seed %d", r.Workload, r.Seed), Link: r.Link}, {Text: string(r.Verdict), Class: class},
			{Text: counted(r.Stats.Faults), Class: "soft"}, {Text: seen},
			{Text: fmt.Sprint(r.Stats.Messages), Class: "number"}, {Text: r.Elapsed.Round(time.Second / 10).String(), Class: "number"},
		})
	}
	faults := table{Columns: []column{{"fault", false}, {"with an effect", true}, {"stall, median", true}, {"worst", true}}}
	for _, f := range total.Faults {
		median, worst := f.StallTexts()
		faults.Rows = append(faults.Rows, []cell{{Text: f.Name}, {Text: fmt.Sprint(f.Made), Class: "number"}, {Text: median, Class: "number"}, {Text: worst, Class: "number"}})
	}
	class := map[check.Verdict]string{check.Valid: "good", check.Invalid: "bad", check.Unknown: "warn"}[total.Verdict]
	return index{Title: string(total.Verdict), Class: class, Sentence: total.String() + ".", Tables: []table{runs, faults}}.write(w)
}

// WriteMutants writes the page that says which checker caught which broken build,
// and how fast.
func WriteMutants(w io.Writer, all []Mutant) error {
	x := index{Title: "all caught", Class: "good"}
	t := table{Columns: []column{{"broken build", false}, {"the rule it breaks", false}, {"workload", false}, {"caught by", false}, {"after", true}, {"run", true}}}
	caught, survived, notRun := 0, 0, 0
	for _, m := range all {
		by, after := cell{Text: strings.Join(m.By, ", ")}, cell{Text: fmt.Sprintf("%.1f s", m.Seconds), Class: "number"}
		switch {
		case m.Error != "":
			notRun++
			by, after = cell{Text: "not run: " + m.Error, Class: "bad"}, cell{}
		case len(m.By) == 0:
			survived++
			by, after = cell{Text: "survived", Class: "bad"}, cell{}
			if len(m.Beside) > 0 {
				by.Text += ", seen only by " + strings.Join(m.Beside, ", ")
			}
		default:
			caught++
		}
		t.Rows = append(t.Rows, []cell{
			{Text: m.Name, Link: m.Link}, {Text: m.Breaks}, {Text: m.Workload, Class: "soft"}, by, after, {Text: fmt.Sprint(m.Runs), Class: "number"},
		})
	}
	switch {
	case survived > 0:
		x.Title, x.Class = "not all caught", "bad"
	case notRun > 0:
		x.Title, x.Class = "not all run", "bad"
	}
	x.Sentence = fmt.Sprintf("Of %d deliberately broken builds %d were caught, %d survived and %d could not be run. After: seconds of traffic until the first violation showed.", len(all), caught, survived, notRun)
	x.Tables = []table{t}
	return x.write(w)
}
