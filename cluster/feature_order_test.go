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

// TestOrderingKey_StrictAcrossNacksAndALeaderKill: of each of 50 keys one message
// at a time, in order, whatever is given back and whoever leads; and no key holds
// up another.
func TestOrderingKey_StrictAcrossNacksAndALeaderKill(t *testing.T) {
	t.Parallel()
	const keys, each = 50, 12
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond})
	cl := connect(t, c)

	var mu sync.Mutex
	next, busy, nacked, done := map[string]int{}, map[string]bool{}, 0, 0
	half, all := make(chan struct{}), make(chan struct{})
	handler := func(ctx context.Context, d *client.Delivery) error {
		var k, n int
		if _, err := fmt.Sscanf(string(d.Body()), "%d %d", &k, &n); err != nil {
			t.Error(err)
		}
		key := d.OrderingKey()
		mu.Lock()
		if busy[key] {
			t.Errorf("%s: %d is handed out while another is being handled", key, n)
		}
		if next[key] != n {
			t.Errorf("%s: %d is handed out, expected %d", key, n, next[key])
		}
		busy[key] = true
		mu.Unlock()
		pause := time.NewTimer(time.Millisecond)
		<-pause.C
		mu.Lock()
		defer mu.Unlock()
		busy[key] = false
		if (k+n)%5 == 0 && d.Failures() < 2 {
			nacked++
			return errors.New("not yet")
		}
		next[key]++
		if done++; done == keys*each/2 {
			close(half)
		}
		if done == keys*each {
			close(all)
		}
		return nil
	}
	for range 3 {
		consume(t, cl, "orders", handler, client.WithConcurrency(8), client.WithPrefetch(40))
	}
	p := producerOf(t, cl, "orders")
	var futures []*client.Future
	for n := range each {
		for k := range keys {
			m := client.Message{Body: fmt.Appendf(nil, "%d %d", k, n), OrderingKey: fmt.Sprint("key ", k)}
			futures = append(futures, p.PublishAsync(bounded(t), m))
		}
	}
	await(t, "half of the messages", half)
	c.Kill(leader)
	for _, f := range futures {
		if _, err := f.Wait(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "all messages", all)
	mu.Lock()
	if nacked == 0 {
		t.Error("nothing was given back")
	}
	for key, n := range next {
		if n != each {
			t.Errorf("%s: %d of %d", key, n, each)
		}
	}
	mu.Unlock()
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders").Counts; k.Acked != keys*each {
			return fmt.Sprintf("counts %+v", k)
		}
		return ""
	})
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestPriority_HighestFirst_AlsoAfterALeaderKill: strict between priorities, in
// storing order within each.
func TestPriority_HighestFirst_AlsoAfterALeaderKill(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	if _, err := cl.Admin().PauseQueue(bounded(t), "orders"); err != nil {
		t.Fatal(err)
	}
	p := producerOf(t, cl, "orders")
	publish := func(n int) {
		t.Helper()
		for _, priority := range []int{3, 0, 9, 3, 0, 9} {
			m := client.Message{Body: fmt.Appendf(nil, "%d.%d", priority, n), Priority: priority}
			n++
			if r, err := p.Publish(bounded(t), m); err != nil || int(r.Message.Lane) != priority {
				t.Fatal(r, err)
			}
		}
	}
	publish(10)
	c.Kill(leader)
	publish(20)
	got := newReceived()
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	}, client.WithPrefetch(1))
	if _, err := cl.Admin().ResumeQueue(bounded(t), "orders"); err != nil {
		t.Fatal(err)
	}
	got.waitFor(t, 12)
	text := ""
	for _, d := range got.all() {
		text += string(d.Body()) + " "
	}
	if want := "9.12 9.15 9.22 9.25 3.10 3.13 3.20 3.23 0.11 0.14 0.21 0.24 "; text != want {
		t.Fatalf("handed out %s, want %s", text, want)
	}
	got.onceEach(t, 12)
}

// TestPause_NothingIsHandedOut_AlsoAfterALeaderKill.
func TestPause_NothingIsHandedOut_AlsoAfterALeaderKill(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	if q, err := cl.Admin().PauseQueue(bounded(t), "orders"); err != nil || !q.Paused {
		t.Fatal(q, err)
	}
	got := newReceived()
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	})
	p := producerOf(t, cl, "orders")
	for n := range 10 {
		if n == 5 {
			c.Kill(leader)
		}
		if _, err := p.Publish(bounded(t), client.Message{Body: fmt.Append(nil, n)}); err != nil {
			t.Fatal(err)
		}
	}
	clustertest.Eventually(t, func() string { // the consumer has come back to the next leader
		if q := info(c, "orders"); q.Consumers != 1 {
			return "no consumer"
		}
		return ""
	})
	if q := info(c, "orders"); !q.Paused || q.Counts.Delivered != 0 || q.Counts.Ready != 10 {
		t.Fatalf("%+v", q)
	}
	for range 2 { // the second has nothing to do
		if q, err := cl.Admin().ResumeQueue(bounded(t), "orders"); err != nil || q.Paused {
			t.Fatal(q, err)
		}
	}
	got.waitFor(t, 10)
	got.onceEach(t, 10)
}

// TestSingleActive_TheNextTakesOverWhenTheFirstHasGone, and not because the leader
// has.
func TestSingleActive_TheNextTakesOverWhenTheFirstHasGone(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{SingleActive: true})
	cl, other := connect(t, c), connect(t, c)
	first, second := newReceived(), newReceived()
	note := func(r *received) client.Handler {
		return func(ctx context.Context, d *client.Delivery) error {
			r.note(d)
			return nil
		}
	}
	attached := func(n uint64) {
		t.Helper()
		clustertest.Eventually(t, func() string {
			if q := info(c, "orders"); q.Consumers != n {
				return fmt.Sprintf("%d of %d consumers", q.Consumers, n)
			}
			return ""
		})
	}
	stop := consume(t, cl, "orders", note(first))
	attached(1)
	consume(t, other, "orders", note(second))
	attached(2)
	p := producerOf(t, cl, "orders")
	publish := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			if _, err := p.Publish(bounded(t), client.Message{Body: fmt.Append(nil, n)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(0, 20)
	first.waitFor(t, 20)
	c.Kill(leader)
	publish(20, 40)
	first.waitFor(t, 40)
	if n := len(second.all()); n != 0 {
		t.Fatalf("the second consumer was handed %d messages while the first lives", n)
	}
	stop()
	publish(40, 60)
	second.waitFor(t, 20)
	first.onceEach(t, 40)
	second.onceEach(t, 20)
}
