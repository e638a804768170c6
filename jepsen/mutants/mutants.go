// Package mutants holds deliberately broken builds of onceq that the suite must
// catch: one for each rule that can be broken without anything showing. A mutant
// is a set of exact search-and-replace edits, made at build time with go build
// -overlay, so that no broken line is ever in the product. Each edit must match
// exactly once: when the code moves on, the test of this package says which
// mutant has to follow.
package mutants

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Mutant is one broken build.
type Mutant struct {
	Name     string
	Breaks   string // the rule, in a sentence
	Workload string // what should catch it
	Faults   []string
	Edits    []Edit
}

// Edit is one search and replace.
type Edit struct {
	// File is relative to the module, or module@/path for a file of a library.
	File     string
	Old, New string
}

// Find finds mutants by name; "all" is all.
func Find(names []string) ([]Mutant, error) {
	all := All()
	if slices.Equal(names, []string{"all"}) {
		return all, nil
	}
	var found []Mutant
	for _, n := range names {
		i := slices.IndexFunc(all, func(m Mutant) bool { return m.Name == n })
		if i < 0 {
			return nil, fmt.Errorf("no mutant %q", n)
		}
		found = append(found, all[i])
	}
	return found, nil
}

// Overlay writes the mutant's files and the overlay for go build into dir, and
// returns the overlay's path. root is the module.
func (m Mutant) Overlay(ctx context.Context, root, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	sources := map[string]string{} // path to text
	for i, e := range m.Edits {
		path, err := e.path(ctx, root)
		if err != nil {
			return "", fmt.Errorf("mutant %s: edit %d: %w", m.Name, i+1, err)
		}
		text, ok := sources[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("mutant %s: %w", m.Name, err)
			}
			text = string(b)
		}
		if n := strings.Count(text, e.Old); n != 1 {
			return "", fmt.Errorf("mutant %s: edit %d matches %d times in %s, must match once:\n%s", m.Name, i+1, n, e.File, e.Old)
		}
		sources[path] = strings.Replace(text, e.Old, e.New, 1)
	}
	replace := map[string]string{}
	for path, text := range sources {
		to := filepath.Join(dir, fmt.Sprintf("%d_%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[path] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o644)
}

func (e Edit) path(ctx context.Context, root string) (string, error) {
	module, file, ok := strings.Cut(e.File, "@/")
	if !ok {
		return filepath.Join(root, filepath.FromSlash(e.File)), nil
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), filepath.FromSlash(file)), nil
}
