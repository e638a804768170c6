package nemesis

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dataDir is one with a file of each kind, preallocated and half used.
func dataDir(t *testing.T) (dir string, files map[string][]byte) {
	t.Helper()
	dir, files = t.TempDir(), map[string][]byte{}
	for _, k := range kinds {
		path := filepath.Join(dir, strings.ReplaceAll(k.pattern, "*", "1"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		content := append(bytes.Repeat([]byte("content "), 100), make([]byte, 5000)...)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		files[path] = content
	}
	return dir, files
}

func TestSpoil_ChangesOneFileWhereItIsUsed(t *testing.T) {
	t.Parallel()
	ways := map[string]int{}
	for seed := range uint64(60) {
		dir, files := dataDir(t)
		_, what, err := spoil(dir, rand.New(rand.NewPCG(seed, 1)))
		if err != nil {
			t.Fatal(err)
		}
		changed := 0
		for path, before := range files {
			after, err := os.ReadFile(path)
			switch {
			case os.IsNotExist(err):
				ways["removed"]++
				changed++
			case err != nil:
				t.Fatal(err)
			case len(after) < len(before):
				if len(after) >= 800 {
					t.Errorf("%s: only what was not used is gone", what)
				}
				ways["truncated"]++
				changed++
			case !bytes.Equal(before, after):
				if bytes.Equal(before[:800], after[:800]) {
					t.Errorf("%s: only what was not used has changed", what)
				}
				ways["changed"]++
				changed++
			}
		}
		if changed != 1 {
			t.Errorf("%s: %d files have changed", what, changed)
		}
	}
	for _, way := range []string{"removed", "truncated", "changed"} {
		if ways[way] == 0 {
			t.Errorf("no file of 60 was %s: %v", way, ways)
		}
	}
}

func TestSpoil_ADirectoryWithoutFilesIsAnError(t *testing.T) {
	t.Parallel()
	if _, what, err := spoil(t.TempDir(), rand.New(rand.NewPCG(1, 1))); err == nil {
		t.Errorf("nothing was spoilt: %s", what)
	}
}
