package raftlog

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncData makes the bytes of a file of fixed length durable, without its times.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
