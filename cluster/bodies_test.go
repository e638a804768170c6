package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// onDisk gives every node a budget that a test's backlog is larger than, and
// leaves taking snapshots to the test.
func onDisk(c *cluster.Config) {
	c.Bodies, c.BodyMemory = cluster.BodiesDisk, 64<<10
	c.SnapshotInterval, c.TrailingLogs = time.Hour, 96
}

// backlog publishes messages from to to-1 and returns when they are confirmed.
func backlog(t *testing.T, cl *client.Client, queue string, from, to int) {
	t.Helper()
	p := producerOf(t, cl, queue)
	ctx := bounded(t)
	var fs []*client.Future
	for i := from; i < to; i++ {
		fs = append(fs, p.PublishAsync(ctx, client.Message{Body: []byte(backlogBody(i))}))
	}
	for i, f := range fs {
		if _, err := f.Wait(ctx); err != nil {
			t.Fatalf("publish %d: %v", from+i, err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func backlogBody(i int) string {
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	b := make([]byte, 500+rng.IntN(1000))
	for k := range b {
		b[k] = 'a' + byte(rng.IntN(26))
	}
	return fmt.Sprintf("%d %s", i, b)
}

// drainAll consumes messages 0 to n-1, each once and as it was published.
func drainAll(t *testing.T, c *clustertest.Cluster, cl *client.Client, queue string, n int) {
	t.Helper()
	got := newReceived()
	stop := consume(t, cl, queue, func(_ context.Context, d *client.Delivery) error { got.note(d); return nil })
	got.waitFor(t, n)
	stop()
	got.onceEach(t, n)
	for i := range n {
		if got.bodies[backlogBody(i)] != 1 {
			t.Fatalf("message %d came %d times as it was published", i, got.bodies[backlogBody(i)])
		}
	}
	clustertest.Eventually(t, func() string {
		if k := info(c, queue).Counts; k.Stored != uint64(n) || k.Acked != uint64(n) {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
}

func mustSnapshot(t *testing.T, n *clustertest.Node) {
	t.Helper()
	if err := n.Snapshot(); err != nil {
		t.Fatalf("snapshot of %s: %v", n.NodeID, err)
	}
}

// A backlog larger than memory, snapshots of it, and restarts: from the
// snapshot's own files, and by what follows it in the log.
func TestBodiesOnDisk_BacklogSurvivesRestarts(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, onDisk)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	backlog(t, cl, "orders", 0, 1500)
	for _, n := range c.Up() {
		mustSnapshot(t, n)
		tables, err := filepath.Glob(filepath.Join(n.Dir, "groups/1/snapshots/*/annex/*.sst"))
		if err != nil || len(tables) == 0 {
			t.Fatalf("the snapshot of %s has no tables of bodies: %v", n.NodeID, err)
		}
		state, err := filepath.Glob(filepath.Join(n.Dir, "groups/1/snapshots/*/state.bin"))
		if err != nil || len(state) == 0 {
			t.Fatal("no snapshot")
		}
		if info, err := os.Stat(state[len(state)-1]); err != nil || info.Size() > 100<<10 {
			t.Fatalf("the snapshot's stream has %d bytes, %v: the bodies are in it", info.Size(), err)
		}
	}
	backlog(t, cl, "orders", 1500, 2000)
	c.RestartAll()
	backlog(t, cl, "orders", 2000, 2200)
	for _, n := range c.Up() {
		mustSnapshot(t, n) // of what came from files and from the log
	}
	c.RestartAll()
	c.WaitCaughtUp()
	c.DigestsAgree()
	drainAll(t, c, cl, "orders", 2200)
}

// A follower that is too far behind is sent the snapshot, files and all; it
// serves the bodies when it leads, also after a restart from what it was sent.
func TestBodiesOnDisk_FollowerIsSentTheFiles(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, onDisk)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	backlog(t, cl, "orders", 0, 200)
	behind := c.Others(c.WaitLeader())[0]
	c.Kill(behind)
	for i := 200; i < 1400; i += 10 { // many entries, so that the log is cut behind the snapshot
		backlog(t, cl, "orders", i, i+10)
	}
	for _, n := range c.Up() {
		mustSnapshot(t, n)
	}
	before := behind
	c.Restart(before)
	c.WaitCaughtUp()
	if s := behind.Status(); s.SnapshotIndex == 0 {
		t.Fatalf("it caught up without a snapshot: %+v", s)
	}
	c.Kill(behind)
	c.Restart(behind)
	c.WaitCaughtUp()
	c.DigestsAgree()
	clustertest.Eventually(t, func() string {
		if c.Leader() == behind {
			return ""
		}
		_ = change(t, c, wire.OpMemberTransfer, behind.NodeID)
		return behind.NodeID + " does not lead"
	})
	drainAll(t, c, cl, "orders", 1400)
}

// The two ways to keep bodies do not mix unnoticed.
func TestBodies_FilesInASnapshotOfAMemoryNode_AreRefused(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1, onDisk)
	createQueue(t, c, "orders", wire.QueueSettings{})
	backlog(t, connect(t, c), "orders", 0, 10)
	n := c.Node(0)
	mustSnapshot(t, n)
	c.Stop(n)
	_, err := cluster.Start(bounded(t), cluster.Config{Name: n.NodeID, DataDir: n.Dir, Bind: n.Address, Bodies: cluster.BodiesMemory, DiskReserve: 1, Fatal: func(error) {}})
	if err == nil || !strings.Contains(err.Error(), "--bodies disk") {
		t.Fatalf("started with %v", err)
	}
	c.Restart(n)
	drainAll(t, c, connect(t, c), "orders", 10)
}

// A directory of a node that kept everything in memory is taken over as it is:
// its snapshot, bodies in the stream, becomes one with files.
func TestBodies_DirectoryOfAMemoryNode_IsTakenOver(t *testing.T) {
	t.Parallel()
	memory := func(c *cluster.Config) { onDisk(c); c.Bodies = cluster.BodiesMemory }
	c := clustertest.New(t, 3, memory)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	backlog(t, cl, "orders", 0, 600)
	for _, n := range c.Up() {
		mustSnapshot(t, n)
	}
	backlog(t, cl, "orders", 600, 800)
	c.Configure(func(c *cluster.Config) { c.Bodies = cluster.BodiesDisk })
	c.RestartAll()
	backlog(t, cl, "orders", 800, 900)
	c.WaitCaughtUp()
	for _, n := range c.Up() {
		mustSnapshot(t, n)
		if tables, err := filepath.Glob(filepath.Join(n.Dir, "groups/1/snapshots/*/annex/*.sst")); err != nil || len(tables) == 0 {
			t.Fatalf("the snapshot of %s has no tables of bodies: %v", n.NodeID, err)
		}
	}
	c.RestartAll()
	c.DigestsAgree()
	drainAll(t, c, cl, "orders", 900)
}
