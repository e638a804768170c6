package cluster

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that DEFENCES.md names is there, so that no defence loses its test
// unnoticed, and each row names one.
func TestDefences_NameTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("DEFENCES.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`")
	rows := 0
	for line := range strings.Lines(string(page)) {
		names := named.FindAllStringSubmatch(line, -1)
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| What can happen") {
			if rows++; len(names) == 0 {
				t.Errorf("no test is named in %q", line)
			}
		}
		for _, n := range names {
			if !there[n[1]] {
				t.Errorf("%s is named and does not exist", n[1])
			}
		}
	}
	if rows < 30 {
		t.Errorf("%d rows were found", rows)
	}
}
