// Package mutants holds deliberately broken builds of onceq that the suite must
// catch: one for each rule that can be broken without anything showing. A mutant
// is a set of exact search-and-replace edits, made at build time with go build
// -overlay, so that no broken line is ever in the product. Each edit must match
// exactly once, and what it leaves must compile: when the code moves on, the test of
// this package says which mutant has to follow.
package mutants

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
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
	Slow     bool // it may take minutes until it shows, or nobody has seen how long: not for the few minutes of CI
	// By are the checkers that are about the rule; one of them must say so. What others
	// see beside it, a node that ends above all, would be seen of half the rest too and
	// says nothing of how well the rule is watched.
	By    []string
	Edits []Edit
}

// Edit is one search and replace.
type Edit struct {
	// File is relative to our module, or module@/path for a file of a library.
	File     string
	Old, New string
}

// Older is not broken: it is a build that knows only the first version of the machine,
// as if the build of then was still running.
func Older() Mutant {
	return Mutant{
		Name: "older",
		Edits: []Edit{{"fsm/version.go",
			"	MachineVersion uint32 = 4\n",
			"	MachineVersion uint32 = 1\n"}},
	}
}

// Caught says whether a run in which these checkers saw a violation has caught it.
func (m Mutant) Caught(by []string) bool {
	return slices.ContainsFunc(by, func(checker string) bool { return slices.Contains(m.By, checker) })
}

// OfClient says whether the mutant breaks the client library.
func (m Mutant) OfClient() bool {
	return slices.ContainsFunc(m.Edits, func(e Edit) bool { return strings.HasPrefix(e.File, "client/") })
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

// Prepare writes what the build needs into dir and returns the flags for go build.
// root is the module. A library in the module cache cannot be overlaid: it is
// copied, and replaced in a go.mod of its own.
func (m Mutant) Prepare(ctx context.Context, root, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	replace := map[string]string{} // file to file
	copies := map[string]string{}  // module to directory
	for i, e := range m.Edits {
		if err := m.edit(ctx, root, dir, e, replace, copies); err != nil {
			return nil, fmt.Errorf("mutant %s: edit %d: %w", m.Name, i+1, err)
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, b, 0o644); err != nil {
		return nil, err
	}
	flags := []string{"-overlay", overlay}
	if len(copies) > 0 {
		modfile, err := writeModfile(root, dir, copies)
		if err != nil {
			return nil, fmt.Errorf("mutant %s: %w", m.Name, err)
		}
		flags = append(flags, "-modfile", modfile)
	}
	return flags, nil
}

func (m Mutant) edit(ctx context.Context, root, dir string, e Edit, replace, copies map[string]string) error {
	module, file, ofModule := strings.Cut(e.File, "@/")
	from := filepath.Join(root, filepath.FromSlash(e.File))
	to := replace[from]
	if ofModule {
		if copies[module] == "" {
			copied, err := copyModule(ctx, root, dir, module)
			if err != nil {
				return err
			}
			copies[module] = copied
		}
		from = filepath.Join(copies[module], filepath.FromSlash(file))
		to = from
	} else if to == "" {
		to = filepath.Join(dir, fmt.Sprintf("%d_%s", len(replace), filepath.Base(from)))
		replace[from] = to
	} else {
		from = to // edited before
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if n := strings.Count(string(b), e.Old); n != 1 {
		return fmt.Errorf("it matches %d times in %s, must match once:\n%s", n, e.File, e.Old)
	}
	return os.WriteFile(to, []byte(strings.Replace(string(b), e.Old, e.New, 1)), 0o644)
}

func copyModule(ctx context.Context, root, dir, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	from, to := strings.TrimSpace(string(out)), filepath.Join(dir, "module_"+filepath.Base(module))
	return to, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
}

func writeModfile(root, dir string, copies map[string]string) (string, error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return "", err
	}
	for module, copied := range copies {
		mod = fmt.Appendf(mod, "\nreplace %s => %s\n", module, copied)
	}
	path := filepath.Join(dir, "go.mod")
	if err := os.WriteFile(path, mod, 0o644); err != nil {
		return "", err
	}
	return path, os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644)
}
