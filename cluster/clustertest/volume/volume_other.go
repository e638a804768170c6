//go:build !linux

package volume

import (
	"os"
	"testing"
)

// Tmpfs mounts a file system in memory.
func Tmpfs(t testing.TB, _ int64) string {
	missing(t, "Linux")
	return ""
}

// Fill writes a file that leaves about so many bytes free.
func Fill(t testing.TB, _ string, _ int64) string {
	missing(t, "Linux")
	return ""
}

// Disk is a file system whose power can be cut.
type Disk struct{ Dir string }

// NewDisk makes and mounts one.
func NewDisk(t testing.TB, _ int64) *Disk {
	missing(t, "Linux")
	return nil
}

// Mount mounts the disk.
func (*Disk) Mount() {}

// CutPower makes the file system forget what was not made durable.
func (*Disk) CutPower() error { return nil }

// Remount brings a disk back.
func (*Disk) Remount() {}

// Freeze stops a process.
func Freeze(*os.Process) error { return nil }
