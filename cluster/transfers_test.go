package cluster_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"onceq/client"
	"onceq/cluster/clustertest"
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
}

func newLagging(t *testing.T) *lagging {
	l := &lagging{Cluster: clustertest.New(t, 3, onDisk)}
	createQueue(t, l.Cluster, "orders", wire.QueueSettings{})
	l.cl = connect(t, l.Cluster)
	l.publish(t, 50)
	l.leader = l.WaitLeader()
	l.behind = l.Others(l.leader)[0]
	l.Kill(l.behind)
	l.publish(t, 1500)
	p := producerOf(t, l.cl, "orders")
	for range 150 { // an entry each, so that the log is cut behind the snapshot
		if _, err := p.Publish(bounded(t), client.Message{Body: []byte(backlogBody(l.published))}); err != nil {
			t.Fatal(err)
		}
		l.published++
	}
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

// halves lists what is left of snapshots that were never complete.
func (l *lagging) halves(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(l.behind.Dir, "groups/1/snapshots/*.tmp"))
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

// A snapshot that does not get on holds up nobody: heartbeats go on, and the
// other follower applies what is published.
func TestTransfer_ThatStandsStill_HoldsUpNobody(t *testing.T) {
	t.Parallel()
	l := newLagging(t)
	term := l.leader.Status().Term
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
	if got := l.behind.Status(); got.Term != term || got.Leader != l.leader.NodeID || !l.leader.Status().Serving {
		t.Errorf("the leader has changed: term %d, was %d", got.Term, term)
	}
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
