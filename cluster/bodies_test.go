package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/fsm/storage"
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
	waitSettled(t, c, queue)
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
	c.WaitCaughtUp()
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
	c.WaitCaughtUp() // raft takes no snapshot of a node that has applied nothing since it was started
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
	handOverTo(t, c, behind)
	drainAll(t, c, cl, "orders", 1400)
}

// alike makes a stopped node with some queues, whose newest snapshot has a table for
// each, and returns two of them that have the same size.
func alike(t *testing.T, c *clustertest.Cluster) (queues []string, tables [2]string) {
	t.Helper()
	cl, n, rng := connect(t, c), c.Node(0), rand.NewChaCha8([32]byte{1})
	for i := range 6 {
		queues = append(queues, fmt.Sprint("orders", i))
		createQueue(t, c, queues[i], wire.QueueSettings{})
		p, ctx := producerOf(t, cl, queues[i]), bounded(t)
		var fs []*client.Future
		for range 1100 { // enough for a table of its own
			body := make([]byte, 1024) // that does not shrink
			_, _ = rng.Read(body)
			fs = append(fs, p.PublishAsync(ctx, client.Message{Body: body}))
		}
		for _, f := range fs {
			if _, err := f.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
		mustSnapshot(t, n)
	}
	c.Stop(n)
	dirs, err := filepath.Glob(filepath.Join(n.Dir, "groups/1/snapshots/*/annex"))
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	all, err := filepath.Glob(filepath.Join(dirs[len(dirs)-1], "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[int64]string{}
	for _, path := range all {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if like := sizes[info.Size()]; like != "" {
			return queues, [2]string{like, path}
		}
		sizes[info.Size()] = path
	}
	t.Fatalf("no two tables have the same size: %v", sizes)
	return
}

func swapFiles(t *testing.T, files [2]string) {
	t.Helper()
	between := files[0] + ".between"
	if err := errors.Join(os.Rename(files[0], between), os.Rename(files[1], files[0]), os.Rename(between, files[1])); err != nil {
		t.Fatal(err)
	}
}

// inMemoryYet leaves all bodies in memory until a snapshot is taken.
func inMemoryYet(c *cluster.Config) {
	onDisk(c)
	c.BodyMemory, c.Fatal = 64<<20, func(error) {}
}

// Two tables of the same size that have changed places are each whole, and Pebble
// would open them.
func TestBodiesOnDisk_TableSwappedWithItsLike_IsRefused(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1, inMemoryYet)
	n := c.Node(0)
	_, tables := alike(t, c)
	swapFiles(t, tables)
	if err := c.TryRestart(n); !errors.Is(err, storage.ErrBadCheckpoint) || !strings.Contains(err.Error(), tables[0]) {
		t.Errorf("started with %v", err)
	}
	r, err := cluster.VerifyDir(n.Dir)
	if err != nil || len(r.Log.Problems) == 0 || !strings.Contains(r.Log.Problems[0].Error(), tables[0]) {
		t.Errorf("verify says %+v, %v", r.Log.Problems, err)
	}
	swapFiles(t, tables) // back
	c.Restart(n)
	if k := info(c, "orders0").Counts; k.Ready != 1100 {
		t.Errorf("counts %+v", k)
	}
}

// A snapshot of an older build, which had no sums of its tables, is taken with tables
// that have changed places. The first body that is not where it belongs ends the node.
func TestBodiesOnDisk_BodyThatIsNotThere_EndsTheNode(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1, inMemoryYet)
	n := c.Node(0)
	queues, tables := alike(t, c)
	annex := filepath.Dir(tables[0])
	if err := os.Truncate(filepath.Join(annex, "..", "meta.sum"), 4); err != nil { // nor did it sum the sums
		t.Fatal(err)
	}
	sums := filepath.Join(annex, "CHECKSUMS")
	b, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	b = b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] // its last line is the sum of the others
	b = regexp.MustCompile(`(?m) [0-9a-f]{8}  (.*\.sst)$`).ReplaceAll(b, []byte(" 00000000  $1"))
	b = fmt.Appendf(b, "%08x\n", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(sums, b, 0o600); err != nil {
		t.Fatal(err)
	}
	swapFiles(t, tables)
	c.Restart(n)
	c.WaitLeader()
	r, err := clustertest.DialRaw(n.Address)
	if err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	defer r.Close()
	for i, queue := range queues { // those that come too late have no answer
		asking.Go(func() { _, _ = r.Attach(wire.ConsumerID{byte(i + 1)}, 1, queue, 1, 1) })
	}
	clustertest.Eventually(t, func() string {
		if err := n.Err(); !errors.Is(err, cluster.ErrBodyMissing) || !strings.Contains(err.Error(), "n1 holds orders") {
			return fmt.Sprintf("the node has ended with %v", err)
		}
		return ""
	})
}

// Status counts snapshots apart by who has made them, and the tables of bodies that were
// written anew.
func TestStatus_CountsSnapshotsAndCompactions(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, onDisk, clustertest.Steady, func(cfg *cluster.Config) { cfg.LogBytes = cluster.LogBytesMin })
	leader := c.WaitLeader()
	names := make([]string, 4) // tables of one queue would not overlap
	for i := range names {
		names[i] = fmt.Sprintf("orders-%d", i)
		createQueue(t, c, names[i], wire.QueueSettings{})
	}
	away := c.Others(leader)[0]
	c.Kill(away)
	conn := connect(t, c)
	var ps []*client.Producer
	for _, name := range names {
		ps = append(ps, producerOf(t, conn, name))
	}
	body, enough := make([]byte, 20<<10), leader.Status().AppliedIndex+300 // more than stays in the log
	publish := func() {
		t.Helper()
		for _, p := range ps {
			if _, err := p.Publish(bounded(t), client.Message{Body: body}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for leader.Status().AppliedIndex < enough { // so many take their time where the disk is slow
		publish()
	}
	clustertest.Eventually(t, func() string {
		publish()
		if s := leader.Status(); s.SnapshotsTaken == 0 || s.BodyCompactions == 0 || s.SnapshotIndex < enough {
			return fmt.Sprintf("%d snapshots, to %d, %d compactions", s.SnapshotsTaken, s.SnapshotIndex, s.BodyCompactions)
		}
		return ""
	})
	if s := leader.Status(); s.SnapshotsReceived != 0 {
		t.Errorf("the leader was sent %d snapshots", s.SnapshotsReceived)
	}
	c.Restart(away)
	clustertest.Eventually(t, func() string {
		if s := away.Status(); s.SnapshotsReceived == 0 {
			return fmt.Sprintf("who came back has applied %d and received no snapshot", s.AppliedIndex)
		}
		return ""
	})
}

// What is applied waits for bodies to be written when too many are in memory, and
// status says for how long it has.
func TestBodiesOnDisk_StatusTellsOfTheWait(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1, onDisk)
	createQueue(t, c, "orders", wire.QueueSettings{})
	p, ctx := producerOf(t, connect(t, c), "orders"), bounded(t)
	body := make([]byte, 100<<10) // more than the memory for all
	clustertest.Eventually(t, func() string {
		var fs []*client.Future
		for range 8 {
			fs = append(fs, p.PublishAsync(ctx, client.Message{Body: body}))
		}
		for _, f := range fs {
			if _, err := f.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if c.Node(0).Status().BodiesStalled == 0 {
			return "no wait is told of"
		}
		return ""
	})
	if s := c.Node(0).Status(); s.AppendP50 <= 0 || s.AppendP99 < s.AppendP50 {
		t.Errorf("appends to its log took %v in the median, and %v", s.AppendP50, s.AppendP99)
	}
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
	c.WaitCaughtUp()
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
