package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"onceq/cluster/clustertest/volume"
	"onceq/jepsen/faultdisk"
)

// powerDisk is a disk whose power can be cut.
type powerDisk interface {
	dir() string
	cut(seed uint64) error // everything fails from now on, and what was not durable is lost
	powerOn()              // when nobody uses the disk any more
}

// ext4Bytes is sparse: it takes what the log and its snapshots write.
const ext4Bytes = 2 << 30

func newPowerDisk(t *testing.T, kind string) powerDisk {
	t.Helper()
	switch kind {
	case "ext4":
		return ext4Disk{volume.NewDisk(t, ext4Bytes)}
	case "faulty":
		return faultyDisk{t, newFaultDisk(t)}
	}
	panic(fmt.Sprint("no disk ", kind))
}

// ext4Disk is a real file system: what it keeps and what it loses is its own
// business.
type ext4Disk struct{ *volume.Disk }

func (d ext4Disk) dir() string      { return d.Dir }
func (d ext4Disk) cut(uint64) error { return d.CutPower() }
func (d ext4Disk) powerOn()         { d.Remount() }

// faultyDisk loses everything that it may lose, or tears it.
type faultyDisk struct {
	t *testing.T
	*faultdisk.Disk
}

func (d faultyDisk) dir() string { return d.Dir }

func (d faultyDisk) cut(seed uint64) error {
	if seed%2 == 0 {
		return d.CutPower()
	}
	return d.TearPower(seed)
}

func (d faultyDisk) powerOn() {
	d.t.Helper()
	if err := d.PowerOn(); err != nil {
		d.t.Fatal(err)
	}
}

// faultBinary is the binary of faulty disks, built once.
var faultBinary = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "faultfs")
	ctx, cancel := context.WithTimeout(context.Background(), 3*bound)
	defer cancel()
	return bin, faultdisk.Build(ctx, bin)
})

// newFaultDisk mounts a faulty disk. It is gone when the test ends.
func newFaultDisk(t *testing.T) *faultdisk.Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test needs root, to mount a file system")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("this test needs go, to build a faulty disk")
	}
	bin, err := faultBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(scratch, "disk") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	d, err := faultdisk.Start(bin, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
