package cluster_test

import (
	"fmt"
	"testing"

	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// ready makes a queue and a session at the leader.
func ready(t *testing.T, c *clustertest.Cluster, queue string) (leader *clustertest.Node, r *clustertest.Raw, s wire.SessionOpened) {
	t.Helper()
	// A starved machine elects another leader in between.
	createQueue(t, c, queue, wire.QueueSettings{})
	s = clustertest.AtLeader(c, (*clustertest.Raw).OpenSession)
	leader = c.WaitLeader()
	return leader, dial(t, leader), s
}

// publishOne publishes at the leader until it is answered; an answer may be
// about an earlier copy when the leader has just changed.
func publishOne(t *testing.T, c *clustertest.Cluster, s wire.SessionOpened, floor uint64, queue string, seq uint64) wire.PublishResult {
	t.Helper()
	p := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.PublishReply, error) {
		return r.Publish(s, floor, queue, clustertest.Publication(queue, seq, fmt.Sprint("body ", seq)))
	})
	if len(p.Results) != 1 {
		t.Fatalf("results: %+v", p.Results)
	}
	return p.Results[0]
}

// info shows a queue as the leader sees it.
func info(c *clustertest.Cluster, queue string) wire.QueueInfo {
	return clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.QueueReply, error) { return r.Queue(queue) }).Info
}

// TestThreeNodes_ALateCopyAfterTheLeaderDied_GetsTheRecordedResult: the table
// of inner-msg-ids is replicated with the messages.
func TestThreeNodes_ALateCopyAfterTheLeaderDied_GetsTheRecordedResult(t *testing.T) {
	c := clustertest.New(t, 3)
	leader, _, s := ready(t, c, "orders")
	first := publishOne(t, c, s, 1, "orders", 1)
	if first.Status != wire.StatusOK {
		t.Fatalf("publish: %+v", first)
	}
	c.Kill(leader)
	again := publishOne(t, c, s, 1, "orders", 1)
	if again.Status != wire.StatusOK || !again.Duplicate || again.Offset != first.Offset {
		t.Fatalf("late copy at the next leader: %+v, first was %+v", again, first)
	}
	if q := info(c, "orders"); q.Counts.Stored != 1 {
		t.Fatalf("stored %d", q.Counts.Stored)
	}
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestThreeNodes_RestartOfAll: what was confirmed is there after every node was
// killed at once, acked messages do not come back, and the sessions know what
// they knew.
func TestThreeNodes_RestartOfAll(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"wal", "boltdb"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := clustertest.New(t, 3, clustertest.Steady, func(c *cluster.Config) { c.LogStore = kind })
			_, r, s := ready(t, c, "orders")
			for seq := range uint64(20) {
				if p := publishOne(t, c, s, 1, "orders", seq+1); p.Status != wire.StatusOK {
					t.Fatalf("publish %d: %+v", seq+1, p)
				}
			}
			consumer := clustertest.NewConsumer()
			must(r.Attach(consumer, 1, "orders", 10, 1))(t)
			if ack := must(r.Ack(consumer, 1, 1, 5))(t); ack.Status != wire.StatusOK {
				t.Fatalf("ack: %+v", ack)
			}
			c.RestartAll()
			q := info(c, "orders")
			if q.Counts.Stored != 20 || q.Counts.Acked != 5 {
				t.Fatalf("after the restart: %+v", q.Counts)
			}
			for seq := range uint64(20) {
				if p := publishOne(t, c, s, 1, "orders", seq+1); p.Status != wire.StatusOK || !p.Duplicate {
					t.Fatalf("late copy of %d: %+v", seq+1, p)
				}
			}
			if p := publishOne(t, c, s, 21, "orders", 21); p.Status != wire.StatusOK {
				t.Fatalf("new after the restart: %+v", p)
			}
			if p := publishOne(t, c, s, 1, "orders", 3); p.Status != wire.StatusBelowFloor {
				t.Fatalf("late copy below the floor: %+v", p)
			}
			c.WaitCaughtUp()
			c.DigestsAgree()
		})
	}
}

// TestThreeNodes_Failover_RedeliversNothingToTheLiving: a consumer that comes
// back to the next leader keeps what it holds, and is sent only what it lacks.
func TestThreeNodes_Failover_RedeliversNothingToTheLiving(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady)
	leader, r, s := ready(t, c, "orders")
	for seq := range uint64(10) {
		publishOne(t, c, s, 1, "orders", seq+1)
	}
	consumer := clustertest.NewConsumer()
	must(r.Attach(consumer, 1, "orders", 10, 1))(t)
	clustertest.Eventually(t, func() string {
		if n := len(r.Deliveries(consumer, 1)); n < 10 {
			return fmt.Sprintf("%d of 10 deliveries", n)
		}
		return ""
	})
	c.Kill(leader)
	r2 := dial(t, c.WaitOtherLeader(leader))
	// The client has buffered 1 to 7; 8 to 10 were lost with the connection.
	a := must(r2.Attach(consumer, 2, "orders", 10, 1, wire.Range{From: 1, To: 7}))(t)
	if a.Status != wire.StatusOK || len(a.States) == 0 {
		t.Fatalf("attach: %+v", a)
	}
	for _, st := range a.States {
		if st.State != wire.LeaseHeld {
			t.Fatalf("states: %+v", a.States)
		}
	}
	clustertest.Eventually(t, func() string {
		if n := len(r2.Deliveries(consumer, 2)); n < 3 {
			return fmt.Sprintf("%d of 3 deliveries", n)
		}
		return ""
	})
	if ack := must(r2.Ack(consumer, 1, 1, 10))(t); ack.Status != wire.StatusOK {
		t.Fatalf("ack: %+v", ack)
	}
	ds := r2.Deliveries(consumer, 2)
	if len(ds) != 3 {
		t.Fatalf("%d deliveries, want the three that the client lacked", len(ds))
	}
	for i, d := range ds {
		if d.Number != uint64(8+i) || d.Attempt != 1 {
			t.Fatalf("delivery %+v", d)
		}
	}
	q := info(c, "orders")
	if q.Counts.Acked != 10 || q.Counts.Delivered != 10 {
		t.Fatalf("counts: %+v", q.Counts)
	}
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestThreeNodes_CaughtUpBySnapshotOnly_ThenLeads: sessions, leases and bodies
// survive on a node that has nothing but a snapshot.
func TestThreeNodes_CaughtUpBySnapshotOnly_ThenLeads(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady, func(c *cluster.Config) { c.TrailingLogs = 96 })
	leader, r, s := ready(t, c, "orders")
	behind := c.Others(leader)[0]
	c.Kill(behind)
	for seq := range uint64(300) {
		if p := publishOne(t, c, s, 1, "orders", seq+1); p.Status != wire.StatusOK {
			t.Fatalf("publish: %+v", p)
		}
	}
	consumer := clustertest.NewConsumer()
	must(r.Attach(consumer, 1, "orders", 5, 1))(t)
	if ack := must(r.Ack(consumer, 1, 1, 2))(t); ack.Status != wire.StatusOK {
		t.Fatalf("ack: %+v", ack)
	}
	for _, n := range c.Up() {
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	c.Restart(behind)
	c.WaitCaughtUp()
	if behind.Status().SnapshotIndex == 0 {
		t.Fatal("caught up without a snapshot: the test shows nothing")
	}
	handOverTo(t, c, behind)
	r2 := dial(t, behind)
	if p := publishOne(t, c, s, 1, "orders", 1); p.Status != wire.StatusOK || !p.Duplicate {
		t.Fatalf("late copy: %+v", p)
	}
	a := must(r2.Attach(consumer, 2, "orders", 10, 3, wire.Range{From: 3, To: 3}))(t)
	if a.Status != wire.StatusOK {
		t.Fatalf("attach: %+v", a)
	}
	clustertest.Eventually(t, func() string {
		if n := len(r2.Deliveries(consumer, 2)); n == 0 {
			return "no deliveries"
		}
		return ""
	})
	m := must(wire.DecodeMessage(r2.Deliveries(consumer, 2)[0].Message))(t)
	if string(m.Body) != "body 4" {
		t.Fatalf("body %q from a snapshot, want the fourth", m.Body)
	}
	c.DigestsAgree()
}

// TestMinorityLeader_ConfirmsNothing: a leader that is cut off from the others
// but not from clients answers unknown or refuses, and hands out nothing.
func TestMinorityLeader_ConfirmsNothing(t *testing.T) {
	c := clustertest.New(t, 3)
	leader, r, s := ready(t, c, "orders")
	publishOne(t, c, s, 1, "orders", 1)
	other := dial(t, leader)
	c.Isolate(leader)
	// At the same time: when the publish has its answer the leader knows that it is none.
	read := make(chan error, 1)
	go func() {
		_, err := other.Queue("orders")
		read <- err
	}()
	p, err := r.Publish(s, 1, "orders", clustertest.Publication("orders", 2, "body 2"))
	var code wire.Code
	if e := asWireError(err); e != nil {
		code = e.Code
	}
	if err == nil || code != wire.CodeOutcomeUnknown && code != wire.CodeNoLeader && code != wire.CodeNotLeader {
		t.Fatalf("publish at a minority leader: %+v, %v", p, err)
	}
	if err := <-read; err == nil {
		t.Fatal("a read at a minority leader is answered")
	}
	c.WaitOtherLeader(leader)
	if p := publishOne(t, c, s, 1, "orders", 2); p.Status != wire.StatusOK {
		t.Fatalf("the same publish at the majority's leader: %+v", p)
	}
	c.Heal()
	clustertest.Eventually(t, func() string {
		if st := leader.Status(); st.Serving || st.Leader == "" {
			return "the old leader has not stepped down"
		}
		return ""
	})
	c.WaitCaughtUp()
	if q := info(c, "orders"); q.Counts.Stored != 2 {
		t.Fatalf("stored %d, want 2", q.Counts.Stored)
	}
	c.DigestsAgree()
}

// TestFollower_SaysWhereTheLeaderIs: the wrong node answers with the right
// address, and that nothing was appended.
func TestFollower_SaysWhereTheLeaderIs(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady)
	leader, _, s := ready(t, c, "orders")
	follower := c.Others(leader)[0]
	r := dial(t, follower)
	clustertest.Eventually(t, func() string {
		_, err := r.Publish(s, 1, "orders", clustertest.Publication("orders", 1, "x"))
		e := asWireError(err)
		if e == nil || e.Code != wire.CodeNotLeader || !e.Retriable || e.Leader != leader.Address {
			return fmt.Sprintf("answer %v", err)
		}
		return ""
	})
}
