package bench

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve gives a file its length, and room on the disk.
func reserve(f *os.File, bytes int64) error { return unix.Fallocate(int(f.Fd()), 0, 0, bytes) }

// syncData makes what was written durable, as the log does.
func syncData(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
