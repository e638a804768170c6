package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"onceq/jepsen"
	"onceq/jepsen/check"
	"onceq/jepsen/history"
)

func TestCheck_TheExitCodeIsTheVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		code int
	}{
		"valid":   {"run publishes=1\n0 1 p1 publish a seq=0\n2 2 c1 deliver a seq=0 attempt=1\n3 4 c1 ack a attempt=1\n5 6 j drain", exitOK},
		"invalid": {"0 1 p1 publish a seq=0\n2 3 p2 publish a seq=1", exitViolation},
		"unknown": {"0 1 p1 publish a seq=0", exitUnknown},
	} {
		events, err := history.ParseText(c.text)
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		for _, e := range events {
			if err := json.NewEncoder(&buf).Encode(e); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(t.TempDir(), "history.jsonl")
		if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if code, err := (&cli{Check: path}).run(t.Context()); code != c.code || err != nil {
			t.Errorf("%s: exit code %d, %v, want %d", name, code, err, c.code)
		}
	}
	if code, err := (&cli{Check: filepath.Join(t.TempDir(), "nothing")}).run(t.Context()); code != exitFailure || err == nil {
		t.Errorf("a missing file: exit code %d, %v", code, err)
	}
}

func TestCommand_WhatMakesNoSenseIsRefusedBeforeAnythingIsBuilt(t *testing.T) {
	for name, c := range map[string]cli{
		"a workload":  {Workload: []string{"queue", "nonsense"}},
		"a fault":     {Faults: []string{"nonsense"}},
		"a mutant":    {Mutant: []string{"nonsense"}},
		"a time":      {Time: -time.Second},
		"nodes":       {Nodes: 99},
		"no run":      {Runs: -1},
		"no try":      {Tries: -1},
		"a few nodes": {Nodes: 2, Faults: []string{"partition-ring"}},
	} {
		c.Out = filepath.Join(t.TempDir(), "out")
		if c.Workload == nil {
			c.Workload = []string{"queue"} // as by default
		}
		if c.Runs == 0 {
			c.Runs = 1
		}
		if c.Tries == 0 {
			c.Tries = 1
		}
		if code, err := c.run(t.Context()); code != exitUsage || err == nil {
			t.Errorf("%s: exit code %d, %v", name, code, err)
		}
		if _, err := os.Stat(c.Out); err == nil {
			t.Errorf("%s: something was left behind", name)
		}
	}
}

func TestAgain_TheCommandSaysAllThatARunDependsOn(t *testing.T) {
	for _, given := range []string{
		"--workload=dedup --faults=mix,kill --time=90s --nodes=5 --rate=50",
		"--workload=queue --faults=none --binary=/a/onceq --older=/b/onceq --server=--log-level=debug --server=--label=it's;two",
		"--workload=lease --race",
	} {
		parse := func(args []string) (c cli) {
			parser, err := kong.New(&c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.Parse(args); err != nil {
				t.Fatalf("%q: %v", args, err)
			}
			return c
		}
		first := parse(strings.Fields(given))
		line := first.again(first.Workload[0], 7)
		words, err := exec.Command("sh", "-c", "for a in "+strings.TrimPrefix(line, "go run ./cmd/jepsen ")+"; do echo \"$a\"; done").Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		first.Seed = 7
		if again := parse(strings.Fields(string(words))); !reflect.DeepEqual(first, again) {
			t.Errorf("%s\nis %+v\nof %+v", line, again, first)
		}
	}
}

func TestWorse_AViolationStandsWhateverCameAfterIt(t *testing.T) {
	for _, order := range [][]int{{exitViolation, exitInterrupted}, {exitFailure, exitUnknown}, {exitInterrupted, exitUnknown}, {exitUnknown, exitOK}} {
		if worse(order[0], order[1]) != order[0] || worse(order[1], order[0]) != order[0] {
			t.Errorf("%d is not worse than %d", order[0], order[1])
		}
	}
}

func TestSum_OfADirectoryIsThatOfItsRuns(t *testing.T) {
	dir := t.TempDir()
	if code, err := (&cli{Sum: dir, JSON: true}).run(t.Context()); code != exitFailure || err == nil {
		t.Errorf("of nothing: exit code %d, %v", code, err)
	}
	for i, verdict := range []check.Verdict{check.Valid, check.Invalid, check.Unknown} {
		res := jepsen.Result{Dir: filepath.Join(dir, string(verdict)), Report: &check.Report{Verdict: verdict, Stats: check.Stats{Messages: i}}}
		if err := os.Mkdir(res.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := res.Write("again"); err != nil {
			t.Fatal(err)
		}
	}
	if code, err := (&cli{Sum: dir, JSON: true}).run(t.Context()); code != exitViolation || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil || !bytes.Contains(page, []byte("3 runs of 0s: 1 valid, 1 invalid, 1 unknown; 0 faults with an effect and 0 without, 3 messages")) || !bytes.Contains(page, []byte("unknown/report.html")) {
		t.Errorf("the page: %v\n%s", err, page)
	}
}
