package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"onceq/cmd/onceq/internal/devcluster"
)

// TestDiskHang_UnderTheLeader_AnotherLeads: the disk of the leader answers nothing
// any more, which raft does not notice: heartbeats go on. Its process ends by
// itself, another node leads, publishes go on, and nothing that was confirmed is
// lost. The node comes back when it is started on a disk that answers.
func TestDiskHang_UnderTheLeader_AnotherLeads(t *testing.T) {
	t.Parallel()
	p := &powered{t: t, bin: needBinary(t), store: "wal", bodies: "disk", port: aPort(t), nodes: make([]*process, powerNodes)}
	all := []int{0, 1, 2}
	var disks []faultyDisk
	for range powerNodes {
		d := faultyDisk{t, newFaultDisk(t)}
		disks, p.disks = append(disks, d), append(p.disks, d)
	}
	t.Cleanup(func() { // before the disks go
		for _, d := range disks {
			if err := d.Heal(); err != nil {
				t.Error(err)
			}
		}
		p.kill(all)
	})
	p.start(all)
	ctx, cancel := context.WithTimeout(t.Context(), 5*bound)
	defer cancel()
	l := p.load(ctx, 2)
	l.grow()

	leader, err := devcluster.WaitLeader(ctx, l.c)
	if err != nil {
		t.Fatal(err)
	}
	hung := slices.Index([]string{"n1", "n2", "n3"}, leader)
	if _, err := disks[hung].Do("hang write,fsync"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.nodes[hung].done:
	case <-time.After(bound):
		t.Fatalf("%s goes on, with a disk that does not answer:\n%s", leader, p.nodes[hung].text())
	}
	if said := p.nodes[hung].text(); !strings.Contains(said, "does not finish") {
		t.Errorf("%s ended without a word about its disk:\n%s", leader, said)
	}
	l.grow() // the disk still hangs
	if next, err := devcluster.WaitLeader(ctx, l.c); err != nil || next == leader {
		t.Errorf("after %s leads %q, %v", leader, next, err)
	}
	if err := disks[hung].Heal(); err != nil {
		t.Fatal(err)
	}
	p.start([]int{hung})
	l.grow()
	l.end()
}
