package clustertest

import (
	"fmt"
	"testing"
	"time"
)

// pollEvery is how often a condition is looked at that nothing announces.
const pollEvery = 5 * time.Millisecond

// Eventually waits until f returns "" and fails the test with what it said last
// when that does not come within Bound.
func Eventually(t testing.TB, f func() (missing string)) {
	t.Helper()
	deadline := time.NewTimer(Bound)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		missing := f()
		if missing == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v: %s", Bound, missing)
		}
	}
}

// Leader returns the node that serves as leader, nil when there is none now. An
// isolated leader may believe in itself for a while: the newest term wins.
func (c *Cluster) Leader() *Node {
	var leader *Node
	var term uint64
	for _, n := range c.Up() {
		if s := n.Status(); s.Serving && s.Term > term {
			leader, term = n, s.Term
		}
	}
	return leader
}

// WaitLeader waits for a leader that serves.
func (c *Cluster) WaitLeader() *Node {
	c.t.Helper()
	return c.WaitOtherLeader(nil)
}

// WaitOtherLeader waits for a leader that serves and is not old.
func (c *Cluster) WaitOtherLeader(old *Node) *Node {
	c.t.Helper()
	var leader *Node
	Eventually(c.t, func() string {
		leader = c.Leader()
		if leader == nil || leader == old {
			return "no (other) leader"
		}
		return ""
	})
	return leader
}

// Followers returns the nodes that run and are not n.
func (c *Cluster) Others(n *Node) []*Node {
	var others []*Node
	for _, o := range c.Up() {
		if o != n {
			others = append(others, o)
		}
	}
	return others
}

// WaitApplied waits until every node that runs has applied an index.
func (c *Cluster) WaitApplied(index uint64) {
	c.t.Helper()
	for _, n := range c.Up() {
		Eventually(c.t, func() string {
			if s := n.Status(); s.AppliedIndex < index {
				return fmt.Sprintf("%s has applied %d of %d", n.NodeID, s.AppliedIndex, index)
			}
			return ""
		})
	}
}

// WaitCaughtUp waits until every node that runs has applied what the leader has
// committed by now, and returns that index.
func (c *Cluster) WaitCaughtUp() uint64 {
	c.t.Helper()
	index := c.WaitLeader().Status().CommitIndex
	c.WaitApplied(index)
	return index
}

// DigestsAgree puts a digest into the log and compares the value of every node
// that runs at that index.
func (c *Cluster) DigestsAgree() {
	c.t.Helper()
	// A node that is restored from a snapshot meanwhile has no value for an index
	// before it: then all begins anew.
	for again := true; again; {
		again = false
		reply := AtLeader(c, (*Raw).Digest)
		for _, n := range c.Up() {
			var digest uint64
			var noted bool
			Eventually(c.t, func() string {
				s := n.Status()
				if digest, noted = s.DigestAt(reply.Index); !noted && s.AppliedIndex <= reply.Index {
					return fmt.Sprintf("%s: has applied %d, want the digest at %d", n.NodeID, s.AppliedIndex, reply.Index)
				}
				return ""
			})
			switch {
			case !noted:
				again = true
			case digest != reply.Digest:
				c.t.Errorf("%s has digest %016x at %d, the leader %016x", n.NodeID, digest, reply.Index, reply.Digest)
			}
		}
	}
}
