package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"onceq/cluster/clustertest/volume"
)

// What was made durable is there after a power cut, and what was not is not:
// otherwise tests that cut the power would prove nothing.
func TestDisk_PowerCut_ForgetsWhatWasNotDurable(t *testing.T) {
	d := volume.NewDisk(t, 16<<20)
	write := func(name string, sync bool) {
		f, err := os.Create(filepath.Join(d.Dir, name))
		if err == nil {
			_, err = f.WriteString("content of " + name)
		}
		if err == nil && sync {
			err = f.Sync()
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("durable", true)
	write("lost", false)
	if err := d.CutPower(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Create(filepath.Join(d.Dir, "after")); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a file was made after the power cut: %v", err)
	}
	d.Remount()
	if b, err := os.ReadFile(filepath.Join(d.Dir, "durable")); err != nil || string(b) != "content of durable" {
		t.Fatalf("durable: %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(d.Dir, "lost")); err == nil && len(b) > 0 {
		t.Fatalf("what was never made durable is there: %q", b)
	}
}
