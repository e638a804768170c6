package mutants

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// listed is a package as go list describes it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Module                  *struct{ Path, Version, GoVersion string }
}

// TestMutants_Compile: a mutant that does not compile is caught by nobody, and shows
// that only in the run in which its turn comes.
func TestMutants_Compile(t *testing.T) {
	t.Parallel()
	// Without the profile of cmd/onceq: with it each package is listed once more, under
	// another path, and compiled once more for it.
	cmd := exec.CommandContext(t.Context(), "go", "list", "-pgo=off", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Module", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]listed{} // by directory
	exports := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.Dir], exports[p.ImportPath] = p, p.Export
	}
	var mu sync.Mutex // an importer is not for concurrent use
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, m := range append(All(), Older()) {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			flags, err := m.Prepare(t.Context(), root(t), dir)
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for p, edited := range editedPackages(t, m, flags[1], dir, all) {
				var files []*ast.File
				for _, name := range p.GoFiles {
					path := filepath.Join(p.Dir, name)
					if to := edited[path]; to != "" {
						path = to
					}
					f, err := parser.ParseFile(fset, path, nil, 0)
					if err != nil {
						t.Fatal(err)
					}
					files = append(files, f)
				}
				cfg := types.Config{Importer: imports, Error: func(err error) { t.Error(err) }, GoVersion: "go" + p.Module.GoVersion}
				_, _ = cfg.Check(p.ImportPath, fset, files, nil)
			}
		})
	}
}

// editedPackages are the packages that a mutant edits, with the edited files by path.
func editedPackages(t *testing.T, m Mutant, overlay, dir string, all map[string]listed) map[*listed]map[string]string {
	b, err := os.ReadFile(overlay)
	if err != nil {
		t.Fatal(err)
	}
	var o struct{ Replace map[string]string }
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	for _, e := range m.Edits {
		module, file, ofModule := strings.Cut(e.File, "@/")
		if !ofModule {
			continue
		}
		for d, p := range all {
			if p.Module != nil && p.Module.Path == module && filepath.Base(p.ImportPath) == filepath.Base(filepath.Join(module, filepath.Dir(file))) {
				o.Replace[filepath.Join(d, filepath.Base(file))] = filepath.Join(dir, "module_"+filepath.Base(module), file)
			}
		}
	}
	packages := map[*listed]map[string]string{}
	byDir := map[string]*listed{}
	for from, to := range o.Replace {
		d := filepath.Dir(from)
		if byDir[d] == nil {
			p, ok := all[d]
			if !ok {
				t.Fatalf("%s is in no package", from)
			}
			byDir[d] = &p
			packages[&p] = map[string]string{}
		}
		packages[byDir[d]][from] = to
	}
	if len(packages) == 0 {
		t.Fatal("it edits nothing")
	}
	return packages
}
