package faultdisk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"onceq/jepsen/faultdisk"
)

// One life of a disk: a file that fails, one that a power cut takes, one that stays.
func TestDisk_FailsAndForgetsOnCommand(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("this test needs root, to mount a file system")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "faultfs")
	if err := faultdisk.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	d, err := faultdisk.Start(bin, dir)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			d.Close()
		}
	}()
	write := func(name string) error {
		f, err := os.Create(filepath.Join(d.Dir, name))
		if err == nil {
			_, err = f.WriteString(name)
			err = errors.Join(err, f.Sync(), f.Close())
		}
		return err
	}
	if _, err := d.Do("fail write ENOSPC match bad*"); err != nil {
		t.Fatal(err)
	}
	if err := write("bad"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if _, err := d.Do("fail write EBLUE"); !errors.Is(err, faultdisk.ErrRefused) {
		t.Errorf("a bad command: %v", err)
	}
	if err := write("stays"); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(d.Dir)
	if err == nil {
		err = errors.Join(root.Sync(), root.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Heal(), write("goes"), d.CutPower(), d.PowerOn()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(d.Dir, "stays")); string(b) != "stays" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(d.Dir, "goes")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what had no durable name is there: %v", err)
	}
	if err := errors.Join(write("torn"), d.TearPower(1), d.PowerOn()); err != nil {
		t.Error(err)
	}
	closed = true
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
