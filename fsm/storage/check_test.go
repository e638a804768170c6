package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
		"manifest's end":     {manifest, func(p string) error { return flip(p, -3) }},
		"sums flipped":       {sumsFile, func(p string) error { return flip(p, 20) }},
		"sums' sum":          {sumsFile, func(p string) error { return flip(p, -3) }},
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

// What Pebble itself takes for the end of its list of tables is damage: a checkpoint
// whose list has a flipped bit anywhere is not loaded, and not taken from another.
func TestPebble_LoadOfADamagedList_IsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTest(t, vfs.Default, filepath.Join(dir, "live"), 1)
	for from := uint64(0); from < 3000; from += 1000 {
		fill(s, from, from+1000)
		checkpoint(t, s, filepath.Join(dir, fmt.Sprint("snap", from))) // flushes
	}
	last := filepath.Join(dir, "snap2000")
	lists, err := filepath.Glob(filepath.Join(last, "MANIFEST-*"))
	if err != nil || len(lists) != 1 {
		t.Fatal(lists, err)
	}
	info, err := os.Stat(lists[0])
	if err != nil {
		t.Fatal(err)
	}
	r := openTest(t, vfs.Default, filepath.Join(dir, "other"), 1)
	for at := int64(0); at < info.Size(); at += 1 + info.Size()/20 {
		if err := flip(lists[0], at); err != nil {
			t.Fatal(err)
		}
		if err := r.Load(last); !errors.Is(err, ErrBadCheckpoint) || !strings.Contains(err.Error(), lists[0]) {
			t.Errorf("a flipped bit at %d: load: %v", at, err)
		}
		var sent bytes.Buffer
		if err := sendFiles(vfs.Default, last, &sent); err != nil {
			t.Fatal(err)
		}
		if err := r.Receive(&sent); !errors.Is(err, ErrBadCheckpoint) {
			t.Errorf("a flipped bit at %d: receive: %v", at, err)
		}
		if err := flip(lists[0], at); err != nil { // back
			t.Fatal(err)
		}
	}
	if err := r.Load(last); err != nil {
		t.Fatal(err)
	}
	wantBodies(t, r, 0, 3000)
}

func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if at < 0 { // from the end
		end, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		at += end
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 4
	_, err = f.WriteAt(b, at)
	return err
}
