package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

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

func TestMutant_AnUnknownNameIsAUsageError(t *testing.T) {
	if code, err := (&cli{Mutant: []string{"nonsense"}, Out: t.TempDir()}).run(t.Context()); code != exitUsage || err == nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}
