package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"onceq/client"
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
	c, err := client.Dial(ctx, p.url())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, q := range []string{powerQueue, powerWork} {
		if _, err := c.Admin().CreateQueue(ctx, q, client.QueueSettings{}); err != nil {
			t.Fatal(err)
		}
	}
	b := &book{tried: map[string]bool{}, confirmed: map[string]bool{}, acked: map[string]bool{}}
	stop := make(chan struct{})
	published := make(chan error, 2)
	for _, q := range []string{powerQueue, powerWork} {
		go func() { published <- b.publish(ctx, c, q, q, stop) }()
	}
	working, endWork := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- b.work(working, c) }()
	b.grow(t, ctx, published)

	leader, err := devcluster.LeaderOf(ctx, c)
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
	b.grow(t, ctx, published) // the disk still hangs
	if next, err := devcluster.LeaderOf(ctx, c); err != nil || next == leader {
		t.Errorf("after %s leads %q, %v", leader, next, err)
	}
	if err := disks[hung].Heal(); err != nil {
		t.Fatal(err)
	}
	p.start([]int{hung})
	b.grow(t, ctx, published)
	close(stop)
	for range cap(published) {
		if err := <-published; err != nil {
			t.Fatal(err)
		}
	}
	b.audit(t, ctx, c)
	endWork()
	if err := <-worked; err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		for i, n := range p.nodes {
			t.Logf("n%d:\n%s", i+1, n.text())
		}
	}
}
