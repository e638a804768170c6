package raftlog

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"onceq/cluster/clustertest/volume"
)

// On a disk that fills up the store ends with the error of the disk, and after room was made everything that was stored is there.
func TestStore_DiskFull_EndsAndComesBack(t *testing.T) {
	fileKinds(t, func(t *testing.T, kind string) {
		at := volume.Tmpfs(t, 4<<20)
		dir := filepath.Join(at, "node")
		l := newLife(t, dir, kind)
		ballast := volume.Fill(t, at, 1<<20)
		var last uint64
		for i := uint64(1); ; i++ {
			e := own(i, 1, string(make([]byte, 40<<10)))
			if err := l.StoreLogs([]*raft.Log{e}); err != nil {
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("append %d: %v, want ENOSPC", i, err)
				}
				break
			}
			if last = i; i > 1000 {
				t.Fatal("40 MB fit into 4")
			}
		}
		l.fatals.wantOne(t, syscall.ENOSPC)
		if err := l.StoreLogs(owns(last+1, last+1, 1)); !errors.Is(err, ErrFailed) {
			t.Fatalf("append after the failure: %v", err)
		}
		l.Close()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		again, err := tryLife(t, dir, kind, true)
		if err != nil {
			t.Fatal(err)
		}
		if end, err := again.LastIndex(); err != nil || end < last {
			t.Fatalf("the log ends at %d, %v; %d was stored", end, err, last)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
