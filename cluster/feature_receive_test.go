package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/fsm"
	"onceq/transport/wire"
)

func receiveOf(r *clustertest.Raw, p wire.ConsumerID, first, done uint64, limit uint32, wait time.Duration) wire.Receive {
	return wire.Receive{Incarnation: r.Incarnation, Group: 1, Consumer: p, Queue: "orders", First: first, Done: done, Limit: limit, Wait: wait}
}

// TestReceive_LeaderKilledBeforeTheReply_TheNextOneRepeatsTheSame: the leases are
// replicated, so asking again at another node gives the same messages, as a first
// attempt, whoever had made them.
func TestReceive_LeaderKilledBeforeTheReply_TheNextOneRepeatsTheSame(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady)
	leader, _, s := ready(t, c, "orders")
	waitVersion(t, c, fsm.MachineVersion) // the first does not know a receive, and nobody asks again here
	for seq := range uint64(3) {
		publishOne(t, c, s, seq+1, "orders", seq+1)
	}
	p := clustertest.NewConsumer()
	old := dial(t, leader)
	request := receiveOf(old, p, 1, 1, 2, 0)
	got := must(clustertest.Ask(old, wire.OpReceive, request, wire.DecodeReceived))(t)
	if got.Status != wire.StatusOK || got.Next != 3 {
		t.Fatalf("receive: %+v", got)
	}
	first := old.Deliveries(p, 0) // all of them have come before the answer
	c.Kill(leader)
	// As if the answer had been lost: the very same request.
	var second []wire.Delivery
	again := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.Received, error) {
		a, err := clustertest.Ask(r, wire.OpReceive, request, wire.DecodeReceived)
		second = r.Deliveries(p, 0)
		return a, err
	})
	if again.Status != wire.StatusOK || again.Next != 3 || len(first) != 2 || len(second) != 2 {
		t.Fatalf("asked again: %+v with %d deliveries, at first %d", again, len(second), len(first))
	}
	for i := range first {
		if a, b := first[i], second[i]; a.Number != b.Number || a.Offset != b.Offset || b.Attempt != 1 || !bytes.Equal(a.Message, b.Message) {
			t.Errorf("delivery %d: %+v, then %+v", i, a, b)
		}
	}
	// Settled: a copy of the receive that comes now leases nothing.
	clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.SettleReply, error) { return r.Ack(p, 3, 1, 2) })
	late := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.Received, error) {
		return clustertest.Ask(r, wire.OpReceive, request, wire.DecodeReceived)
	})
	if late.Status != wire.StatusStale || late.Next != 3 {
		t.Errorf("late copy: %+v", late)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool {
		return k.Acked == 2 && k.Ready == 1 && k.Leased == 0 && redelivered(k) == 0
	})
}

// TestReceive_WaitsOverALeaderChange: a receive that waits is answered by the next
// leader, with the message that comes then.
func TestReceive_WaitsOverALeaderChange(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader, _, _ := ready(t, c, "orders")
	waitVersion(t, c, fsm.MachineVersion) // a member that is gone does not say what it can apply
	cl := connect(t, c)
	type result struct {
		ds  []*client.Delivery
		err error
	}
	done := make(chan result, 1)
	go func() {
		ds, err := cl.Receive(bounded(t), "orders", 10)
		done <- result{ds, err}
	}()
	c.Kill(leader)
	c.WaitOtherLeader(leader)
	publishMany(t, cl, "orders", 1)
	r := <-done
	if r.err != nil || len(r.ds) != 1 || r.ds[0].Attempt() != 1 {
		t.Fatalf("received %d messages, error %v", len(r.ds), r.err)
	}
	if err := r.ds[0].Extend(bounded(t), time.Minute); err != nil {
		t.Error(err)
	}
	if err := r.ds[0].Ack(bounded(t)); err != nil {
		t.Error(err)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Acked == 1 && redelivered(k) == 0 })
}

// TestReceive_ConnectionOfTheWaitingOneEnds_LeasesForNobody.
func TestReceive_ConnectionOfTheWaitingOneEnds_LeasesForNobody(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	leader, _, s := ready(t, c, "orders")
	waitVersion(t, c, fsm.MachineVersion) // or the receive is refused, and does not wait
	gone := dial(t, leader)
	wait := func(n int) {
		t.Helper()
		clustertest.Eventually(t, func() string {
			if is := leader.ReceivesWaiting(); is != n {
				return fmt.Sprintf("%d receives wait, want %d", is, n)
			}
			return ""
		})
	}
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		_, _ = clustertest.Ask(gone, wire.OpReceive, receiveOf(gone, clustertest.NewConsumer(), 1, 1, 10, wire.ReceiveWaitMax), wire.DecodeReceived)
	}()
	wait(1)
	gone.Close()
	<-waiting
	wait(0) // the node hears of it a moment later than its client
	// Another that waits in line behind it gets the message.
	cl := connect(t, c)
	done := make(chan error, 1)
	go func() {
		ds, err := cl.Receive(bounded(t), "orders", 1)
		if err == nil && ds[0].Attempt() != 1 {
			err = fmt.Errorf("attempt %d", ds[0].Attempt())
		}
		done <- err
	}()
	publishOne(t, c, s, 1, "orders", 1)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestReceive_MoreThanAFrameHolds comes in several, and in order.
func TestReceive_MoreThanAFrameHolds(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	ready(t, c, "orders")
	cl := connect(t, c)
	p := producerOf(t, cl, "orders")
	const n = 12
	for i := range n {
		if _, err := p.Publish(bounded(t), client.Message{Body: bytes.Repeat([]byte{byte(i)}, 1<<20-1024)}); err != nil {
			t.Fatal(err)
		}
	}
	ds, err := cl.Receive(bounded(t), "orders", 100)
	if err != nil || len(ds) != n {
		t.Fatalf("received %d messages, error %v", len(ds), err)
	}
	for i, d := range ds {
		if d.Body()[0] != byte(i) || d.ID().Offset != uint64(i) {
			t.Errorf("number %d is %v with %d", i, d.ID(), d.Body()[0])
		}
		if err := d.Ack(bounded(t)); err != nil {
			t.Error(err)
		}
	}
}

// TestReceive_GivenUp_TheMessageGoesToTheNext: the context of a receive ends while
// it waits, and what comes then is not leased for it.
func TestReceive_GivenUp_TheMessageGoesToTheNext(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	_, _, s := ready(t, c, "orders")
	cl := connect(t, c)
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if ds, err := cl.Receive(ctx, "orders", 1); err == nil {
			t.Fatalf("received %d messages of an empty queue", len(ds))
		}
		cancel()
	}
	publishOne(t, c, s, 1, "orders", 1)
	ds, err := cl.Receive(bounded(t), "orders", 1)
	if err != nil || len(ds) != 1 {
		t.Fatalf("received %d, %v", len(ds), err)
	}
	if err := ds[0].NackAfter(bounded(t), 0, nil); err != nil {
		t.Error(err)
	}
	// Given back, it is there again.
	ds, err = cl.Receive(bounded(t), "orders", 1, client.WithWait(time.Minute))
	if err != nil || len(ds) != 1 || ds[0].Failures() != 1 {
		t.Fatalf("received %d, %v", len(ds), err)
	}
	if err := ds[0].Reject(bounded(t), "no"); err != nil {
		t.Error(err)
	}
	// With nothing left, asking without waiting gives nothing, and no error.
	if ds, err = cl.Receive(bounded(t), "orders", 1, client.WithWait(0)); err != nil || len(ds) != 0 {
		t.Errorf("received %d, %v", len(ds), err)
	}
}
