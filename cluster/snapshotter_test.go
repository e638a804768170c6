package cluster

import (
	"testing"

	"github.com/hashicorp/raft"
)

func TestSnapshotter_IsDueByBytesAndInProportionToItsSize(t *testing.T) {
	s := newSnapshotter(64 << 20)
	s.base = raft.ReloadableConfig{TrailingLogs: 4096, SnapshotThreshold: 16_384}
	due := func() bool {
		select {
		case <-s.due:
			return true
		default:
			return false
		}
	}
	const entry = 1<<20 - entryCost
	for range 63 {
		s.applied(entry)
	}
	if due() {
		t.Fatal("due before the log has grown enough")
	}
	s.applied(entry)
	if !due() {
		t.Fatal("not due after 64 MiB")
	}
	s.frozen()
	if s.persisted(1 << 30); s.size != 1<<30 {
		t.Fatal("the size is not known")
	}
	// Megabyte entries: few may stay behind; a snapshot of a gigabyte is worth
	// a gigabyte of log.
	if trailing, threshold := s.plan(); trailing != trailingLogsMin || threshold != 16_384 {
		t.Fatalf("trailing %d, threshold %d", trailing, threshold)
	}
	for range 1023 {
		s.applied(entry)
	}
	if due() {
		t.Fatal("due although the newest snapshot is larger than the log after it")
	}
	s.applied(entry)
	if !due() {
		t.Fatal("not due")
	}
	// Small entries: as many stay as were asked for, and raft's own count gives
	// way to the size.
	s.frozen()
	for range 1000 {
		s.applied(0)
	}
	s.frozen()
	if trailing, threshold := s.plan(); trailing != 4096 || threshold != 1<<20 {
		t.Fatalf("trailing %d, threshold %d", trailing, threshold)
	}
}
