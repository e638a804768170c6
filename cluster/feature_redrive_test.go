package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// deadLetters makes n dead letters "0" to "n-1" of queue orders in orders.dead. The
// error of each is odd or even, its biz-id order 0 and so on.
func deadLetters(t *testing.T, c *clustertest.Cluster, cl *client.Client, n int) {
	t.Helper()
	createQueue(t, c, "orders.dead", wire.QueueSettings{})
	createQueue(t, c, "orders", wire.QueueSettings{DeadLetter: "orders.dead"})
	p := producerOf(t, cl, "orders")
	for i := range n {
		if _, err := p.Publish(bounded(t), client.Message{Body: fmt.Append(nil, i), BizID: fmt.Sprint("order ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	stop := consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		if d.ID().Offset%2 == 1 {
			return client.DeadLetter(errors.New("odd"))
		}
		return client.DeadLetter(errors.New("even"))
	})
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders.dead").Counts; k.Ready != uint64(n) {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
	stop()
}

// TestRedrive_RepliesLostAndLeaderKilled_MovesEachOnce: the answers of some steps are
// lost, and the leader dies with one of them. What matches is moved once, and is told of
// exactly; the rest stays.
func TestRedrive_RepliesLostAndLeaderKilled_MovesEachOnce(t *testing.T) {
	t.Parallel()
	const n = 60
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	proxy := clustertest.NewProxy(t)
	cl := connect(t, c, client.WithDialer(proxy.Dial))
	deadLetters(t, c, cl, n)

	var mu sync.Mutex
	answers, killed := 0, make(chan struct{})
	var requests [][]byte
	proxy.OnRequest(func(f wire.Frame) clustertest.Verdict {
		if f.Op == wire.OpRedrive {
			mu.Lock()
			defer mu.Unlock()
			requests = append(requests, slices.Clone(f.Payload))
		}
		return clustertest.Pass
	})
	proxy.OnAnswer(func(f wire.Frame) clustertest.Verdict {
		if f.Op != wire.OpRedrive {
			return clustertest.Pass
		}
		mu.Lock()
		defer mu.Unlock()
		switch answers++; answers {
		case 2:
			return clustertest.Cut
		case 4:
			go func() {
				c.Kill(leader)
				close(killed)
			}()
			return clustertest.Cut
		}
		return clustertest.Pass
	})
	odd := []client.Condition{{Field: client.FieldError, Match: client.MatchEqual, Value: "odd"}}
	done, err := cl.Admin().Redrive(bounded(t), "orders.dead", client.RedriveOptions{Where: odd, Rate: 25})
	if err != nil || done.Moved != n/2 || done.Refused != 0 || done.Skipped != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	await(t, "the death of the leader", killed)
	wantCounts(t, c, "orders.dead", func(k wire.QueueCounts) bool { return k.Moved == n/2 && k.Ready == n/2 })
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Ready == n/2 && k.Stored == n+n/2 })

	// Another run is ended after two steps. Every request was on its way all the time and
	// arrives now, while there is more that it would move: nothing moves.
	ctx, cancel := context.WithCancel(bounded(t))
	some, err := cl.Admin().Redrive(ctx, "orders.dead", client.RedriveOptions{Rate: 25, Progress: func(r client.Redriven) {
		if r.Moved > 5 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || some.Moved == 0 || some.Moved >= n/2 {
		t.Fatalf("%+v, %v", some, err)
	}
	moved := n/2 + some.Moved
	mu.Lock()
	late := slices.Clone(requests)
	mu.Unlock()
	for _, payload := range late {
		r := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.RedriveReply, error) {
			_, b, err := r.Call(bounded(t), wire.OpRedrive, payload)
			if err != nil {
				return wire.RedriveReply{}, err
			}
			return wire.DecodeRedriveReply(b)
		})
		if !r.Repeated && r.Moved != 0 || r.Refused != 0 {
			t.Errorf("a late copy has moved: %+v", r)
		}
	}
	wantCounts(t, c, "orders.dead", func(k wire.QueueCounts) bool { return k.Moved == moved && k.Ready == n-moved })

	got := newReceived()
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	})
	got.waitFor(t, int(moved))
	got.onceEachBody(t, int(moved))
	odds := 0
	for body := range maps.Keys(got.bodies) {
		odds += int(body[len(body)-1]-'0') % 2
	}
	if odds != n/2 {
		t.Errorf("%d of the %d that match were redriven", odds, n/2)
	}
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// onceEachBody says that so many different messages came once each.
func (r *received) onceEachBody(t *testing.T, n int) {
	t.Helper()
	if all := r.all(); len(all) != n || len(r.bodies) != n {
		t.Errorf("%d different messages in %d deliveries, expected %d", len(r.bodies), len(all), n)
	}
}

// TestRedrive_DryRun_CountsNamesAndChangesNothing, for every kind of condition.
func TestRedrive_DryRun_CountsNamesAndChangesNothing(t *testing.T) {
	t.Parallel()
	const n = 20
	c := clustertest.New(t, 1)
	cl := connect(t, c)
	deadLetters(t, c, cl, n)
	admin := cl.Admin()
	where := func(f wire.ConditionField, m wire.ConditionMatch, v string) client.Condition {
		return client.Condition{Field: f, Match: m, Value: v}
	}
	before := info(c, "orders.dead")
	for _, x := range []struct {
		where []client.Condition
		only  []client.Place
		want  uint64
	}{
		{nil, nil, n},
		{[]client.Condition{where(client.FieldReason, client.MatchEqual, "rejected")}, nil, n},
		{[]client.Condition{where(client.FieldReason, client.MatchEqual, "reject")}, nil, 0},
		{[]client.Condition{where(client.FieldReason, client.MatchRegexp, "^rej")}, nil, n},
		{[]client.Condition{where(client.FieldError, client.MatchRegexp, "od")}, nil, n / 2},
		{[]client.Condition{where(client.FieldOrigin, client.MatchEqual, "orders")}, nil, n},
		{[]client.Condition{where(client.FieldKey, client.MatchEqual, "k")}, nil, 0},
		{[]client.Condition{where(client.FieldBizID, client.MatchEqual, "order 7")}, nil, 1},
		{[]client.Condition{where(client.FieldBody, client.MatchRegexp, "^1[0-9]$")}, nil, 10},
		{[]client.Condition{where(client.FieldBody, client.MatchRegexp, "^1"), where(client.FieldError, client.MatchEqual, "even")}, nil, 5},
		{nil, []client.Place{{Offset: 3}, {Offset: 5}, {Offset: 99}}, 2},
		{[]client.Condition{where(client.FieldBody, client.MatchEqual, "no such")}, []client.Place{{Offset: 3}}, 0},
	} {
		var named []string
		r, err := admin.Redrive(bounded(t), "orders.dead", client.RedriveOptions{Where: x.where, Only: x.only, DryRun: true, Would: func(id, target string) {
			named = append(named, id+" "+target)
		}})
		if err != nil || r.Moved != x.want || uint64(len(named)) != x.want || r.Targets["orders"] != x.want {
			t.Errorf("%v %v: %+v, %v, %v", x.where, x.only, r, named, err)
		}
		if len(x.only) > 0 && x.want == 2 && (!slices.Equal(named, []string{"orders.dead/3 orders", "orders.dead/5 orders"}) || r.Skipped != 1) {
			t.Errorf("%+v, %v", r, named)
		}
	}
	for _, bad := range []client.Condition{where(0, client.MatchEqual, "x"), where(client.FieldBody, 9, "x"), where(client.FieldBody, client.MatchRegexp, "(")} {
		if _, err := admin.Redrive(bounded(t), "orders.dead", client.RedriveOptions{Where: []client.Condition{bad}}); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if after := info(c, "orders.dead"); after.Counts != before.Counts || after.Revision != before.Revision {
		t.Errorf("before %+v, after %+v", before, after)
	}
	for _, missing := range []func() error{
		func() error {
			_, err := admin.Redrive(bounded(t), "none", client.RedriveOptions{})
			return err
		},
		func() error {
			_, err := admin.Redrive(bounded(t), "orders.dead", client.RedriveOptions{To: "none", DryRun: true})
			return err
		},
	} {
		if err := missing(); !isNoQueue(err) {
			t.Error(err)
		}
	}
	// Without its origin a dead letter would be refused, and is.
	if _, err := admin.DeleteQueue(bounded(t), "orders"); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		if r, err := admin.Redrive(bounded(t), "orders.dead", client.RedriveOptions{DryRun: dry}); err != nil || r.Refused != n || r.Moved != 0 {
			t.Errorf("dry %v: %+v, %v", dry, r, err)
		}
	}
}

// TestRedrive_WhatArrivesMeanwhileAndOthersEdit: one that dies again while the run lasts
// is not met by it, whatever others do to the queue at the same time.
func TestRedrive_WhatArrivesMeanwhileAndOthersEdit(t *testing.T) {
	t.Parallel()
	const n = 20
	c := clustertest.New(t, 1)
	cl := connect(t, c)
	deadLetters(t, c, cl, n)
	admin := cl.Admin()
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error { return client.DeadLetter(errors.New("again")) })
	steps := 0
	done, err := admin.Redrive(bounded(t), "orders.dead", client.RedriveOptions{Rate: 50, Progress: func(r client.Redriven) {
		if steps++; steps != 1 {
			return
		}
		// The last of the queue goes between two steps.
		last, err := admin.Message(bounded(t), "orders.dead", client.Place{Offset: n - 1})
		if err != nil {
			t.Error(err)
			return
		}
		if s, err := admin.DeleteMessages(bounded(t), "orders.dead", last.Place()); err != nil || s[0] != client.EditDone {
			t.Error(s, err)
		}
	}})
	if err != nil || done.Moved != n-1 || steps < 3 {
		t.Fatalf("%+v in %d steps, %v", done, steps, err)
	}
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders.dead").Counts; k.Moved != n-1 || k.Deleted != 1 || k.Ready != n-1 {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
}

// TestRedrive_ParkedAndDeadTogether_EachGoesWhereItBelongs: a queue that has messages of
// its own, parked ones, and dead letters of another queue; with priorities.
func TestRedrive_ParkedAndDeadTogether_EachGoesWhereItBelongs(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	createQueue(t, c, "both", wire.QueueSettings{LeaseTime: time.Minute})
	createQueue(t, c, "orders", wire.QueueSettings{DeadLetter: "both"})
	cl := connect(t, c)
	for _, q := range []string{"both", "orders", "both", "orders", "both"} {
		for priority := range 3 {
			if _, err := producerOf(t, cl, q).Publish(bounded(t), client.Message{Body: []byte(q), Priority: priority}); err != nil {
				t.Fatal(err)
			}
		}
	}
	reject := func(queue string, n int) {
		t.Helper()
		seen := make(chan struct{}, 100)
		stop := consume(t, cl, queue, func(ctx context.Context, d *client.Delivery) error {
			err := d.Reject(ctx, "no")
			seen <- struct{}{}
			return err
		}, client.WithPrefetch(1))
		for range n {
			await(t, "a rejected message", seen)
		}
		stop()
	}
	reject("orders", 6)
	reject("both", 15) // all, and the dead letters of orders are parked here
	if _, err := producerOf(t, cl, "both").Publish(bounded(t), client.Message{Body: []byte("new")}); err != nil {
		t.Fatal(err)
	}
	wantCounts(t, c, "both", func(k wire.QueueCounts) bool { return k.Parked == 15 && k.Ready == 1 })
	done, err := cl.Admin().Redrive(bounded(t), "both", client.RedriveOptions{})
	if err != nil || done.Moved != 15 || done.Seen != 16 {
		t.Fatalf("%+v, %v", done, err)
	}
	wantCounts(t, c, "both", func(k wire.QueueCounts) bool { return k.Parked == 0 && k.Ready == 10 && k.Moved == 6 })
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Ready == 6 })
}
