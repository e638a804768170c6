package cmd_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What users import is shown by examples that are run: each exported type has one
// that is named after it or writes its name.
func TestExamples_ShowEveryExportedType(t *testing.T) {
	t.Parallel()
	for _, pkg := range []string{"client", "client/inbox", "client/outbox", "client/onceqtest", "client/middleware", "client/watermill"} {
		t.Run(pkg, func(t *testing.T) {
			t.Parallel()
			fset := token.NewFileSet()
			dir := filepath.Join(root, pkg)
			shown := shownTypes(parseDir(t, fset, dir, true), filepath.Base(pkg))
			for _, f := range parseDir(t, fset, dir, false) {
				for _, d := range f.Decls {
					g, ok := d.(*ast.GenDecl)
					if !ok || g.Tok != token.TYPE {
						continue
					}
					for _, s := range g.Specs {
						if name := s.(*ast.TypeSpec).Name; name.IsExported() && !shown[name.Name] {
							t.Errorf("%s: no example with checked output shows %s", fset.Position(name.Pos()), name.Name)
						}
					}
				}
			}
		})
	}
}

func parseDir(t *testing.T, fset *token.FileSet, dir string, tests bool) (files []*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") != tests {
			continue
		}
		f, err := parser.ParseFile(fset, filepath.Join(dir, e.Name()), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// shownTypes are the names of a package that its examples with checked output are
// called after or write.
func shownTypes(tests []*ast.File, pkg string) map[string]bool {
	shown := map[string]bool{}
	for _, e := range doc.Examples(tests...) {
		if e.Output == "" && !e.EmptyOutput {
			continue // it is only compiled
		}
		name, _, _ := strings.Cut(e.Name, "_")
		shown[name] = true
		ast.Inspect(e.Code, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == pkg {
					shown[s.Sel.Name] = true
				}
			}
			return true
		})
	}
	return shown
}
