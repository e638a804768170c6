package bench

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve gives a file its length, and room on the disk.
func reserve(f *os.File, bytes int64) error {
	return again(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, bytes) })
}

// syncData makes what was written durable, as the log does.
func syncData(f *os.File) error {
	return again(func() error { return unix.Fdatasync(int(f.Fd())) })
}

// again goes on after a signal: the runtime sends them to whoever runs for long.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
