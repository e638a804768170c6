package cluster_test

import (
	"context"
	"errors"
	"testing"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/fsm"
	"onceq/transport/wire"
)

// olderBuild knows the machine's first version only.
func olderBuild(c *cluster.Config) { cluster.WithMachineVersion(c, 1) }

// newestBuild knows all of them.
func newestBuild(c *cluster.Config) { cluster.WithMachineVersion(c, 0) }

// waitVersion waits until every node has applied the raise to a version.
func waitVersion(t *testing.T, c *clustertest.Cluster, version uint32) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		for _, n := range c.Up() {
			if got := n.Status().MachineVersion; got != version {
				return n.NodeID + " has another version"
			}
		}
		return ""
	})
}

// A rolling upgrade: while one node is of an older build nothing is proposed that it
// cannot apply; when the last one is new the version rises by itself, and with it comes
// what is new.
func TestUpgrade_TheVersionRisesWhenTheLastNodeIsNew(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, olderBuild)
	c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	publishMany(t, cl, "orders", 3)
	refused := func() {
		t.Helper()
		_, err := cl.Receive(bounded(t), "orders", 1)
		if !errors.Is(err, client.ErrUnsupported) {
			t.Fatalf("a command that a member does not know: %v", err)
		}
	}
	refused()
	c.Configure(newestBuild) // when they are started again
	for i := range 3 {
		n := c.Node(i)
		c.Stop(n)
		c.Restart(n)
		c.WaitCaughtUp()
		if i < 2 {
			c.WaitLeader()
			clustertest.Eventually(t, func() string {
				// Who leads has asked the older one.
				ctx, cancel := context.WithTimeout(context.Background(), clustertest.Bound)
				defer cancel()
				if _, err := cl.Receive(ctx, "orders", 1); !errors.Is(err, client.ErrUnsupported) {
					return "not refused"
				}
				return ""
			})
			for _, up := range c.Up() {
				if v := up.Status().MachineVersion; v != 1 {
					t.Fatalf("%s has version %d while an older node is a member", up.NodeID, v)
				}
			}
		}
	}
	waitVersion(t, c, fsm.MachineVersion)
	ds, err := cl.Receive(bounded(t), "orders", 3)
	if err != nil || len(ds) != 3 {
		t.Fatalf("received %d messages, error %v", len(ds), err)
	}
	for _, d := range ds {
		if err := d.Ack(bounded(t)); err != nil {
			t.Error(err)
		}
	}
	// It is in snapshots.
	for _, n := range c.Up() {
		mustSnapshot(t, n)
	}
	c.RestartAll()
	c.WaitLeader()
	waitVersion(t, c, fsm.MachineVersion)
	c.DigestsAgree()
}

// A node of an older build is not taken into a cluster whose version it does not know.
func TestUpgrade_AnOlderNode_IsNotTakenIn(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	c.WaitLeader()
	waitVersion(t, c, fsm.MachineVersion)
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Bound)
	defer cancel()
	tried := make(chan error, 1)
	go func() { tried <- c.TryJoin(ctx, olderBuild) }()
	clustertest.Eventually(t, func() string {
		select {
		case err := <-tried:
			t.Fatalf("it gave up, or was taken in: %v", err)
		default:
		}
		if !c.Logged("knows only up to 1: start it with a newer build") {
			return "nobody says why the node is not taken in"
		}
		return ""
	})
	cancel()
	if err := <-tried; err == nil {
		t.Fatal("the node was taken in")
	}
	members := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.Members, error) {
		return clustertest.Ask(r, wire.OpMembers, wire.MembersRequest{}, wire.DecodeMembers)
	})
	if len(members.Members) != 1 {
		t.Errorf("members %+v", members.Members)
	}
}
