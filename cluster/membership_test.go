package cluster_test

import (
	"fmt"
	"testing"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

func members(c *clustertest.Cluster) wire.Members {
	return clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.Members, error) {
		return clustertest.Ask(r, wire.OpMembers, wire.MembersRequest{}, wire.DecodeMembers)
	})
}

// change asks the leader to change the membership, and again while the answer
// is that it may be asked again.
func change(t *testing.T, c *clustertest.Cluster, op wire.Op, node string) error {
	t.Helper()
	var last error
	clustertest.Eventually(t, func() string {
		leader := c.Leader()
		if leader == nil {
			return "no leader"
		}
		r, err := clustertest.DialRaw(leader.Address)
		if err != nil {
			return err.Error()
		}
		defer r.Close()
		_, last = clustertest.Ask(r, op, wire.MemberChange{Node: node}, wire.DecodeStatusReply)
		if e := asWireError(last); last != nil && (e == nil || e.Retriable) {
			return last.Error()
		}
		return ""
	})
	return last
}

// whenItCan asks for a change until it is not refused for what passes: raft gives a
// transfer up after an election time-out, gossip needs a moment to see that a node is
// back, and a node that has much to do may not say in time that it is alive.
func whenItCan(t *testing.T, c *clustertest.Cluster, op wire.Op, node string) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		err := change(t, c, op, node)
		if e := asWireError(err); e != nil && e.Code == wire.CodeMembership {
			return err.Error()
		}
		if err != nil {
			t.Fatalf("%v %s: %v", op, node, err)
		}
		return ""
	})
}

// handOverTo returns when a node leads.
func handOverTo(t *testing.T, c *clustertest.Cluster, node *clustertest.Node) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		whenItCan(t, c, wire.OpMemberTransfer, node.NodeID) // nothing when it leads already
		if c.Leader() != node {
			return node.NodeID + " does not lead"
		}
		return ""
	})
}

func voters(m wire.Members) (names []string) {
	for _, v := range m.Members {
		if v.Voter {
			names = append(names, v.Node)
		}
	}
	return names
}

func TestClose_HandsOverAndKeepsTheNodeAMember(t *testing.T) {
	c := clustertest.New(t, 3)
	leader, r, s := ready(t, c, "orders")
	publishOne(t, c, s, 1, "orders", 1)
	c.Stop(leader)
	await(t, "the end of the client's connection", r.Done())
	told := false
	for _, p := range r.Pushed() {
		if p.Op == wire.OpTopology {
			told = true
		}
	}
	if !told {
		t.Error("the client was not told who leads")
	}
	c.WaitOtherLeader(leader)
	if p := publishOne(t, c, s, 1, "orders", 2); p.Status != wire.StatusOK {
		t.Fatalf("publish at the next leader: %+v", p)
	}
	if n := len(voters(members(c))); n != 3 {
		t.Errorf("%d voters after an orderly stop, want 3", n)
	}
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// One node alone hands over to nobody. What is in flight ends all the same: whoever asks
// again after its restart would be answered as a duplicate.
func TestClose_OneNode_WhatIsInFlightEnds(t *testing.T) {
	t.Parallel()
	// What is in flight may take long on a machine with more to do than it can.
	c := clustertest.New(t, 1, func(c *cluster.Config) { cluster.WithDrain(c, clustertest.Bound) })
	createQueue(t, c, "orders", wire.QueueSettings{})
	p := producerOf(t, connect(t, c), "orders")
	for range 2 {
		ctx := bounded(t)
		var fs []*client.Future
		for i := range 300 {
			fs = append(fs, p.PublishAsync(ctx, client.Message{Body: make([]byte, 8<<10)}))
			if i == 20 {
				if _, err := fs[0].Wait(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Stop(c.Node(0))
		c.Restart(c.Node(0))
		for _, f := range fs {
			r, err := f.Wait(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if r.Duplicate {
				t.Fatalf("%s was stored, and its producer had to ask for that", r.Message)
			}
		}
	}
}

func TestJoin_ANewNodeIsPromotedWhenItHasCaughtUp(t *testing.T) {
	c := clustertest.New(t, 3)
	_, _, s := ready(t, c, "orders")
	for seq := range uint64(10) {
		publishOne(t, c, s, 1, "orders", seq+1)
	}
	c.Join()
	clustertest.Eventually(t, func() string {
		if v := voters(members(c)); len(v) != 4 {
			return fmt.Sprintf("voters %v", v)
		}
		return ""
	})
	c.WaitCaughtUp()
	c.DigestsAgree()
}

func TestWipedNode_ComesBackAsANewMemberAndItsOldSelfIsRemoved(t *testing.T) {
	c := clustertest.New(t, 3)
	leader, _, s := ready(t, c, "orders")
	publishOne(t, c, s, 1, "orders", 1)
	victim := c.Others(leader)[0]
	old := victim.Status().ServerID
	c.Kill(victim)
	c.Wipe(victim)
	c.Restart(victim)
	now := victim.Status().ServerID
	if now == old {
		t.Fatal("a wiped node came back under its old id")
	}
	clustertest.Eventually(t, func() string {
		m := members(c)
		ids := make(map[string]bool)
		for _, v := range m.Members {
			ids[v.ServerID] = v.Voter
		}
		if len(ids) != 3 || !ids[now] {
			return fmt.Sprintf("members %+v, want three, %s as a voter", m.Members, now)
		}
		return ""
	})
	c.WaitCaughtUp()
	c.DigestsAgree()
}

func TestRemove_NeverLeavesLessThanAQuorumAlive(t *testing.T) {
	c := clustertest.New(t, 3, clustertest.Steady)
	leader := c.WaitLeader()
	others := c.Others(leader)
	dead, living := others[0], others[1]
	c.Kill(dead)
	if e := asWireError(change(t, c, wire.OpMemberRemove, living.NodeID)); e == nil || e.Code != wire.CodeMembership {
		t.Fatalf("removing a living node before gossip has noticed the death of another: %v, want a refusal", e)
	}
	clustertest.Eventually(t, func() string {
		for _, m := range members(c).Members {
			if m.Node == dead.NodeID && m.Alive {
				return "gossip has not noticed the death yet"
			}
		}
		return ""
	})
	if e := asWireError(change(t, c, wire.OpMemberRemove, living.NodeID)); e == nil || e.Code != wire.CodeMembership {
		t.Fatalf("removing a living node while another is dead: %v, want a refusal", e)
	}
	if e := asWireError(change(t, c, wire.OpMemberRemove, "nobody")); e == nil || e.Code != wire.CodeNoNode {
		t.Fatalf("removing nobody: %v", e)
	}
	whenItCan(t, c, wire.OpMemberRemove, dead.NodeID)
	if v := voters(members(c)); len(v) != 2 {
		t.Fatalf("voters %v", v)
	}
}

func TestRemove_TheLeaderHandsOverFirst(t *testing.T) {
	c := clustertest.New(t, 3, clustertest.Steady)
	leader := c.WaitLeader()
	whenItCan(t, c, wire.OpMemberRemove, leader.NodeID)
	clustertest.Eventually(t, func() string {
		next := c.Leader()
		if next == nil || next == leader {
			return "no other leader"
		}
		return ""
	})
	for _, v := range voters(members(c)) {
		if v == leader.NodeID {
			t.Fatal("the removed node is a voter")
		}
	}
}

func TestTransfer_ToANamedNodeAndToNobody(t *testing.T) {
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	target := c.Others(leader)[1]
	if e := asWireError(change(t, c, wire.OpMemberTransfer, "nobody")); e == nil || e.Code != wire.CodeNoNode {
		t.Fatalf("transfer to nobody: %v", e)
	}
	handOverTo(t, c, target)
}
