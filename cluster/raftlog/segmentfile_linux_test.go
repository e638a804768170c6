package raftlog

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	walfs "github.com/hashicorp/raft-wal/fs"
	"golang.org/x/sys/unix"
)

// TestSegmentFile_WhatIsDurable_LeavesThePageCache: all but the end, in whichever
// appends it came, and can still be read.
func TestSegmentFile_WhatIsDurable_LeavesThePageCache(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the directory for temporary files is nothing but page cache: set TMPDIR to one on a disk")
	}
	const size = 16 << 20
	made, err := segmentFS{walfs.New()}.Create(dir, "segment", size)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	random := rand.NewChaCha8([32]byte{1})
	add := func(n int) {
		t.Helper()
		b := make([]byte, n)
		_, _ = random.Read(b)
		if _, err := made.WriteAt(b, int64(len(want))); err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
	}
	add(4 << 20)
	if n := cached(t, dir); n < 4<<20 {
		t.Fatalf("%d bytes are in the page cache before they are durable: the test shows nothing", n)
	}
	for range 40 {
		if err := made.Sync(); err != nil {
			t.Fatal(err)
		}
		add(100_000)
	}
	if n := cached(t, dir); n > segmentDropBytes+2*cachePageBytes+100_000 {
		t.Errorf("%d of %d bytes are in the page cache", n, len(want))
	}
	if err := made.Close(); err != nil {
		t.Fatal(err)
	}

	again, err := segmentFS{walfs.New()}.OpenWriter(dir, "segment")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	got := make([]byte, len(want))
	if _, err := again.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what was appended is not what is read (%v)", err)
	}
	made = again
	add(10_000)
	if err := again.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := cached(t, dir); n > segmentDropBytes {
		t.Errorf("after it was opened again %d of %d bytes are in the page cache", n, len(want))
	}
}

// cached is how many bytes of the segment are in the page cache.
func cached(t *testing.T, dir string) (n int) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "segment"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	resident := make([]byte, (len(m)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&resident[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, r := range resident {
		n += int(r&1) * os.Getpagesize()
	}
	return n
}
