package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// TestDelay_AcrossALeaderKill: a delayed message comes when its time has come, a
// cancelled one never, one that is requeued now; each as its first attempt.
func TestDelay_AcrossALeaderKill(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	p := producerOf(t, cl, "orders")
	publish := func(m client.Message) client.Place {
		t.Helper()
		r, err := p.Publish(bounded(t), m)
		if err != nil {
			t.Fatal(err)
		}
		return client.Place{Lane: r.Message.Lane, Offset: r.Message.Offset}
	}
	cancelled := publish(client.Message{Body: []byte("cancelled"), Delay: time.Hour})
	now := publish(client.Message{Body: []byte("now"), DeliverAt: time.Now().Add(time.Hour)})
	publish(client.Message{Body: []byte("past"), DeliverAt: time.Now().Add(-time.Hour)})
	publish(client.Message{Body: []byte("soon"), Delay: 10 * time.Second}) // later than it is looked at
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Delayed == 3 && k.Ready == 1 })
	got := newReceived()
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	})
	got.waitFor(t, 1)
	c.Kill(leader)
	admin := cl.Admin()
	if s, err := admin.DeleteMessages(bounded(t), "orders", cancelled); err != nil || s[0] != client.EditDone && s[0] != client.EditNotHere {
		t.Fatal(s, err)
	}
	if s, err := admin.RequeueMessages(bounded(t), "orders", now); err != nil || len(s) != 1 {
		t.Fatal(s, err)
	}
	got.waitFor(t, 3)
	got.onceEach(t, 3)
	if got.bodies["soon"] != 1 || got.bodies["now"] != 1 || got.bodies["past"] != 1 {
		t.Errorf("%v", got.bodies)
	}
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders").Counts; k.Delayed != 0 || k.Acked != 3 || k.Deleted != 1 {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
}

// TestTTL_WhatNobodyTookIsGone_WhatIsHeldIsNot, across a leader kill.
func TestTTL_WhatNobodyTookIsGone_WhatIsHeldIsNot(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady) // or the consumer is away when it is to take the first
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{TTL: time.Hour})
	cl := connect(t, c)
	p := producerOf(t, cl, "orders")
	publish := func(body string, ttl time.Duration) {
		t.Helper()
		if _, err := p.Publish(bounded(t), client.Message{Body: []byte(body), TTL: ttl}); err != nil {
			t.Fatal(err)
		}
	}
	held, release := make(chan *client.Delivery, 1), make(chan struct{})
	var once sync.Once
	let := func() { once.Do(func() { close(release) }) }
	stop := consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		held <- d
		<-release
		return nil
	}, client.WithPrefetch(1))
	t.Cleanup(let) // runs before the consumer is stopped
	clustertest.Eventually(t, func() string {
		if info(c, "orders").Consumers != 1 {
			return "nobody is there to take it in time"
		}
		return ""
	})
	publish("held", 2*time.Second)
	await(t, "the first message", held)
	publish("short", 2*time.Second)
	publish("long", 0) // the queue's
	c.Kill(leader)
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders").Counts; k.Expired != 1 {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Leased == 1 && k.Ready == 1 && k.Expired == 1 })
	let()
	if d := await(t, "the long one", held); string(d.Body()) != "long" {
		t.Fatalf("handed out %q", d.Body())
	}
	stop()
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Acked == 2 && k.Stored == 3 })
}

// TestDeadLetters_EndToEnd: what fails three times goes to the dead-letter queue
// with all that it has behind it, once, also when the leader dies; it is found
// there by looking, and sent back to work.
func TestDeadLetters_EndToEnd(t *testing.T) {
	t.Parallel()
	const n = 40
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders.dead", wire.QueueSettings{})
	createQueue(t, c, "orders", wire.QueueSettings{DeliveryLimit: 3, DeadLetter: "orders.dead", BackoffMin: time.Millisecond, BackoffMax: 10 * time.Millisecond})
	cl := connect(t, c)
	p := producerOf(t, cl, "orders")
	for i := range n {
		if _, err := p.Publish(bounded(t), client.Message{Body: fmt.Append(nil, i), BizID: fmt.Sprint("order ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	half := make(chan struct{}, n)
	stop := consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		var i int
		if _, err := fmt.Sscan(string(d.Body()), &i); err != nil {
			t.Error(err)
		}
		if i == n/2 {
			half <- struct{}{}
		}
		switch {
		case i%4 == 1:
			return fmt.Errorf("failure %d", d.Failures()+1)
		case i%4 == 3:
			return client.DeadLetter(errors.New("not an order"))
		}
		return nil
	}, client.WithConcurrency(4))
	await(t, "half of the messages", half)
	c.Kill(leader)
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders").Counts; k.Acked+k.DeadLettered != n {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
	stop()
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Acked == n/2 && k.DeadLettered == n/2 && k.Stored == n })
	wantCounts(t, c, "orders.dead", func(k wire.QueueCounts) bool { return k.Stored == n/2 && k.Ready == n/2 })

	// Browse.
	seen, err := cl.Admin().Peek(bounded(t), "orders.dead", client.PeekOptions{Bodies: true})
	if err != nil || len(seen.Messages) != n/2 {
		t.Fatal(len(seen.Messages), err)
	}
	for _, m := range seen.Messages {
		if m.Content == nil || m.Content.BizID != "order "+string(m.Content.Body) || m.OriginQueue != "orders" || fmt.Sprint(m.OriginOffset) != string(m.Content.Body) {
			t.Errorf("%+v", m)
		}
	}
	// Consume one and look at what it brings.
	got := newReceived()
	stop = consume(t, cl, "orders.dead", func(ctx context.Context, d *client.Delivery) error {
		got.note(d)
		return client.RetryAfter(time.Hour, nil)
	}, client.WithPrefetch(n))
	got.waitFor(t, n/2)
	stop()
	for _, d := range got.all() {
		dead, is := d.DeadLetter()
		limit := client.DeadLetterInfo{Reason: "delivery limit reached", FirstError: "failure 1", LastError: "failure 3", Queue: "orders", Origin: "orders/" + string(d.Body()), Attempts: 3}
		rejected := client.DeadLetterInfo{Reason: "rejected", FirstError: "not an order", LastError: "not an order", Queue: "orders", Origin: "orders/" + string(d.Body()), Attempts: 1}
		if !is || dead != limit && dead != rejected {
			t.Errorf("%s: %+v", d.Body(), dead)
		}
	}
	// Redrive: they wait for an hour there, which keeps nobody from moving them. What
	// was seen before they were handed out names nothing any more.
	waiting, err := cl.Admin().Peek(bounded(t), "orders.dead", client.PeekOptions{State: client.Delayed})
	if err != nil || len(waiting.Messages) != n/2 {
		t.Fatal(len(waiting.Messages), err)
	}
	if states, err := cl.Admin().MoveMessages(bounded(t), "orders.dead", "", seen.Messages[0].Place()); err != nil || states[0] != client.EditChanged {
		t.Fatal(states, err)
	}
	var places []client.Place
	for _, m := range waiting.Messages {
		places = append(places, m.Place())
	}
	states, err := cl.Admin().MoveMessages(bounded(t), "orders.dead", "", places...)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range states {
		if s != client.EditDone {
			t.Errorf("%v: %v", places[i], s)
		}
	}
	again := newReceived()
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		again.note(d)
		if d.Failures() != 0 {
			t.Errorf("%s has failed %d times", d.Body(), d.Failures())
		}
		return nil
	})
	again.waitFor(t, n/2)
	if all := again.all(); len(all) != n/2 || len(again.bodies) != n/2 {
		t.Errorf("%d different messages in %d deliveries", len(again.bodies), len(all))
	}
	wantCounts(t, c, "orders.dead", func(k wire.QueueCounts) bool { return k.Moved == n/2 && k.Ready+k.Delayed == 0 })
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestDeadLetters_WhereTheTargetRefuses_AreParked, and nothing is lost: they can
// be requeued in place.
func TestDeadLetters_WhereTheTargetRefuses_AreParked(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "full", wire.QueueSettings{LengthMax: 1})
	createQueue(t, c, "orders", wire.QueueSettings{DeadLetter: "full"})
	cl := connect(t, c)
	p := producerOf(t, cl, "orders")
	for i := range 3 {
		if _, err := p.Publish(bounded(t), client.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	stop := consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error { return client.DeadLetter(errors.New("bad")) })
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders").Counts; k.Parked != 2 || k.DeadLettered != 1 {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
	stop()
	c.Kill(leader)
	seen, err := cl.Admin().Peek(bounded(t), "orders", client.PeekOptions{State: client.Parked})
	if err != nil || len(seen.Messages) != 2 || seen.Messages[0].Reason != "rejected; dead-letter queue full is full" || seen.Messages[0].LastError != "bad" {
		t.Fatalf("%+v, %v", seen, err)
	}
	for _, m := range seen.Messages {
		if s, err := cl.Admin().RequeueMessages(bounded(t), "orders", m.Place()); err != nil || s[0] != client.EditDone {
			t.Fatal(s, err)
		}
	}
	got := newReceived()
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	})
	got.waitFor(t, 2)
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Parked == 0 })
}
