package cluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/cluster/clustertest/volume"
	"onceq/cluster/raftlog"
	"onceq/transport/wire"
)

// lagging is a cluster with a node that needs the snapshot of the others, about a
// megabyte and a half with bodies; it is started again, and the connections to it stop
// in the middle of that.
type lagging struct {
	*clustertest.Cluster
	cl             *client.Client
	leader, behind *clustertest.Node
	release        func()
	published      int
	dirs           map[string]string // of nodes that are elsewhere
}

// patient is for tests in which a transfer is not to be broken off, whether it is held or
// the follower takes long to restore what has come.
func patient(c *cluster.Config) { c.PeerTimeout = 2 * clustertest.Bound }

// newLagging is Steady: an election in the middle of a transfer has a second one begin,
// and the library reads the first to its end before it looks at that (raft.go
// installSnapshot), which here does not come.
func newLagging(t *testing.T, opts ...clustertest.Option) *lagging {
	l := &lagging{Cluster: clustertest.New(t, 3, append(opts, onDisk, clustertest.Steady, patient)...)}
	createQueue(t, l.Cluster, "orders", wire.QueueSettings{})
	l.cl = connect(t, l.Cluster)
	l.publish(t, 50)
	l.leader = l.WaitLeader()
	l.behind = l.Others(l.leader)[0]
	l.Kill(l.behind)
	l.publish(t, 1500)
	l.publishEach(t, 150) // so that the log is cut behind the snapshot
	for _, n := range l.Up() {
		mustSnapshot(t, n)
	}
	l.release = l.Hold(l.behind, 400<<10)
	l.Restart(l.behind)
	l.waitMidway(t)
	return l
}

func (l *lagging) publish(t *testing.T, n int) {
	t.Helper()
	backlog(t, l.cl, "orders", l.published, l.published+n)
	l.published += n
}

// publishEach publishes n messages with an entry each.
func (l *lagging) publishEach(t *testing.T, n int) {
	t.Helper()
	p := producerOf(t, l.cl, "orders")
	for range n {
		if _, err := p.Publish(bounded(t), client.Message{Body: []byte(backlogBody(l.published))}); err != nil {
			t.Fatal(err)
		}
		l.published++
	}
}

// publishWithRoom publishes n messages while a node with a full disk comes and goes:
// they are refused for as long as it counts as alive, and the others learn of either up
// to a look at the disk later, in the middle of a batch too.
func (l *lagging) publishWithRoom(t *testing.T, n int) {
	t.Helper()
	p := producerOf(t, l.cl, "orders")
	for range n {
		clustertest.Eventually(t, func() string {
			_, err := p.Publish(bounded(t), client.Message{Body: []byte(backlogBody(l.published))})
			if errors.Is(err, client.ErrDiskFull) {
				return err.Error()
			}
			if err != nil {
				t.Fatalf("publish %d: %v", l.published, err)
			}
			return ""
		})
		l.published++
	}
}

// waitMidway waits until some node has sent a part of the snapshot, and the
// other has got some.
func (l *lagging) waitMidway(t *testing.T) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		for _, n := range l.Others(l.behind) {
			for _, s := range n.Status().Transfers {
				for _, r := range l.behind.Status().Transfers {
					if !s.Receiving && r.Receiving && r.Bytes > 0 && r.Bytes < r.Size && s.Size == r.Size && s.Index == r.Index {
						return ""
					}
				}
			}
		}
		return fmt.Sprintf("no snapshot is on its way: %+v", l.behind.Status().Transfers)
	})
}

func (l *lagging) dirOf(n *clustertest.Node) string {
	if d, ok := l.dirs[n.NodeID]; ok {
		return d
	}
	return n.Dir
}

// halves lists what is left of snapshots that were never complete.
func (l *lagging) halves(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(l.dirOf(l.behind), "groups/1/snapshots/*.tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// caughtUp: everybody has everything, and of the half nothing is left.
func (l *lagging) caughtUp(t *testing.T) {
	t.Helper()
	l.WaitCaughtUp()
	l.DigestsAgree()
	clustertest.Eventually(t, func() string {
		if h := l.halves(t); len(h) > 0 {
			return fmt.Sprintf("%v is left", h)
		}
		for _, n := range l.Up() {
			if ts := n.Status().Transfers; len(ts) > 0 {
				return fmt.Sprintf("%s: %+v", n.NodeID, ts)
			}
		}
		return ""
	})
}

// publishSteadily publishes one message after the other until stop.
func (l *lagging) publishSteadily(t *testing.T) (stop func()) {
	t.Helper()
	p := producerOf(t, l.cl, "orders")
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
			}
			if _, err := p.Publish(bounded(t), client.Message{Body: []byte(backlogBody(l.published))}); err != nil {
				t.Errorf("publish %d: %v", l.published, err)
				return
			}
			l.published++
		}
	}()
	stop = sync.OnceFunc(func() { close(end); <-ended })
	t.Cleanup(stop)
	return stop
}

// installedOnce: the follower has installed the snapshot that was on its way, and
// took what came behind it from the log. After a transfer that was broken off it
// would have been sent a newer one.
func (l *lagging) installedOnce(t *testing.T, index uint64) {
	t.Helper()
	if got := l.behind.Status().SnapshotIndex; got != index {
		t.Errorf("the follower's snapshot is at %d; the one at %d was on its way", got, index)
	}
}

// firstInstalled delivers the first snapshot that the follower installs from now on.
// Once it has caught up it is owed no more of the log than any other: one that stands
// still then, while many entries and snapshots are made, is sent another.
func (l *lagging) firstInstalled(t *testing.T) <-chan uint64 {
	had, first := l.behind.Status().SnapshotIndex, make(chan uint64, 1)
	go func() {
		for t.Context().Err() == nil {
			if at := l.behind.Status().SnapshotIndex; at != had {
				first <- at
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return first
}

// Snapshots that are taken while one is on its way neither end that, nor cut off
// what the follower needs next.
func TestTransfer_SnapshotsMeanwhile_IsNotBrokenOff(t *testing.T) {
	t.Parallel()
	l := newLagging(t)
	index := l.behind.Status().Transfers[0].Index
	for range 3 {
		p := producerOf(t, l.cl, "orders")
		for range 60 { // an entry each; more than what stays for who was sent no snapshot
			if _, err := p.Publish(bounded(t), client.Message{Body: []byte(backlogBody(l.published))}); err != nil {
				t.Fatal(err)
			}
			l.published++
		}
		mustSnapshot(t, l.leader)
	}
	l.release()
	l.caughtUp(t)
	l.installedOnce(t, index)
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// A follower catches up although messages are published all the time, and snapshots
// taken, while it is sent one and after.
func TestTransfer_UnderSteadyPublishes_CatchesUp(t *testing.T) {
	t.Parallel()
	l := newLagging(t)
	index := l.behind.Status().Transfers[0].Index
	stop := l.publishSteadily(t)
	snapshots := 0
	step := func() {
		t.Helper()
		before := l.leader.Status().CommitIndex
		clustertest.Eventually(t, func() string {
			if s := l.leader.Status(); s.CommitIndex < before+20 {
				return fmt.Sprintf("nothing is published: %d, was %d", s.CommitIndex, before)
			}
			return ""
		})
		mustSnapshot(t, l.leader)
		snapshots++
	}
	for l.leader.Status().CommitIndex < index+400 {
		step()
	}
	installed := l.firstInstalled(t)
	l.release()
	for {
		step()
		if s := l.behind.Status(); s.AppliedIndex > index+400 && s.AppliedIndex+100 > l.leader.Status().CommitIndex {
			break
		}
		if t.Failed() || snapshots > 2000 {
			t.Fatalf("after %d snapshots the follower is at %+v", snapshots, l.behind.Status())
		}
	}
	if got := <-installed; got != index {
		t.Errorf("the follower has installed a snapshot at %d; the one at %d was on its way", got, index)
	}
	stop()
	l.caughtUp(t)
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// A snapshot that does not get on holds up nobody: heartbeats go on, and the
// other follower applies what is published.
func TestTransfer_ThatStandsStill_HoldsUpNobody(t *testing.T) {
	t.Parallel()
	l := newLagging(t)
	term := l.leader.Status().Term
	since := time.Now()
	l.publish(t, 300)
	other := l.Others(l.behind)
	for _, n := range other {
		clustertest.Eventually(t, func() string {
			if s := n.Status(); s.Messages != uint64(l.published) {
				return fmt.Sprintf("%s has %d messages of %d", n.NodeID, s.Messages, l.published)
			}
			return ""
		})
	}
	// Later than the time-out: who has heard nothing since would have stood for election.
	for _, n := range l.Others(l.leader) {
		clustertest.Eventually(t, func() string {
			if last := n.LastContact(); last.Sub(since) <= clustertest.SteadyTimeout {
				return fmt.Sprintf("%s has heard from the leader last %v after the transfer stood still", n.NodeID, last.Sub(since))
			}
			return ""
		})
	}
	if got := l.behind.Status(); got.Term != term || got.Leader != l.leader.NodeID || !l.leader.Status().Serving {
		t.Errorf("the leader has changed: term %d, was %d", got.Term, term)
	}
	l.release()
	l.caughtUp(t)
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// A transfer that stands still for too long is broken off by the follower, whose raft
// looks at nothing else meanwhile: its half is removed although no connection has ended.
func TestTransfer_ThatStandsStillForLong_IsBrokenOff(t *testing.T) {
	t.Parallel()
	l := newLagging(t, func(c *cluster.Config) { cluster.WithTransferIdle(c, 2*time.Second) })
	halves := l.halves(t)
	clustertest.Eventually(t, func() string {
		now := l.halves(t)
		if len(halves) == 0 {
			halves = now
			return "no half of a snapshot is there"
		}
		if slices.Contains(now, halves[0]) {
			return halves[0] + " is still there"
		}
		return ""
	})
	l.release()
	l.caughtUp(t)
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// The follower ends in the middle: the half is removed, and the transfer begins
// anew.
func TestTransfer_FollowerEndsInTheMiddle_BeginsAnew(t *testing.T) {
	t.Parallel()
	l := newLagging(t)
	if len(l.halves(t)) == 0 {
		t.Error("no half of a snapshot is there: the test shows nothing")
	}
	l.Kill(l.behind)
	l.release()
	l.publish(t, 50)
	l.Restart(l.behind)
	l.caughtUp(t)
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// The leader changes in the middle: the new one sends its own.
func TestTransfer_LeaderChangesInTheMiddle_TheNewOneSends(t *testing.T) {
	t.Parallel()
	l := newLagging(t)
	old := l.leader
	l.Kill(old)
	l.release()
	l.Restart(old)
	l.publish(t, 50)
	l.caughtUp(t)
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// The follower's disk fills up in the middle: its process ends and holds up nobody,
// however often it is started. With room it catches up, and nothing is left of the
// halves.
func TestTransfer_FollowersDiskFull_BeginsAnewWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	dirs, died := map[string]string{}, map[string]chan error{}
	for _, name := range []string{"n1", "n2", "n3"} {
		dirs[name], died[name] = volume.Tmpfs(t, 512<<20), make(chan error, 10)
	}
	l := newLagging(t, func(cfg *cluster.Config) {
		ended := died[cfg.Name]
		cfg.DataDir, cfg.Fatal = filepath.Join(dirs[cfg.Name], "d"), func(err error) { ended <- err }
	})
	l.dirs = map[string]string{l.behind.NodeID: filepath.Join(dirs[l.behind.NodeID], "d")}
	term := l.leader.Status().Term
	full := volume.Fill(t, dirs[l.behind.NodeID], 0)
	l.release()
	waitFull := func() {
		t.Helper()
		select {
		case err := <-died[l.behind.NodeID]:
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s ended with %v", l.behind.NodeID, err)
			}
		case <-time.After(clustertest.Bound):
			t.Fatalf("%s goes on: %+v", l.behind.NodeID, l.behind.Status())
		}
		l.Kill(l.behind)
	}
	waitFull()
	for range 2 {
		if err := l.TryRestart(l.behind); err == nil {
			waitFull()
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("start on a full disk: %v", err)
		} else if h := l.halves(t); len(h) > 0 {
			t.Errorf("%v is left, and takes the room for a start: %v", h, err)
		}
		l.publishWithRoom(t, 100)
	}
	other := l.Others(l.behind)
	for _, n := range other {
		clustertest.Eventually(t, func() string {
			if s := n.Status(); s.Messages != uint64(l.published) {
				return fmt.Sprintf("%s has %d messages of %d", n.NodeID, s.Messages, l.published)
			}
			return ""
		})
	}
	if s := l.leader.Status(); s.Term != term || !s.Serving {
		t.Errorf("the leader has changed: term %d, was %d", s.Term, term)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	l.Restart(l.behind)
	l.caughtUp(t)
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
	for name, ended := range died {
		if len(ended) > 0 {
			t.Errorf("%s has ended: %v", name, <-ended)
		}
	}
}

// A leader whose snapshot has rotted can send it to nobody. Its state is whole, and so
// is the next one that it takes: it leads on, it may be the only one that can.
func TestTransfer_TheLeadersSnapshotIsDamaged_TakesAnother(t *testing.T) {
	t.Parallel()
	d := &deaths{why: make(map[string]error)}
	c := clustertest.New(t, 3, onDisk, clustertest.Steady, patient, d.note)
	createQueue(t, c, "orders", wire.QueueSettings{})
	l := &lagging{Cluster: c, cl: connect(t, c)}
	l.publish(t, 50)
	leader := c.WaitLeader()
	behind := c.Others(leader)[0]
	mustSnapshot(t, behind)
	c.Kill(behind)
	l.publishEach(t, 150) // so that the log is cut behind the snapshot
	for _, n := range c.Up() {
		mustSnapshot(t, n)
	}
	rotSnapshots(t, leader)
	term := leader.Status().Term
	c.Restart(behind)
	c.WaitCaughtUp()
	if err := d.of(leader); err != nil || leader.Status().Term != term {
		t.Errorf("the leader of term %d died of %v; the term is %d now", term, err, leader.Status().Term)
	}
	c.DigestsAgree()
	// What it had before takes up no room.
	if left := snapshotsOf(t, behind); len(left) != 1 {
		t.Errorf("%v is left", left)
	}
}

// The files of the only voter's snapshot have rotted, and what is live is whole: it was
// loaded from another, or has been written anew. A node that joins is sent the next snapshot.
// Ended, the voter would start from the rotten files: what was whole would be gone, and it
// would end again as soon as it led.
func TestTransfer_TheOnlyVotersFilesAreDamaged_TakesAnother(t *testing.T) {
	t.Parallel()
	l, d := newAlone(t)
	rotFiles(t, l.leader, true)
	term := l.leader.Status().Term
	joiner := l.Join(onDisk, patient, d.note)
	l.WaitCaughtUp()
	if got := joiner.Status().Messages; got != uint64(l.published) {
		t.Errorf("the new node has %d of %d messages", got, l.published)
	}
	if err := d.of(l.leader); err != nil || l.leader.Status().Term != term {
		t.Errorf("the leader of term %d died of %v; the term is %d now", term, err, l.leader.Status().Term)
	}
	l.DigestsAgree()
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// What is live has rotted too, and nobody else has it. The node goes on with what it has: it
// can be consumed.
func TestTransfer_TheOnlyVotersLiveFilesAreDamaged_GoesOn(t *testing.T) {
	t.Parallel()
	l, d := newAlone(t)
	rotFiles(t, l.leader, false)
	l.Join(onDisk, patient, d.note)
	clustertest.Eventually(t, func() string {
		if !l.Logged("two snapshots in a row are damaged") {
			return "no second snapshot was tried"
		}
		return ""
	})
	l.publishEach(t, 1)
	if err := d.of(l.leader); err != nil {
		t.Errorf("the only node that has anything ended: %v", err)
	}
}

// newAlone is a node with a snapshot that one that joins it needs.
func newAlone(t *testing.T) (*lagging, *deaths) {
	t.Helper()
	d := &deaths{why: make(map[string]error)}
	l := &lagging{Cluster: clustertest.New(t, 1, onDisk, patient, d.note)}
	createQueue(t, l.Cluster, "orders", wire.QueueSettings{})
	l.cl = connect(t, l.Cluster)
	l.leader = l.WaitLeader()
	l.publish(t, 1500)
	l.publishEach(t, 150)
	mustSnapshot(t, l.leader)
	return l, d
}

// A leader whose files have rotted where it is live ends, when others can go on without it:
// one of them leads and sends whole ones.
func TestTransfer_TheLeadersLiveFilesAreDamaged_AnotherSends(t *testing.T) {
	t.Parallel()
	d := &deaths{why: make(map[string]error)}
	l := &lagging{Cluster: clustertest.New(t, 3, onDisk, clustertest.Steady, patient, d.note)}
	createQueue(t, l.Cluster, "orders", wire.QueueSettings{})
	l.cl = connect(t, l.Cluster)
	l.publish(t, 50)
	l.leader = l.WaitLeader()
	l.behind = l.Others(l.leader)[0]
	l.Kill(l.behind)
	l.publish(t, 1500)
	l.publishEach(t, 150)
	for _, n := range l.Up() {
		mustSnapshot(t, n)
	}
	rotFiles(t, l.leader, false)
	l.Restart(l.behind)
	clustertest.Eventually(t, func() string {
		if d.of(l.leader) == nil {
			return l.leader.NodeID + " goes on"
		}
		return ""
	})
	if err := d.of(l.leader); !errors.Is(err, raftlog.ErrSnapshotDamaged) || !strings.Contains(err.Error(), "at offset") {
		t.Errorf("it ended over %v", err)
	}
	l.Kill(l.leader)
	l.WaitCaughtUp()
	l.publishEach(t, 1)
	l.DigestsAgree()
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// newScrubbed is a cluster that reads what it has on disk again and again, and one of its
// followers with a snapshot.
func newScrubbed(t *testing.T) (*lagging, *deaths) {
	t.Helper()
	d := &deaths{why: make(map[string]error)}
	l := &lagging{Cluster: clustertest.New(t, 3, onDisk, clustertest.Steady, d.note, func(c *cluster.Config) { c.ScrubEvery = 10 * time.Millisecond })}
	createQueue(t, l.Cluster, "orders", wire.QueueSettings{})
	l.cl = connect(t, l.Cluster)
	l.leader = l.WaitLeader()
	l.publish(t, 500)
	l.WaitCaughtUp()
	l.behind = l.Others(l.leader)[0]
	mustSnapshot(t, l.behind)
	return l, d
}

// The files of a follower's snapshot have rotted, and nobody needs them: it finds that by
// itself, and takes another, which is whole.
func TestScrub_AFollowersSnapshotIsDamaged_TakesAnother(t *testing.T) {
	t.Parallel()
	l, d := newScrubbed(t)
	before := l.behind.Status()
	rotFiles(t, l.behind, true)
	clustertest.Eventually(t, func() string {
		if s := l.behind.Status(); s.SnapshotsTaken == before.SnapshotsTaken || s.SnapshotDamage != "" {
			return fmt.Sprintf("%d snapshots, damage %q", s.SnapshotsTaken, s.SnapshotDamage)
		}
		return ""
	})
	if err := d.of(l.behind); err != nil {
		t.Errorf("it ended over %v", err)
	}
	l.DigestsAgree()
	l.Kill(l.behind)
	l.Restart(l.behind)
	l.caughtUp(t)
	drainAll(t, l.Cluster, l.cl, "orders", l.published)
}

// What is live there has rotted too. The follower goes on, and its status says what is
// damaged: with the disks of two voters bad, ending them would end the cluster.
func TestScrub_AFollowersLiveFilesAreDamaged_IsToldByItsStatus(t *testing.T) {
	t.Parallel()
	l, d := newScrubbed(t)
	rotFiles(t, l.behind, false)
	clustertest.Eventually(t, func() string {
		if !l.Logged("two snapshots in a row are damaged") {
			return "no second snapshot was found damaged"
		}
		return ""
	})
	if got := l.behind.Status().SnapshotDamage; !strings.Contains(got, ".sst") || !strings.Contains(got, "at offset") {
		t.Errorf("its status says %q", got)
	}
	for _, n := range l.Others(l.behind) {
		if got := n.Status().SnapshotDamage; got != "" {
			t.Errorf("%s says %q", n.NodeID, got)
		}
	}
	l.publishEach(t, 1)
	if err := d.of(l.behind); err != nil {
		t.Errorf("it ended over %v", err)
	}
}

// What is live has rotted on all nodes. The leader goes on: nobody who could take over has
// whole files, and one that ends loses what it has in memory.
func TestScrub_LiveFilesAreDamagedOnAllNodes_TheLeaderGoesOn(t *testing.T) {
	t.Parallel()
	l, d := newScrubbed(t)
	for _, n := range l.Others(l.leader) {
		mustSnapshot(t, n)
		rotFiles(t, n, false)
		clustertest.Eventually(t, func() string {
			if n.Status().SnapshotDamage == "" {
				return n.NodeID + " has found nothing"
			}
			return ""
		})
	}
	mustSnapshot(t, l.leader)
	rotFiles(t, l.leader, false)
	clustertest.Eventually(t, func() string {
		if err := d.of(l.leader); err != nil || l.Logged("no other node can take over") {
			return ""
		}
		return "the leader has found nothing"
	})
	if err := d.of(l.leader); err != nil {
		t.Errorf("it ended over %v", err)
	}
	l.publishEach(t, 1)
}

// rotFiles flips a bit in each table of messages of a node's snapshots, or, unless in a
// copy, where the node is live as well.
func rotFiles(t *testing.T, n *clustertest.Node, copied bool) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(n.Dir, "groups/1/snapshots/*/annex/*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	rotten := map[uint64]bool{} // by inode: snapshots share them, until they are copied
	for _, path := range tables {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		inode := info.Sys().(*syscall.Stat_t).Ino
		if rotten[inode] && !copied {
			continue
		}
		rotten[inode] = true
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/4] ^= 4
		to := path
		if copied {
			to += ".copy"
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(to, path); err != nil {
			t.Fatal(err)
		}
	}
}

func snapshotsOf(t *testing.T, n *clustertest.Node) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.Dir, "groups/1/snapshots/*/state.bin"))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	return found
}

// rotSnapshots flips a bit in the tables of a node's snapshots.
func rotSnapshots(t *testing.T, n *clustertest.Node) {
	t.Helper()
	for _, path := range snapshotsOf(t, n) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 4
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
