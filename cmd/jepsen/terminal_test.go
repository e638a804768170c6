package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onceq/jepsen"
	"onceq/jepsen/check"
	"onceq/jepsen/history"
	"onceq/jepsen/report"
)

// result is a run in which one promise was seen broken more often than is shown.
func result() *jepsen.Result {
	r := &check.Report{
		Verdict: check.Invalid, Counts: map[string]int{"zombie": 37, "lost": 1}, Reasons: []string{"the run was not drained"},
		Violations: []check.Violation{{Checker: "lost", ID: "r1-p1-1", Text: "it is nowhere\nand more", At: 2.5e9, Lines: []int{3, 9}}},
		Stats: check.Stats{
			Messages: 12, Publishes: map[string]int{"ok": 11, "info": 1}, Deliveries: 13, Again: map[string]int{"": 2}, Acks: map[string]int{"ok": 10},
			Faults: map[string]int{"kill": 2}, LongestGap: 3.25, Stalls: map[string]check.Stall{"kill": check.NewStall([]float64{3.25, 1})},
		},
	}
	for i := range 7 {
		r.Violations = append(r.Violations, check.Violation{Checker: "zombie", ID: fmt.Sprintf("z%d", i), Text: "it came again", At: 3e9})
	}
	return &jepsen.Result{Dir: "out/queue-7", Report: r, Setup: history.Setup{LeftOut: []string{"power-loss: a faulty disk needs root"}}}
}

func TestTerminal_AResultTellsWhatWasViolatedAndWhatWasLeftOut(t *testing.T) {
	var out, errs bytes.Buffer
	newTerminal(&out, &errs, false).result(result())
	for _, want := range []string{
		"INVALID\n", "because  the run was not drained\n", "VIOLATED lost: 1 times\n", "VIOLATED zombie: 37 times, 5 of 37 shown\n",
		"2.50 s lost         r1-p1-1 it is nowhere (lines [3 9])\n", " z4 ", "LEFT OUT power-loss: a faulty disk needs root\n", "out/queue-7/report.html\n",
		"messages 12   publishes info 1, ok 11 ", "deliveries 13   again without cause 2   acks ok 10\n", "faults   kill 2   longest stall 3.2 s\n",
		"kill                      2    3.25 s    3.25 s\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), " z5 ") || errs.Len() > 0 {
		t.Errorf("it shows too much:\n%s\n%s", &out, &errs)
	}
}

func TestTerminal_ForAProgram_OneLineOfJSONIsAResultAndNothingElse(t *testing.T) {
	var out, errs bytes.Buffer
	term := newTerminal(&out, &errs, true)
	term.title("queue", []string{"kill"}, 7, time.Second)
	term.progress(jepsen.Progress{Phase: "run"})
	term.note("LEFT OUT: nothing")
	term.end()
	term.result(result())
	term.total(report.Total{}, "index.html")
	var s jepsen.Summary
	if err := json.Unmarshal(out.Bytes(), &s); err != nil || s.Verdict != check.Invalid || s.Counts["zombie"] != 37 || len(s.LeftOut) != 1 || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%v:\n%s", err, &out)
	}
	if errs.Len() > 0 {
		t.Errorf("it talks to a person: %s", &errs)
	}
}

// Into a file progress is a line now and then; a note comes at once.
func TestTerminal_Progress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, errs bytes.Buffer
		term := newTerminal(&out, &errs, false)
		term.title("queue", []string{"kill", "cut"}, 7, 30*time.Second)
		p := jepsen.Progress{Phase: "run", At: 1500 * time.Millisecond, Leader: "n2", Published: 10, Unknown: 1, Refused: 2, Delivered: 9, Acked: 8, Lost: 3, Fault: "kill+cut"}
		term.progress(p)
		term.progress(p) // too early
		term.note("LEFT OUT: %s", "power-loss: a faulty disk needs root")
		time.Sleep(progressEvery)
		term.progress(jepsen.Progress{Phase: "drain", At: 11500 * time.Millisecond})
		want := "queue for 30s, faults kill,cut, seed 7\n" +
			"     1.5 s run    leader n2  published 10 (1 unknown, 2 refused)  delivered 9  acked 8 (3 lost)  kill+cut\n" +
			"  note: LEFT OUT: power-loss: a faulty disk needs root\n" +
			"    11.5 s drain  leader -   published 0 (0 unknown, 0 refused)  delivered 0  acked 0 (0 lost)\n"
		if errs.String() != want || out.Len() > 0 {
			t.Errorf("it shows\n%s\nwant\n%s\nresults: %s", &errs, want, &out)
		}
	})
}

// On a screen the line is written over, and is gone before anything else is shown.
func TestTerminal_OnAScreen_ProgressIsOneLine(t *testing.T) {
	var out, errs bytes.Buffer
	term := newTerminal(&out, &errs, false)
	term.live = true
	term.progress(jepsen.Progress{Phase: "run"})
	term.progress(jepsen.Progress{Phase: "drain"})
	term.note("n1 ended by itself")
	term.end()
	const clear = "\r\x1b[K"
	parts := strings.Split(errs.String(), clear)
	if len(parts) != 4 || !strings.Contains(parts[1], " run ") || !strings.Contains(parts[2], " drain ") || parts[3] != "  note: n1 ended by itself\n" || strings.Contains(parts[1]+parts[2], "\n") {
		t.Errorf("it shows %q", parts)
	}
}

func TestTerminal_TheSumOfRunsHasAllFaults(t *testing.T) {
	var out, errs bytes.Buffer
	sum := report.Sum([]report.Row{{Verdict: check.Valid, Stats: check.Stats{
		Messages: 5, Faults: map[string]int{"kill": 3, "cut": 1}, Stalls: map[string]check.Stall{"kill": check.NewStall([]float64{1, 2, 3})},
	}}})
	newTerminal(&out, &errs, false).total(sum, "out/index.html")
	for _, want := range []string{sum.String() + "  out/index.html\n", "  cut                       1               -         -\n", "  kill                      3          2.00 s    3.00 s\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}

func TestMutants_OneThatWasNotRunIsNotCalledUncaught(t *testing.T) {
	ok := caught{Mutant: "a", By: []string{"lost", "counts"}, Seconds: 1.25, Runs: 2, Seed: 8}
	survived := caught{Mutant: "b", Breaks: "a rule", Runs: 3, Seed: 9}
	broken := caught{Mutant: "c", Error: "it does not build"}
	for _, c := range []struct {
		all  []caught
		want string
	}{
		{[]caught{ok}, "<nil>"},
		{[]caught{ok, survived}, "1 of 2 mutants were not caught"},
		{[]caught{ok, broken}, "1 of 2 mutants could not be run"},
		{[]caught{broken, survived, broken}, "1 of 3 mutants were not caught, 2 of 3 mutants could not be run"},
	} {
		if err := notCaught(c.all); fmt.Sprint(err) != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	var out bytes.Buffer
	term := newTerminal(&out, nil, false)
	beside := survived
	beside.Beside = []string{"crash"}
	for _, r := range []caught{ok, survived, beside, broken} {
		term.mutant(r)
	}
	want := "a                        caught by lost, counts in 1.2 s (run 2, seed 8)\n" +
		"b                        SURVIVED 3 runs, the last with seed 9: a rule\n" +
		"b                        SURVIVED 3 runs, the last with seed 9: a rule (seen only by crash)\n" +
		"c                        NOT RUN: it does not build\n"
	if out.String() != want {
		t.Errorf("it shows\n%s", &out)
	}
}
