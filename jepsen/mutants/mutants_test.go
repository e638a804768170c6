package mutants

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onceq/jepsen/check"
	"onceq/jepsen/nemesis"
	"onceq/jepsen/workload"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMutants_EveryEditMatchesOnceAndLeavesGoBehind(t *testing.T) {
	t.Parallel()
	for _, m := range append(All(), Older()) {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if _, err := m.Prepare(t.Context(), root(t), dir); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if _, err := parser.ParseFile(token.NewFileSet(), f, nil, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestMutants_NamesAreUniqueAndWhatTheyNeedIsThere(t *testing.T) {
	t.Parallel()
	var names []string
	for _, m := range All() {
		if slices.Contains(names, m.Name) {
			t.Errorf("two are called %s", m.Name)
		}
		names = append(names, m.Name)
		if _, ok := workload.Find(m.Workload); !ok {
			t.Errorf("%s: no workload %q", m.Name, m.Workload)
		}
		if _, _, err := nemesis.Find(m.Faults); err != nil || len(m.Faults) == 0 {
			t.Errorf("%s: faults %v: %v", m.Name, m.Faults, err)
		}
		for _, by := range m.By {
			if !slices.ContainsFunc(check.Checkers(), func(c check.Checker) bool { return c.Name == by }) {
				t.Errorf("%s: no checker %q", m.Name, by)
			}
		}
		if m.Breaks == "" || len(m.Edits) == 0 || len(m.By) == 0 {
			t.Errorf("%s breaks nothing", m.Name)
		}
	}
}

func TestPrepare_AnEditThatMatchesTwiceOrNotIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte("one two two"), 0o644); err != nil {
		t.Fatal(err)
	}
	for old, want := range map[string]bool{"one": true, "two": false, "three": false} {
		_, err := Mutant{Name: "x", Edits: []Edit{{"a.go", old, "four"}}}.Prepare(t.Context(), dir, filepath.Join(dir, old))
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "must match once") {
			t.Errorf("%q: %v", old, err)
		}
	}
	m := Mutant{Name: "x", Edits: []Edit{{"a.go", "one", "three"}, {"a.go", "three two", "five"}}}
	if _, err := m.Prepare(t.Context(), dir, filepath.Join(dir, "both")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "both", "0_a.go"))
	if err != nil || string(b) != "five two" {
		t.Errorf("the edited file is %q, %v", b, err)
	}
}

func TestCaught_OnlyByACheckerThatIsAboutTheRule(t *testing.T) {
	t.Parallel()
	m := Mutant{By: []string{"digest", "lost"}}
	for _, c := range []struct {
		by   []string
		want bool
	}{{nil, false}, {[]string{"crash"}, false}, {[]string{"crash", "lost"}, true}, {[]string{"digest"}, true}} {
		if got := m.Caught(c.by); got != c.want {
			t.Errorf("%v: %v", c.by, got)
		}
	}
}
