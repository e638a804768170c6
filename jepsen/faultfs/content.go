package faultfs

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
)

const (
	pageBytes   = 4096
	sectorBytes = 512 // the least that a disk writes whole
)

// content is what is known of one file's data: how it was when it was last made
// durable. It belongs to an inode, whatever its names.
type content struct {
	mu      sync.Mutex // guards below, and every change of the file
	f       *os.File   // open for reading and writing while something is not durable
	durable int64      // the length that a power cut leaves
	pages   map[int64]page
}

// page is one that was changed since.
type page struct {
	old    []byte // as it was, up to the durable length
	doomed bool   // an fsync of it has failed: no later one saves it
}

// contents are those of all files that were ever changed.
type contents struct {
	mu sync.Mutex // guards of
	of map[uint64]*content
}

// get returns the content of an inode.
func (s *contents) get(inode uint64) *content {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[inode]
	if c == nil {
		c = &content{pages: map[int64]page{}}
		s.of[inode] = c
	}
	return c
}

// forget is called when an inode number may begin anew.
func (s *contents) forget(inode uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.of[inode]; c != nil {
		c.close()
		delete(s.of, inode)
	}
}

func (s *contents) all() []*content {
	s.mu.Lock()
	defer s.mu.Unlock()
	var inodes []uint64
	for i := range s.of {
		inodes = append(inodes, i)
	}
	slices.Sort(inodes) // one seed tears alike
	var all []*content
	for _, i := range inodes {
		all = append(all, s.of[i])
	}
	return all
}

func (c *content) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.f != nil {
		_ = c.f.Close()
		c.f = nil
	}
}

// touch remembers what a change from..to would destroy; mu is held, and fd is any
// descriptor of the file.
func (c *content) touch(fd int, from, to int64) error {
	if c.f == nil {
		f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		c.f, c.durable = f, st.Size()
	}
	for n := from / pageBytes; n*pageBytes < to; n++ {
		if p, ok := c.pages[n]; ok && !p.doomed {
			continue
		} else if ok {
			p.doomed = false // it is written again, and the next fsync may save it
			c.pages[n] = p
			continue
		}
		var p page
		if at := n * pageBytes; at < c.durable {
			p.old = make([]byte, min(pageBytes, c.durable-at))
			if _, err := c.f.ReadAt(p.old, at); err != nil && err != io.EOF {
				return err
			}
		}
		c.pages[n] = p
	}
	return nil
}

func (c *content) write(fd int, b []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.touch(fd, off, off+int64(len(b))); err != nil {
		return 0, err
	}
	return syscall.Pwrite(fd, b, off)
}

// truncate is change, which sets the length to size.
func (c *content) truncate(fd int, size int64, change func() syscall.Errno) syscall.Errno {
	c.mu.Lock()
	defer c.mu.Unlock()
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return syscall.EIO
	}
	// What is cut off; growing leaves the pages as they are.
	if err := c.touch(fd, size, max(size, st.Size)); err != nil {
		return syscall.EIO
	}
	return change()
}

// grow is change, which may make the file longer and leaves its pages.
func (c *content) grow(fd int, change func() syscall.Errno) syscall.Errno {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.touch(fd, 0, 0); err != nil {
		return syscall.EIO
	}
	return change()
}

// sync makes everything durable that no fsync has failed for.
func (c *content) sync() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.f == nil {
		return nil
	}
	st, err := c.f.Stat()
	if err != nil {
		return err
	}
	c.durable = st.Size()
	for n, p := range c.pages {
		if !p.doomed {
			delete(c.pages, n)
		}
	}
	if len(c.pages) > 0 {
		return nil
	}
	f := c.f
	c.f = nil
	return f.Close()
}

// doom: an fsync has failed. The kernel takes the pages for clean.
func (c *content) doom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, p := range c.pages {
		p.doomed = true
		c.pages[n] = p
	}
}

// lose puts the file back. With r some of what was not durable survives.
func (c *content) lose(r *rand.Rand) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.f == nil {
		return nil
	}
	f := c.f
	c.f = nil
	err := c.undo(f, r)
	clear(c.pages)
	return errors.Join(err, f.Close())
}

func (c *content) undo(f *os.File, r *rand.Rand) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	size := c.durable
	if r != nil {
		switch r.IntN(3) {
		case 0: // the length is written last
		case 1:
			size = st.Size()
		case 2:
			low, high := min(size, st.Size()), max(size, st.Size())
			size = low + r.Int64N(high-low+1)
		}
	}
	// Longer first, so that every page is there.
	if err := f.Truncate(max(size, st.Size())); err != nil {
		return err
	}
	var numbers []int64
	for n := range c.pages {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		p := c.pages[n]
		old := make([]byte, pageBytes)
		copy(old, p.old)
		for _, lost := range torn(r, p.doomed) {
			if _, err := f.WriteAt(old[lost:lost+sectorBytes], n*pageBytes+int64(lost)); err != nil {
				return err
			}
		}
	}
	return f.Truncate(size)
}

// torn says which sectors of a page are lost: all of them without r, and else all,
// none, or some.
func torn(r *rand.Rand, doomed bool) (lost []int) {
	kind := 0
	if r != nil && !doomed {
		kind = r.IntN(3)
	}
	for at := 0; at < pageBytes; at += sectorBytes {
		if kind == 0 || kind == 1 && r.IntN(2) == 0 {
			lost = append(lost, at)
		}
	}
	return lost
}
