package faultfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// names knows which changes of directories are not durable yet, in their order.
// Names that go are moved aside, since a power cut may bring them back.
type names struct {
	lost *os.File // where removed names are kept
	path string   // of lost

	mu   sync.RWMutex // held for reading by who resolves a name, for writing by who changes one; guards below
	next uint64       // the next name in lost
	open map[uint64]*directory
	done []change
}

// directory is one in which something is not durable. Its descriptor stays good
// when it is moved.
type directory struct {
	inode   uint64
	f       *os.File
	changes int
}

// gone says whether the directory is nowhere any more.
func (d *directory) gone() bool {
	var st syscall.Stat_t
	return syscall.Fstat(int(d.f.Fd()), &st) == nil && st.Nlink == 0
}

// change is one name that was made, removed or moved.
type change struct {
	in, from *directory // in is the one whose fsync makes it durable; from is nil unless moved
	name     string
	old      string // of a move
	kept     string // in lost: what was removed or replaced; "" when nothing was
	made     bool   // name was made: a power cut removes it
}

func openNames(dir string) (*names, error) {
	// What an earlier process kept there was durable in effect.
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	return &names{lost: f, path: dir, open: map[uint64]*directory{}}, err
}

// directory opens one; mu is held.
func (s *names) directory(path string) (*directory, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if d := s.open[st.Ino]; d != nil {
		return d, f.Close()
	}
	d := &directory{inode: st.Ino, f: f}
	s.open[st.Ino] = d
	return d, nil
}

// note keeps a change; mu is held.
func (s *names) note(c change) {
	c.in.changes++
	if c.from != nil {
		c.from.changes++
	}
	s.done = append(s.done, c)
}

// drop forgets a change, which is durable or undone now; mu is held.
func (s *names) drop(c change) error {
	var err error
	for _, d := range []*directory{c.in, c.from} {
		if d == nil {
			continue
		}
		if d.changes--; d.changes == 0 {
			delete(s.open, d.inode)
			err = errors.Join(err, d.f.Close())
		}
	}
	return err
}

// tidy closes a directory that nothing was noted for; mu is held.
func (s *names) tidy(d *directory) {
	if d != nil && d.changes == 0 && s.open[d.inode] == d {
		delete(s.open, d.inode)
		_ = d.f.Close()
	}
}

// aside moves a name into lost and returns what it is called there, "" if there is
// no such name; mu is held.
func (s *names) aside(d *directory, name string) (string, error) {
	kept := strconv.FormatUint(s.next, 10)
	err := unix.Renameat(int(d.f.Fd()), name, int(s.lost.Fd()), kept)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	s.next++
	return kept, nil
}

func (s *names) back(kept string, d *directory, name string) error {
	return unix.Renameat(int(s.lost.Fd()), kept, int(d.f.Fd()), name)
}

// make is a new name in dir, made by f.
func (s *names) make(dir, name string, f func() syscall.Errno) syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := os.Lstat(filepath.Join(dir, name))
	if err == nil {
		return f() // it is there already, and f says what that means
	}
	d, err := s.directory(dir)
	if err != nil {
		return errno(err)
	}
	defer func() { s.tidy(d) }()
	if errno := f(); errno != 0 {
		return errno
	}
	s.note(change{in: d, name: name, made: true})
	return 0
}

// remove is an unlink, or an rmdir.
func (s *names) remove(dir, name string, folder bool) syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(dir, name)
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return errno(err)
	case st.IsDir() != folder && folder:
		return syscall.ENOTDIR
	case st.IsDir() != folder:
		return syscall.EISDIR
	}
	if folder {
		entries, err := os.ReadDir(path)
		if err != nil {
			return errno(err)
		}
		if len(entries) > 0 {
			return syscall.ENOTEMPTY
		}
	}
	d, err := s.directory(dir)
	if err != nil {
		return errno(err)
	}
	defer func() { s.tidy(d) }()
	kept, err := s.aside(d, name)
	if err != nil || kept == "" {
		return errno(err)
	}
	s.note(change{in: d, name: name, kept: kept})
	return 0
}

// move is a rename, which may replace a file or an empty directory.
func (s *names) move(oldDir, oldName, newDir, newName string, noReplace bool) syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := os.Lstat(filepath.Join(oldDir, oldName))
	if err != nil {
		return errno(err)
	}
	b, err := os.Lstat(filepath.Join(newDir, newName))
	switch {
	case err == nil && noReplace:
		return syscall.EEXIST
	case err == nil && os.SameFile(a, b):
		return 0
	case err == nil && a.IsDir() != b.IsDir():
		if b.IsDir() {
			return syscall.EISDIR
		}
		return syscall.ENOTDIR
	case err == nil && b.IsDir():
		if entries, err := os.ReadDir(filepath.Join(newDir, newName)); err != nil || len(entries) > 0 {
			return syscall.ENOTEMPTY
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return errno(err)
	}
	from, err := s.directory(oldDir)
	if err != nil {
		return errno(err)
	}
	defer func() { s.tidy(from) }()
	to, err := s.directory(newDir)
	if err != nil {
		return errno(err)
	}
	defer func() { s.tidy(to) }()
	kept, err := s.aside(to, newName)
	if err != nil {
		return errno(err)
	}
	if err := unix.Renameat(int(from.f.Fd()), oldName, int(to.f.Fd()), newName); err != nil {
		if kept != "" {
			err = errors.Join(err, s.back(kept, to, newName))
		}
		return errno(err)
	}
	s.note(change{in: to, name: newName, from: from, old: oldName, kept: kept})
	return 0
}

// sync makes the names in a directory durable. A move is durable with its new
// name.
func (s *names) sync(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return err
	}
	d := s.open[st.Ino]
	if d == nil {
		return nil
	}
	var errs []error
	var rest []change
	for _, c := range s.done {
		if c.in != d {
			rest = append(rest, c)
			continue
		}
		if c.kept != "" {
			errs = append(errs, os.RemoveAll(filepath.Join(s.path, c.kept)))
		}
		errs = append(errs, s.drop(c))
	}
	s.done = rest
	return errors.Join(errs...)
}

// lose takes changes back, the newest first: all of them, or with r those after
// some moment.
func (s *names) lose(r *rand.Rand) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := 0
	if r != nil {
		keep = r.IntN(len(s.done) + 1)
	}
	var errs []error
	for len(s.done) > 0 {
		c := s.done[len(s.done)-1]
		s.done = s.done[:len(s.done)-1]
		if len(s.done) >= keep {
			if err := s.undo(c); err != nil {
				errs = append(errs, fmt.Errorf("take back %+v: %w", c, err))
			}
		}
		errs = append(errs, s.drop(c))
	}
	// What was moved aside and did not come back is gone now.
	entries, err := os.ReadDir(s.path)
	errs = append(errs, err)
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(s.path, e.Name())))
	}
	return errors.Join(errs...)
}

func (s *names) undo(c change) error {
	switch {
	case c.in.gone() || c.from != nil && c.from.gone():
		// The directory itself was removed, durably, and what was in it with it.
		return nil
	case c.made:
		_, err := s.aside(c.in, c.name)
		return err
	case c.from != nil:
		if err := unix.Renameat(int(c.in.f.Fd()), c.name, int(c.from.f.Fd()), c.old); err != nil {
			return err
		}
	}
	if c.kept == "" {
		return nil
	}
	return s.back(c.kept, c.in, c.name)
}

// pending are the names that are not durable.
func (s *names) pending() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for _, c := range s.done {
		names = append(names, c.name)
	}
	return names
}

func errno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e
	}
	return syscall.EIO
}
