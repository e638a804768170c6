package storage

import (
	"bytes"
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// TestTableWriter_OnADisk_LeavesThePageCacheAlone: but for the end of a table, and
// the page that it is in.
func TestTableWriter_OnADisk_LeavesThePageCacheAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the directory for temporary files is nothing but page cache: set TMPDIR to one on a disk")
	}
	path := filepath.Join(dir, "table")
	f, err := vfs.Default.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	w := newTableWriter(f, tableBuffer(), nil)
	write(t, w, randomBytes(8<<20+100))
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	g, err := vfs.Default.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var pages unix.Cachestat_t
	if err := unix.Cachestat(uint(g.Fd()), &unix.CachestatRange{}, &pages, 0); err != nil {
		t.Skip("this kernel does not tell what is in the page cache:", err)
	}
	if n := int(pages.Cache) * unix.Getpagesize(); n > 128<<10 {
		t.Errorf("%d bytes of the table are in the page cache", n)
	}
}

// picky is a file whose file system takes O_DIRECT and refuses the write.
type picky struct {
	vfs.File
	refused int
}

func (p *picky) Write(b []byte) (int, error) {
	if flags, err := unix.FcntlInt(p.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_DIRECT != 0 {
		p.refused++
		return 0, errors.Join(err, syscall.EINVAL)
	}
	return p.File.Write(b)
}

func TestTableWriter_DirectWritesThatAreRefused_GoThroughThePageCache(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "table")
	f, err := vfs.Default.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	p := &picky{File: f}
	w := newTableWriter(p, tableBuffer(), nil)
	want := randomBytes(2*tableWriteBytes + 5000)
	write(t, w, want)
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, vfs.Default, path); !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes, or others", len(got), len(want))
	}
	if p.refused != 1 {
		t.Errorf("%d direct writes were refused, want 1", p.refused)
	}
}
