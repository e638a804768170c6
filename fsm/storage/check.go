package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

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
		if !isTable(n) {
			continue
		}
		path := fs.PathJoin(dir, n)
		if err := checkTable(fs, path); err != nil {
			problems = append(problems, fmt.Errorf("bodies: %s is damaged: %w", path, err))
		}
	}
	// Which tables belong to it is in the other files, and opening it reads them.
	for _, err := range checkOpens(fs, dir, scratch) {
		problems = append(problems, fmt.Errorf("bodies: %s: %w", dir, err))
	}
	return problems
}

func checkTable(fs vfs.FS, path string) error {
	err := readTable(fs, path, (*sstable.Reader).ValidateBlockChecksums)
	if err == nil {
		return nil
	}
	if b := blockPattern.FindStringSubmatch(err.Error()); b != nil {
		return fmt.Errorf("block of %s bytes at offset %s: %w", b[2], b[1], err)
	}
	return err
}

// soundTable reads a table. An error for a damaged one wraps ErrBadCheckpoint; what keeps
// us from looking is no damage.
func soundTable(fs vfs.FS, path string) error {
	there, err := fs.Open(path)
	if err != nil {
		return err
	}
	err = errors.Join(checkTable(fs, path), there.Close())
	switch {
	case err == nil, passing(err):
		return err
	default: // a block that the disk cannot read is as bad as one that has rotted
		return fmt.Errorf("%w: %w", ErrBadCheckpoint, err)
	}
}

// Tables compares the files of a checkpoint with their sums, and names its tables, whose
// blocks are left to CheckTable. An error for damage wraps ErrBadCheckpoint.
func Tables(dir string) ([]string, error) {
	if err := checkSums(vfs.Default, dir); err != nil {
		return nil, err
	}
	names, err := vfs.Default.List(dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(n string) bool { return !isTable(n) }), nil
}

// CheckTable reads a table of a checkpoint, and says how large it is. An error for a
// damaged one wraps ErrBadCheckpoint, and names file and offset.
func CheckTable(path string) (bytes int64, err error) {
	info, err := vfs.Default.Stat(path)
	if err != nil {
		return 0, err
	}
	if err := soundTable(vfs.Default, path); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return info.Size(), nil
}

// blockPattern is how Pebble names the block whose checksum is wrong, in a text. The
// number of the file in there is that of an open database, and 0 here.
var blockPattern = regexp.MustCompile(`block (\d+)/(\d+): `)

func readTable(fs vfs.FS, path string, read func(*sstable.Reader) error) (err error) {
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
	return errors.Join(read(r), r.Close())
}

func checkOpens(fs vfs.FS, dir, scratch string) []error {
	if err := errors.Join(fs.RemoveAll(scratch), fs.MkdirAll(scratch, 0o700)); err != nil {
		return []error{err}
	}
	problems := opens(fs, dir, scratch)
	if err := fs.RemoveAll(scratch); err != nil {
		problems = append(problems, err)
	}
	return problems
}

func opens(fs vfs.FS, dir, scratch string) (problems []error) {
	if err := linkFiles(fs, dir, scratch); err != nil {
		return []error{err}
	}
	db, err := openPebble(scratch, &pebble.Options{FS: fs, ReadOnly: true, FormatMajorVersion: formatVersion, Logger: silent{}})
	if err != nil {
		return []error{err}
	}
	levels, err := db.SSTables()
	if err != nil {
		return []error{errors.Join(err, db.Close())}
	}
	for _, level := range levels {
		for _, t := range level {
			// A part of a file has other bounds than the file. None is made here.
			if t.Virtual {
				continue
			}
			path := fs.PathJoin(dir, fmt.Sprintf("%06d.sst", uint64(t.BackingSSTNum)))
			if k := strange(fs, path, t); k != nil {
				problems = append(problems, fmt.Errorf("%s is not the table of that name: the key %x is in it, and the list of tables has %x to %x",
					path, k, t.Smallest.UserKey, t.Largest.UserKey))
			}
		}
	}
	if err := db.Close(); err != nil {
		problems = append(problems, err)
	}
	return problems
}

// strange returns a key of a table that it cannot have by the list of tables, nil for
// none: a table may be whole, and another one's. The sums say so too, but not those of
// older builds. Pebble's own check of its levels would read all bodies once more, and
// does not mind tables of different levels that have changed places.
func strange(fs vfs.FS, path string, t pebble.SSTableInfo) (k []byte) {
	outside := func(k []byte) bool {
		return bytes.Compare(k, t.Smallest.UserKey) < 0 || bytes.Compare(k, t.Largest.UserKey) > 0
	}
	// What cannot be read is told by checkTable.
	_ = readTable(fs, path, func(r *sstable.Reader) error {
		iter, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
		if err != nil {
			return err
		}
		if kv := iter.First(); kv != nil && outside(kv.K.UserKey) {
			k = bytes.Clone(kv.K.UserKey)
		} else if kv := iter.Last(); kv != nil && outside(kv.K.UserKey) {
			k = bytes.Clone(kv.K.UserKey)
		}
		return iter.Close()
	})
	return k
}

// silent is Pebble's log where what it says is returned as well.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, a ...any) { panic(fatal(format, a)) }
