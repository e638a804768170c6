package cluster

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate makes a file take so many bytes of its file system, without writing
// them.
func allocate(path string, bytes int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for {
		if err = unix.Fallocate(int(f.Fd()), 0, 0, bytes); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return errors.Join(err, f.Close())
}
