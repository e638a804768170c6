package report

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"onceq/jepsen/check"
)

func TestWriteRuns_TheWorstVerdictIsTheTitle(t *testing.T) {
	t.Parallel()
	rows := []Row{{Workload: "queue", Seed: 1, Verdict: check.Valid, Link: "queue-1/report.html", Elapsed: time.Second}}
	for _, step := range []struct {
		add  Row
		want string
	}{
		{Row{Workload: "order", Seed: 2, Verdict: check.Unknown, Reasons: []string{"too <little>"}}, ">unknown</h1>"},
		{Row{Workload: "lease", Seed: 3, Verdict: check.Invalid, Counts: map[string]int{"zombie": 4}}, ">invalid</h1>"},
	} {
		rows = append(rows, step.add)
		var buf bytes.Buffer
		if err := WriteRuns(&buf, rows); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{step.want, `href="queue-1/report.html"`, "too &lt;little&gt;"} {
			if !strings.Contains(buf.String(), want) {
				t.Errorf("%q is not in the page", want)
			}
		}
	}
}

func TestSum_CountsFaultsByKindAndTakesTheMedianOfAllStalls(t *testing.T) {
	t.Parallel()
	rows := []Row{
		{Verdict: check.Valid, Elapsed: time.Minute, Stats: check.Stats{
			Messages: 10, Deliveries: 11, Faults: map[string]int{"kill": 2, "cut": 1}, Unseen: map[string]int{"hold": 2}, Stalls: map[string]check.Stall{"kill": check.NewStall([]float64{3, 1})},
		}},
		{Verdict: check.Unknown, Elapsed: time.Second, Stats: check.Stats{
			Messages: 5, Deliveries: 5, Faults: map[string]int{"kill": 1}, Stalls: map[string]check.Stall{"kill": check.NewStall([]float64{2})},
		}},
	}
	got := Sum(rows)
	want := "2 runs of 1m1s: 1 valid, 0 invalid, 1 unknown; 4 faults with an effect and 2 without, 15 messages, 16 deliveries"
	if got.String() != want || got.Verdict != check.Unknown {
		t.Errorf("%s, %s; want %s", got, got.Verdict, want)
	}
	faults := []FaultTotal{{Name: "cut", Made: 1}, {Name: "kill", Made: 3, Stall: check.NewStall([]float64{1, 2, 3})}}
	if !reflect.DeepEqual(got.Faults, faults) {
		t.Errorf("faults %+v, want %+v", got.Faults, faults)
	}
	var page bytes.Buffer
	if err := WriteRuns(&page, rows); err != nil || !strings.Contains(page.String(), "2.00 s") || !strings.Contains(page.String(), want) {
		t.Errorf("the page does not tell the sum: %v\n%s", err, &page)
	}
}

func TestWriteMutants_OneThatWasNotRunHasNeitherSurvivedNorBeenCaught(t *testing.T) {
	t.Parallel()
	caught := Mutant{Name: "a", By: []string{"lost", "counts"}, Seconds: 1.25, Runs: 2}
	broken := Mutant{Name: "b", Error: "it does not build"}
	for _, c := range []struct {
		all  []Mutant
		want []string
	}{
		{[]Mutant{caught}, []string{">all caught</h1>", "lost, counts", "1.2 s", "Of 1 deliberately broken builds 1 were caught, 0 survived and 0 could not be run."}},
		{[]Mutant{{Name: "a", Runs: 3}}, []string{">not all caught</h1>", ">survived<", "0 were caught, 1 survived and 0 could not be run"}},
		{[]Mutant{{Name: "a", Runs: 3, Beside: []string{"crash"}}}, []string{">not all caught</h1>", ">survived, seen only by crash<"}},
		{[]Mutant{caught, broken}, []string{">not all run</h1>", "not run: it does not build", "1 were caught, 0 survived and 1 could not be run"}},
		{[]Mutant{broken, {Name: "a", Runs: 3}}, []string{">not all caught</h1>", "0 were caught, 1 survived and 1 could not be run"}},
	} {
		var buf bytes.Buffer
		if err := WriteMutants(&buf, c.all); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(buf.String(), want) {
				t.Errorf("%+v: %q is not in the page", c.all, want)
			}
		}
	}
}
