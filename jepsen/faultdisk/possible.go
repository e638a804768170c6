package faultdisk

import (
	"errors"
	"fmt"
	"os"
)

// fusePath is the device of the kernel's FUSE.
const fusePath = "/dev/fuse"

// Possible says why there can be no faulty disks here, nil if there can.
func Possible() error {
	if os.Geteuid() != 0 {
		return errors.New("a faulty disk needs root")
	}
	f, err := os.OpenFile(fusePath, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("the kernel has no FUSE: %w", err)
	}
	return f.Close()
}
