package cluster_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// TestAckAndPublish_ChainOfThreeQueues_EachMessageOnce: every third answer is lost
// with its connection, and the leader is killed in the middle.
func TestAckAndPublish_ChainOfThreeQueues_EachMessageOnce(t *testing.T) {
	t.Parallel()
	const n = 150
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	for _, q := range []string{"first", "second", "third"} {
		createQueue(t, c, q, wire.QueueSettings{})
	}
	proxy := clustertest.NewProxy(t)
	cl := connect(t, c, client.WithDialer(proxy.Dial))
	var answers, lost atomic.Int64
	proxy.OnAnswer(func(f wire.Frame) clustertest.Verdict {
		if f.Op == wire.OpAckPublish && answers.Add(1)%20 == 0 {
			lost.Add(1)
			return clustertest.Cut
		}
		return clustertest.Pass
	})
	stage := func(from, to string) {
		consume(t, cl, from, func(ctx context.Context, d *client.Delivery) error {
			_, err := cl.AckAndPublish(ctx, d, client.Outgoing{Queue: to, Message: client.Message{Body: append(d.Body(), '+'), OrderingKey: "k" + string(d.Body()[:1])}})
			if err != nil {
				t.Errorf("%s, %s: %v", from, d.Body(), err)
			}
			return err
		}, client.WithConcurrency(8))
	}
	stage("first", "second")
	stage("second", "third")
	var mu sync.Mutex
	arrived := map[string]int{}
	half := make(chan struct{})
	all := make(chan struct{})
	consume(t, cl, "third", func(ctx context.Context, d *client.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		arrived[string(d.Body())]++
		if len(arrived) == n/3 && arrived[string(d.Body())] == 1 {
			close(half)
		}
		if len(arrived) == n && arrived[string(d.Body())] == 1 {
			close(all)
		}
		return nil
	})
	p := producerOf(t, cl, "first")
	var futures []*client.Future
	for i := range n {
		futures = append(futures, p.PublishAsync(bounded(t), client.Message{Body: fmt.Append(nil, i)}))
	}
	await(t, "some messages at the end of the chain", half)
	c.Kill(leader)
	for _, f := range futures {
		if _, err := f.Wait(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "all messages at the end of the chain", all)
	for _, q := range []string{"first", "second", "third"} {
		clustertest.Eventually(t, func() string {
			if k := info(c, q).Counts; k.Stored != n || k.Acked != n {
				return fmt.Sprintf("counts of %s: %+v", q, k)
			}
			return ""
		})
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range n {
		if b := fmt.Sprint(i, "++"); arrived[b] != 1 {
			t.Errorf("%s arrived %d times", b, arrived[b])
		}
	}
	if lost.Load() == 0 {
		t.Error("no answer was lost")
	}
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestAckAndPublish_ReplyLost_LeaderKilled_GetsTheRecordedPositions: the retry is
// judged by its sequence at the next leader, where the lease is long settled.
func TestAckAndPublish_ReplyLost_LeaderKilled_GetsTheRecordedPositions(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady) // who dies is who owes the answer
	leader := c.WaitLeader()
	for _, q := range []string{"in", "a", "b"} {
		createQueue(t, c, q, wire.QueueSettings{})
	}
	proxy := clustertest.NewProxy(t)
	cl := connect(t, c, client.WithDialer(proxy.Dial))
	rule, lost := once(wire.OpAckPublish, clustertest.Drop)
	proxy.OnAnswer(rule)
	if _, err := producerOf(t, cl, "in").Publish(bounded(t), client.Message{Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	result := make(chan []client.Receipt, 1)
	consume(t, cl, "in", func(ctx context.Context, d *client.Delivery) error {
		rs, err := cl.AckAndPublish(ctx, d,
			client.Outgoing{Queue: "a", Message: client.Message{Body: []byte("1")}},
			client.Outgoing{Queue: "b", Message: client.Message{Body: []byte("2"), Priority: 4}},
			client.Outgoing{Queue: "a", Message: client.Message{Body: []byte("3")}})
		if err != nil {
			t.Error(err)
		}
		result <- rs
		return err
	})
	first := must(wire.DecodePublishReply(await(t, "the lost answer", lost).Payload))(t)
	if len(first.Results) != 1 || first.Results[0].Status != wire.StatusOK || first.Results[0].Duplicate || len(first.Results[0].Outputs) != 2 {
		t.Fatalf("the lost answer was %+v", first)
	}
	c.Kill(leader)
	rs := await(t, "the receipts", result)
	if len(rs) != 3 || !rs[0].Duplicate || rs[0].Attempts < 2 ||
		rs[0].Message.String() != "a/0" || rs[1].Message.String() != "b/p4.0" || rs[2].Message.String() != "a/1" {
		t.Fatalf("receipts %+v", rs)
	}
	o, err := cl.Outcome(bounded(t), rs[0].ID)
	if err != nil || o.State != client.Stored || o.Count != 3 || len(o.Outputs) != 2 {
		t.Fatalf("outcome %+v, %v", o, err)
	}
	wantCounts(t, c, "in", func(k wire.QueueCounts) bool { return k.Acked == 1 && k.Delivered == 1 && redelivered(k) == 0 })
	wantCounts(t, c, "a", func(k wire.QueueCounts) bool { return k.Stored == 2 })
	wantCounts(t, c, "b", func(k wire.QueueCounts) bool { return k.Stored == 1 })
}

// TestAckAndPublish_ATargetThatIsMissing_NothingHappens.
func TestAckAndPublish_ATargetThatIsMissing_NothingHappens(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	c.WaitLeader()
	createQueue(t, c, "in", wire.QueueSettings{})
	createQueue(t, c, "a", wire.QueueSettings{})
	cl := connect(t, c)
	if _, err := producerOf(t, cl, "in").Publish(bounded(t), client.Message{Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	var tries atomic.Int64
	consume(t, cl, "in", func(ctx context.Context, d *client.Delivery) error {
		outs := []client.Outgoing{{Queue: "a", Message: client.Message{Body: []byte("1")}}, {Queue: "none", Message: client.Message{}}}
		if tries.Add(1) > 1 {
			outs = outs[:1]
		}
		_, err := cl.AckAndPublish(ctx, d, outs...)
		if err != nil {
			failed <- err
		}
		return err
	})
	if err := await(t, "the refusal", failed); !isNoQueue(err) {
		t.Fatal(err)
	}
	clustertest.Eventually(t, func() string {
		if k := info(c, "in").Counts; k.Acked != 1 || k.RedeliveredNacked != 1 {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
	wantCounts(t, c, "a", func(k wire.QueueCounts) bool { return k.Stored == 1 })
}
