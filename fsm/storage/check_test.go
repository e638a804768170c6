package storage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Every file of a checkpoint that is damaged or missing is named, and one that is
// well is not.
func TestCheck_NamesTheDamagedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTest(t, vfs.Default, filepath.Join(dir, "live"), 1)
	fill(s, 0, 3000)
	whole := filepath.Join(dir, "whole")
	checkpoint(t, s, whole)
	scratch := filepath.Join(dir, "scratch")
	if problems := Check(whole, scratch); len(problems) != 0 {
		t.Fatalf("a checkpoint that is well: %v", problems)
	}
	one := func(pattern string) string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(whole, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		return filepath.Base(names[0])
	}
	table, manifest := one("*.sst"), one("MANIFEST-*")
	for name, damage := range map[string]struct {
		file string
		do   func(path string) error
	}{
		"flipped bit":        {table, func(p string) error { return flip(p, 1000) }},
		"truncated":          {table, func(p string) error { return os.Truncate(p, 5000) }},
		"empty":              {table, func(p string) error { return os.Truncate(p, 0) }},
		"gone":               {table, os.Remove},
		"manifest gone":      {manifest, os.Remove},
		"manifest flipped":   {manifest, func(p string) error { return flip(p, 20) }},
		"manifest truncated": {manifest, func(p string) error { return os.Truncate(p, 30) }},
	} {
		t.Run(name, func(t *testing.T) {
			copied := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(copied, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			if err := damage.do(filepath.Join(copied, damage.file)); err != nil {
				t.Fatal(err)
			}
			problems := Check(copied, scratch)
			if len(problems) == 0 {
				t.Fatal("nothing was found")
			}
			said := problems[0].Error()
			if !strings.Contains(said, strings.TrimSuffix(damage.file, ".sst")) {
				t.Errorf("%v does not name %s", problems, damage.file)
			}
			if _, err := os.Stat(scratch); !os.IsNotExist(err) {
				t.Errorf("the scratch directory is there: %v", err)
			}
		})
	}
}

func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 4
	_, err = f.WriteAt(b, at)
	return err
}
