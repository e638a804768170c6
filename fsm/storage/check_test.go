package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
			if name == "flipped bit" && !strings.Contains(said, "at offset 0:") {
				t.Errorf("%v does not say where in the file", problems)
			}
			if _, err := os.Stat(scratch); !os.IsNotExist(err) {
				t.Errorf("the scratch directory is there: %v", err)
			}
		})
	}
}

// A block that has rotted is not sent: the receiver looks at the ends of tables alone, and
// the sum that goes with it is of what was read here.
func TestStream_OfARottenTable_IsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTest(t, vfs.Default, filepath.Join(dir, "live"), 1)
	fill(s, 0, 3000)
	whole := filepath.Join(dir, "whole")
	checkpoint(t, s, whole)
	if err := Stream(whole, io.Discard); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(whole, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	if err := flip(tables[0], 1000); err != nil {
		t.Fatal(err)
	}
	if err := Stream(whole, io.Discard); !errors.Is(err, ErrBadCheckpoint) || !strings.Contains(err.Error(), filepath.Base(tables[0])) || !strings.Contains(err.Error(), "offset") {
		t.Errorf("sent: %v", err)
	}
}

// Who has no descriptor left for a table knows nothing of the table: called damage, the
// sender would act on it.
func TestStream_TooManyFilesOpen_IsNoDamage(t *testing.T) {
	t.Parallel()
	snap, tables := alike(t, t.TempDir())
	for opens := 1; opens <= 3; opens++ { // to look at it, to check it, to send it
		fs := &scarceFS{FS: vfs.Default, name: tables[0], left: opens}
		err := sendFiles(fs, snap, io.Discard)
		if !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrBadCheckpoint) {
			t.Errorf("open %d: %v", opens, err)
		}
	}
}

// scarceFS has no descriptor for the last of left opens of a file.
type scarceFS struct {
	vfs.FS
	name string
	left int
}

func (s *scarceFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if filepath.Base(name) == s.name {
		if s.left--; s.left == 0 {
			return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EMFILE}
		}
	}
	return s.FS.Open(name, o...)
}

// alike makes a checkpoint with two tables of the same size, each with a thousand
// bodies of its own, and returns their names.
func alike(t *testing.T, dir string) (snap string, tables [2]string) {
	t.Helper()
	s := openTest(t, vfs.Default, filepath.Join(dir, "live"), 64<<20)
	rng := rand.NewChaCha8([32]byte{1})
	for i := range uint64(2) {
		for o := range uint64(1100) {
			body := make([]byte, 1024) // that does not shrink
			_, _ = rng.Read(body)
			s.Put(1, 0, (i+1)<<16+o, 1, body)
		}
		snap = filepath.Join(dir, fmt.Sprint("snap", i))
		checkpoint(t, s, snap) // writes what is in memory as one table
	}
	var sizes []int64
	paths, err := filepath.Glob(filepath.Join(snap, "*.sst"))
	if err != nil || len(paths) != 2 {
		t.Fatal(paths, err)
	}
	for i, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		sizes, tables[i] = append(sizes, info.Size()), filepath.Base(p)
	}
	if sizes[0] != sizes[1] {
		t.Fatalf("the tables have %d bytes", sizes)
	}
	return snap, tables
}

// swap gives two files each other's name.
func swap(t *testing.T, dir string, names [2]string) {
	t.Helper()
	a, b, c := filepath.Join(dir, names[0]), filepath.Join(dir, names[1]), filepath.Join(dir, "between")
	if err := errors.Join(os.Rename(a, c), os.Rename(b, a), os.Rename(c, b)); err != nil {
		t.Fatal(err)
	}
}

// Two tables of the same size that have changed names are whole, each for itself.
// Pebble would serve them, without the bodies that are not where it looks.
func TestPebble_TableSwappedWithItsLike_IsNoticed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	snap, tables := alike(t, dir)
	r, scratch := openTest(t, vfs.Default, filepath.Join(dir, "other"), 1), filepath.Join(dir, "scratch")
	swap(t, snap, tables)
	if err := r.Load(snap); !errors.Is(err, ErrBadCheckpoint) || !strings.Contains(err.Error(), tables[0]) {
		t.Errorf("load: %v", err)
	}
	var sent bytes.Buffer
	if err := sendFiles(vfs.Default, snap, &sent); err != nil {
		t.Fatal(err)
	}
	if err := r.Receive(&sent); !errors.Is(err, ErrBadCheckpoint) || !strings.Contains(err.Error(), tables[0]) {
		t.Errorf("receive: %v", err)
	}
	if problems := Check(snap, scratch); len(problems) == 0 || !strings.Contains(problems[0].Error(), tables[0]) {
		t.Errorf("check: %v", problems)
	}
	swap(t, snap, tables) // back
	if err := r.Load(snap); err != nil {
		t.Fatal(err)
	}
}

// A checkpoint of an older build has no sums of its tables. It is taken, and Check
// sees by the keys that tables have changed names.
func TestCheck_TablesWithoutASum(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	snap, tables := alike(t, dir)
	r, scratch := openTest(t, vfs.Default, filepath.Join(dir, "other"), 1), filepath.Join(dir, "scratch")
	sums := filepath.Join(snap, sumsFile)
	b, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	lines = lines[:len(lines)-2] // all but the sum of the others
	for i, l := range lines {
		if size, rest, _ := strings.Cut(l, " "); strings.HasSuffix(l, ".sst\n") {
			lines[i] = size + " 00000000" + rest[8:]
		}
	}
	older := strings.Join(lines, "")
	if err := os.WriteFile(sums, []byte(older+sumOf(older)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Load(snap); err != nil {
		t.Fatal(err)
	}
	if problems := Check(snap, scratch); len(problems) != 0 {
		t.Fatal(problems)
	}
	swap(t, snap, tables)
	problems := Check(snap, scratch)
	if len(problems) != 2 || !strings.Contains(problems[0].Error(), tables[0]) || !strings.Contains(problems[1].Error(), tables[1]) {
		t.Errorf("check: %v", problems)
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
