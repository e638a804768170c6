package proc

import (
	"os"
	"path/filepath"
	"testing"

	"onceq/jepsen/history"
)

func TestDiskSizes_EachFileCountsOnceAndByItsKind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, n := range map[string]int{
		"identity": 3, "ballast": 1000, "groups/1/log/wal/1.wal": 10, "groups/1/log/stable.db": 20, "groups/1/bodies/7.sst": 300,
		"groups/1/snapshots/1-2-3/state.bin": 40, "groups/1/snapshots/1-9-3.tmp/state.bin": 5, "groups/1/backup-1/8.sst": 6, "groups/1/log-old": 7,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shared := filepath.Join(dir, "groups/1/snapshots/1-2-3/7.sst")
	if err := os.Link(filepath.Join(dir, "groups/1/bodies/7.sst"), shared); err != nil {
		t.Fatal(err)
	}
	got, err := diskSizes(dir)
	want := history.Bytes{Log: 30, Bodies: 300, Snapshots: 45, Kept: 2, Ballast: 1000, Rest: 16}
	if err != nil || got != want || got.Disk() != 1391 {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	// When live bodies let go of it, it is the snapshot's.
	if err := os.Remove(filepath.Join(dir, "groups/1/bodies/7.sst")); err != nil {
		t.Fatal(err)
	}
	if got, err := diskSizes(dir); err != nil || got.Bodies != 0 || got.Snapshots != 345 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := diskSizes(filepath.Join(dir, "nothing")); err != nil || got.Disk() != 0 {
		t.Errorf("of nothing: %+v, %v", got, err)
	}
}

func TestRaced_OfWhatIsNoGoProgram(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if Raced(path) {
		t.Error("a script has the race detector")
	}
}
