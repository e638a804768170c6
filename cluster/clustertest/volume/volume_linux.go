package volume

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root, to mount a file system")
	}
}

// Tmpfs mounts a file system in memory and returns where. It is gone when the
// test ends.
func Tmpfs(t testing.TB, bytes int64) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		missing(t, "to mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// Fill writes a file that leaves about so many bytes free in dir, and returns
// its path.
func Fill(t testing.TB, dir string, leave int64) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for short := int64(0); ; short += int64(os.Getpagesize()) {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			t.Fatal(err)
		}
		n := int64(s.Bavail)*s.Bsize - leave - short
		if n <= 0 {
			return path
		}
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, n); err {
		case nil:
			return path
		case unix.ENOSPC: // a node that runs there took room since the look: look again
		default:
			t.Fatalf("fill %s: %v", dir, err)
		}
	}
}

// Disk is an ext4 file system on a loop device, whose power can be cut.
type Disk struct {
	t     testing.TB
	image string
	Dir   string // where it is mounted
	up    bool
}

// NewDisk makes and mounts one. It is gone when the test ends.
func NewDisk(t testing.TB, bytes int64) *Disk {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		missing(t, "mkfs.ext4")
	}
	at := t.TempDir()
	d := &Disk{t: t, image: filepath.Join(at, "image"), Dir: filepath.Join(at, "mnt")}
	if err := os.Mkdir(d.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(d.image)
	if err == nil {
		err = f.Truncate(bytes)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	// A data directory has to be empty at first: lost+found is let be.
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if d.up {
			d.unmount()
		}
	})
	d.Mount()
	return d
}

// Mount mounts the disk, which replays its journal after a power cut.
func (d *Disk) Mount() {
	d.t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.Dir).CombinedOutput(); err != nil {
		missing(d.t, fmt.Sprintf("to mount a loop device: %v: %s", err, out))
	}
	d.up = true
}

// From linux/fs/ext4/ext4.h: _IOR('X', 125, __u32), and "do not flush the log".
const (
	ext4IocShutdown     = 0x8004587d
	ext4ShutdownNoFlush = 2
)

// CutPower makes the file system forget what was not made durable: from now on
// every access fails. Who uses it should be frozen before, and then killed, and the
// disk unmounted.
func (d *Disk) CutPower() error {
	f, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), ext4IocShutdown, ext4ShutdownNoFlush)
}

// Remount brings a disk back after CutPower, when nobody uses it any more.
func (d *Disk) Remount() {
	d.t.Helper()
	d.unmount()
	d.Mount()
}

func (d *Disk) unmount() {
	d.t.Helper()
	d.up = false
	if err := unix.Unmount(d.Dir, 0); err != nil {
		d.t.Errorf("unmount %s: %v: somebody still uses it", d.Dir, err)
		_ = unix.Unmount(d.Dir, unix.MNT_DETACH)
	}
}
