package cluster_test

import (
	"testing"

	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// publishAndAck publishes sequence seq to an empty queue and lets a consumer of
// its own receive and ack it.
func publishAndAck(t *testing.T, c *clustertest.Cluster, s wire.SessionOpened, floor uint64, queue string, seq uint64) wire.PublishResult {
	t.Helper()
	first := publishOne(t, c, s, floor, queue, seq)
	if first.Status != wire.StatusOK || first.Duplicate {
		t.Fatalf("publish %d: %+v", seq, first)
	}
	r := dial(t, c.WaitLeader())
	consumer := clustertest.NewConsumer()
	if a := must(r.Attach(consumer, 1, queue, 1, 1))(t); a.Status != wire.StatusOK {
		t.Fatalf("attach: %+v", a)
	}
	if ack := must(r.Ack(consumer, 1, 1, 1))(t); ack.Status != wire.StatusOK || ack.Results[0].State != wire.LeaseAcked {
		t.Fatalf("ack: %+v", ack)
	}
	return first
}

// retryOld sends an acked publish again: it is answered from the record until
// the floor has passed it, then as below the floor, and never comes back.
func retryOld(t *testing.T, c *clustertest.Cluster, s wire.SessionOpened, queue string, seq uint64, first wire.PublishResult) {
	t.Helper()
	again := publishOne(t, c, s, seq, queue, seq)
	if again.Status != wire.StatusOK || !again.Duplicate || again.Offset != first.Offset || again.Queue != first.Queue {
		t.Fatalf("the old sequence again: %+v, first was %+v", again, first)
	}
	stored := info(c, queue).Counts.Stored
	publishAndAck(t, c, s, seq+1, queue, seq+1)
	if below := publishOne(t, c, s, 1, queue, seq); below.Status != wire.StatusBelowFloor {
		t.Fatalf("the old sequence when the floor has passed it: %+v", below)
	}
	// Somebody waits for messages, and there are none.
	r := dial(t, c.WaitLeader())
	consumer := clustertest.NewConsumer()
	must(r.Attach(consumer, 1, queue, 10, 1))(t)
	c.DigestsAgree() // an entry after the attach, so what it could give would have been given
	k := info(c, queue).Counts
	if k.Ready+k.Leased+k.Delayed+k.Parked != 0 || k.Stored != stored+1 || k.Delivered != k.Stored || k.Acked != k.Stored {
		t.Fatalf("the queue is not empty: %+v", k)
	}
	if ds := r.Deliveries(consumer, 1); len(ds) != 0 {
		t.Fatalf("delivered again: %+v", ds)
	}
}

// TestPublish_AckedThenAllRestarted_OldSequence_NeverComesBack: publish, ack,
// restart of all three nodes, retry.
func TestPublish_AckedThenAllRestarted_OldSequence_NeverComesBack(t *testing.T) {
	t.Parallel()
	eachLogStore(t, func(t *testing.T, o clustertest.Option) {
		c := clustertest.New(t, 3, o, clustertest.Steady)
		c.WaitLeader()
		createQueue(t, c, "orders", wire.QueueSettings{})
		s := clustertest.AtLeader(c, (*clustertest.Raw).OpenSession)
		first := publishAndAck(t, c, s, 1, "orders", 1)
		c.RestartAll()
		retryOld(t, c, s, "orders", 1, first)
		c.WaitCaughtUp()
		c.DigestsAgree()
	})
}

// TestPublish_AckedThenSnapshotOnlyLeader_OldSequence_NeverComesBack: the same,
// judged by a leader that has never seen the publish in its log.
func TestPublish_AckedThenSnapshotOnlyLeader_OldSequence_NeverComesBack(t *testing.T) {
	t.Parallel()
	eachLogStore(t, func(t *testing.T, o clustertest.Option) {
		const trailing = 96
		c := clustertest.New(t, 3, o, clustertest.Steady, func(c *cluster.Config) { c.TrailingLogs = trailing })
		leader := c.WaitLeader()
		createQueue(t, c, "orders", wire.QueueSettings{})
		createQueue(t, c, "other", wire.QueueSettings{})
		s := clustertest.AtLeader(c, (*clustertest.Raw).OpenSession)
		other := clustertest.AtLeader(c, (*clustertest.Raw).OpenSession)
		behind := c.Others(leader)[0]
		c.Kill(behind)
		first := publishAndAck(t, c, s, 1, "orders", 1)
		acked := leader.Status().CommitIndex
		r := dial(t, leader)
		for seq := range uint64(2 * trailing) {
			p := must(r.Publish(other, seq+1, "other", clustertest.Publication("other", seq+1, "more")))(t)
			if p.Results[0].Status != wire.StatusOK {
				t.Fatalf("publish: %+v", p)
			}
		}
		for _, n := range c.Up() {
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		c.Restart(behind)
		c.WaitCaughtUp()
		if i := behind.Status().SnapshotIndex; i < acked {
			t.Fatalf("its snapshot is at %d, the ack at %d: it has seen the publish in a log", i, acked)
		}
		handOverTo(t, c, behind)
		term := behind.Status().Term
		retryOld(t, c, s, "orders", 1, first)
		if now := behind.Status(); now.Term != term {
			t.Fatalf("it led in term %d, and now it is %d: the test shows nothing", term, now.Term)
		}
		c.WaitCaughtUp()
		c.DigestsAgree()
	})
}
