// Package cmd_test holds the house's plan in place: which package may import
// which, and which versions of the libraries belong together.
package cmd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = ".."

// rooms says, for each folder, what of ours its packages may import, and which
// modules only they may import. The longest folder that fits is the rule. Test
// files are exempt.
var rooms = []struct {
	folder string
	ours   []string // folders; "" is all
}{
	{"cmd", []string{""}},
	// Retransmits and late copies that no client would send are made of raw frames.
	{"jepsen", []string{"client", "jepsen", "transport/wire"}},
	{"client/onceqtest", []string{"client", "cluster"}},
	{"client", []string{"client", "transport/wire"}},
	{"cluster/placement", nil},
	{"cluster/sim", []string{"cluster", "client", "fsm", "transport"}},
	{"cluster", []string{"cluster", "fsm", "transport"}},
	{"transport/transporttest", []string{"transport"}},
	// pack, the bounded msgpack reader and writer, is a leaf that the machine and
	// the wire share: both decode bytes from strangers, and one such reader is
	// enough to keep right.
	{"transport/wire/pack", nil},
	{"transport/wire", []string{"transport/wire/pack", "transport/wire"}},
	{"transport", []string{"transport"}},
	{"fsm/fsmtest", []string{"fsm", "transport/wire"}}, // imported by tests alone
	{"fsm/storage", []string{"fsm"}},
	{"fsm", []string{"transport/wire/pack"}},
}

// pure are the folders without I/O: beside the standard library, of which some
// packages are forbidden, they import small pure libraries only.
var pure = map[string][]string{
	"fsm":                 {"github.com/cespare/xxhash/v2", "github.com/google/btree", "github.com/vmihailenco/msgpack/v5"},
	"transport/wire":      {"github.com/vmihailenco/msgpack/v5"},
	"transport/wire/pack": {"github.com/cespare/xxhash/v2", "github.com/vmihailenco/msgpack/v5"},
	"client":              {"github.com/vmihailenco/msgpack/v5"},
}

// impure are packages of the standard library that the queue machine must not
// know: time that passes, chance, files, networks.
var impure = []string{"crypto/rand", "hash/maphash", "math/rand", "net", "os", "syscall", "unsafe"}

// owners says who alone may import a library.
var owners = map[string]string{
	"github.com/hashicorp/raft":       "cluster",
	"github.com/hashicorp/raft-wal":   "cluster",
	"github.com/hashicorp/memberlist": "cluster",
	"github.com/cockroachdb/pebble":   "fsm/storage",
}

func TestImports_FollowTheArrows(t *testing.T) {
	t.Parallel()
	for file, imports := range sourceImports(t) {
		dir := filepath.ToSlash(filepath.Dir(file))
		allowed, known := arrows(dir)
		if !known {
			t.Errorf("%s: no rule for its folder; add one to rooms", file)
		}
		for _, path := range imports {
			if of, ok := strings.CutPrefix(path, "onceq/"); ok {
				if !within(of, dir) && !anyOf(allowed, of) {
					t.Errorf("%s imports %s: the arrows of the house do not point there (see rooms)", file, path)
				}
				continue
			}
			for lib, owner := range owners {
				if strings.HasPrefix(path, lib) && !within(dir, owner) && !within(dir, "cmd") {
					t.Errorf("%s imports %s: only %s may", file, path, owner)
				}
			}
			if libs, ok := pure[dir]; ok && strings.Contains(strings.Split(path, "/")[0], ".") && !anyOf(libs, path) {
				t.Errorf("%s imports %s: %s imports the standard library and %v only", file, path, dir, libs)
			}
			if dir == "fsm" && anyOf(impure, path) {
				t.Errorf("%s imports %s: the queue machine is a pure function of its log", file, path)
			}
		}
	}
}

func arrows(dir string) (ours []string, known bool) {
	best := -1
	for _, r := range rooms {
		if within(dir, r.folder) && len(r.folder) > best {
			best, ours = len(r.folder), r.ours
		}
	}
	return ours, best >= 0
}

// within says whether path is folder or below it.
func within(path, folder string) bool {
	return folder == "" || path == folder || strings.HasPrefix(path, folder+"/")
}

func anyOf(folders []string, path string) bool {
	for _, f := range folders {
		if within(path, f) {
			return true
		}
	}
	return false
}

// sourceImports returns the imports of every Go file that is not a test, by its
// path from the root. Folders with a go.mod of their own are other modules.
func sourceImports(t *testing.T) map[string][]string {
	imports := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			_, ownModule := os.Stat(filepath.Join(path, "go.mod"))
			if rel != "." && (d.Name()[0] == '.' || d.Name() == "testdata" || ownModule == nil) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			imports[filepath.ToSlash(rel)] = append(imports[filepath.ToSlash(rel)], strings.Trim(i.Path.Value, `"`))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(imports) < 10 {
		t.Fatalf("found only %d source files below %s", len(imports), root)
	}
	return imports
}

// pins are the versions that were found to build and work together, with the
// reason to look again before moving one.
var pins = map[string]struct{ version, reason string }{
	"github.com/hashicorp/raft":           {"v1.7.3", "v1.8.0 and raft-boltdb v2.3.1 do not compile together; our defences name its lines"},
	"github.com/hashicorp/raft-boltdb/v2": {"v2.3.1", "holds term and vote; its go-metrics import decides the versions around it"},
	"github.com/hashicorp/raft-wal":       {"v0.4.2", "@latest goes back to v0.4.0; the log's format on disk"},
	"github.com/hashicorp/memberlist":     {"v0.6.0", "newer ones need a go-metrics without the compat package that raft-boltdb imports"},
	"github.com/hashicorp/go-metrics":     {"v0.6.0", "the last one with the compat package that raft-boltdb imports"},
	"github.com/vmihailenco/msgpack/v5":   {"v5.4.1", "the encoding on the wire, in the log and in snapshots"},
	"go.etcd.io/bbolt":                    {"v1.5.0", "the format of term and vote on disk"},
	"github.com/cockroachdb/pebble/v2":    {"v2.1.7", "the format of bodies in snapshots; what a checkpoint lacks without a log of its own was found in its source"},
}

func TestLibraries_StayAtTheVersionsThatWorkTogether(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(strings.TrimPrefix(line, "require ")); len(fields) >= 2 {
			found[fields[0]] = fields[1]
		}
		if strings.HasPrefix(line, "replace") {
			t.Errorf("go.mod has %q: users of the module would not get it", strings.TrimSpace(line))
		}
	}
	for path, pin := range pins {
		if got := found[path]; got != pin.version {
			t.Errorf("%s is at %q, pinned at %s: %s", path, got, pin.version, pin.reason)
		}
	}
}
