package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Check reads a whole checkpoint and compares its checksums, and returns an error for
// each file that is damaged. scratch is a directory on the same file system
// that is made anew and removed, so that the checkpoint stays as it is.
func Check(dir, scratch string) []error { return check(vfs.Default, dir, scratch) }

func check(fs vfs.FS, dir, scratch string) (problems []error) {
	names, err := fs.List(dir)
	if err != nil {
		return []error{err}
	}
	slices.Sort(names)
	for _, n := range names {
		if !strings.HasSuffix(n, ".sst") {
			continue
		}
		path := fs.PathJoin(dir, n)
		if err := checkTable(fs, path); err != nil {
			problems = append(problems, fmt.Errorf("bodies: %s is damaged: %w", path, err))
		}
	}
	// Which tables belong to it is in the other files, and opening it reads them.
	if err := checkOpens(fs, dir, scratch); err != nil {
		problems = append(problems, fmt.Errorf("bodies: %s: %w", dir, err))
	}
	return problems
}

func checkTable(fs vfs.FS, path string) (err error) {
	defer func() {
		if p := recover(); p != nil { // the library trusts what a damaged block says
			err = fmt.Errorf("%v", p)
		}
	}()
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	var o pebble.Options
	o.EnsureDefaults()
	r, err := sstable.NewReader(context.Background(), readable, o.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

func checkOpens(fs vfs.FS, dir, scratch string) error {
	if err := errors.Join(fs.RemoveAll(scratch), fs.MkdirAll(scratch, 0o700)); err != nil {
		return err
	}
	err := linkFiles(fs, dir, scratch)
	if err == nil {
		err = opens(fs, scratch)
	}
	return errors.Join(err, fs.RemoveAll(scratch))
}

func opens(fs vfs.FS, dir string) error {
	db, err := openPebble(dir, &pebble.Options{FS: fs, ReadOnly: true, FormatMajorVersion: formatVersion, Logger: silent{}})
	if err != nil {
		return err
	}
	return db.Close()
}

// silent is Pebble's log where what it says is returned as well.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, a ...any) { panic(fatal(format, a)) }
