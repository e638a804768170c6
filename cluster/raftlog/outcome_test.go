package raftlog

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// The library's errors are read from its source, in the version that go.mod names, so that an upgrade cannot add one unseen.
func TestOutcomes_JudgeEveryErrorOfTheLibrary(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/hashicorp/raft").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source of the library in %q: %v", out, err)
	}
	inSource := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok == token.IMPORT {
				continue
			}
			for _, spec := range gen.Specs {
				value, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for _, name := range value.Names {
					if strings.HasPrefix(name.Name, "Err") {
						inSource[name.Name] = true
					}
				}
			}
		}
	}
	inTable := map[string]bool{}
	for _, c := range outcomes {
		if inTable[c.name] {
			t.Errorf("%s is judged twice", c.name)
		}
		inTable[c.name] = true
		if !inSource[c.name] {
			t.Errorf("%s is judged and the library has it no more", c.name)
		}
		if c.why == "" || c.err == nil {
			t.Errorf("%s is judged without a reason", c.name)
		}
	}
	for name := range inSource {
		if !inTable[name] {
			t.Errorf("the library has a new error, %s: read what it proves about an entry and add it to the table", name)
		}
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Outcome
	}{
		{nil, OutcomeCommitted},
		{raft.ErrNotLeader, OutcomeNothingAppended},
		{raft.ErrLeadershipTransferInProgress, OutcomeNothingAppended},
		{raft.ErrEnqueueTimeout, OutcomeNothingAppended},
		{fmt.Errorf("apply: %w", raft.ErrNotLeader), OutcomeNothingAppended},
		{raft.ErrLeadershipLost, OutcomeUnknown},
		{raft.ErrAbortedByRestore, OutcomeUnknown},
		{raft.ErrRaftShutdown, OutcomeUnknown},
		{errors.New("node is not the leader"), OutcomeUnknown}, // texts prove nothing
		{fmt.Errorf("append: %w", errDisk), OutcomeUnknown},
		{ErrClosed, OutcomeUnknown},
		{ErrEntryTooLarge, OutcomeNothingAppended},
	} {
		if got := Classify(c.err); got != c.want {
			t.Errorf("Classify(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}
