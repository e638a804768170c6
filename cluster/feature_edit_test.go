package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

func isNoQueue(err error) bool { return errors.Is(err, client.ErrNoQueue) }

// TestEdits_ReplyLost_HappenOnce: the answer and the connection are lost after
// each kind of edit was done; asked again it gets the same answer.
func TestEdits_ReplyLost_HappenOnce(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	createQueue(t, c, "later", wire.QueueSettings{})
	proxy := clustertest.NewProxy(t)
	cl := connect(t, c, client.WithDialer(proxy.Dial))
	p := producerOf(t, cl, "orders")
	for i := range 6 {
		m := client.Message{Body: fmt.Append(nil, i)}
		if i == 5 {
			m.Delay = time.Hour
		}
		if _, err := p.Publish(bounded(t), m); err != nil {
			t.Fatal(err)
		}
	}
	admin := cl.Admin()
	at := func(offsets ...uint64) (ps []client.Place) {
		for _, o := range offsets {
			ps = append(ps, client.Place{Offset: o})
		}
		return ps
	}
	losing := func(op wire.Op, do func()) {
		t.Helper()
		rule, lost := once(op, clustertest.Cut)
		proxy.OnAnswer(rule)
		do()
		await(t, "the lost answer", lost)
	}
	edit := func(want client.EditState, do func() ([]client.EditState, error)) {
		t.Helper()
		losing(wire.OpEdit, func() {
			states, err := do()
			if err != nil || len(states) != 1 || states[0] != want {
				t.Fatalf("%v, %v, want %v", states, err, want)
			}
		})
	}
	edit(client.EditDone, func() ([]client.EditState, error) { return admin.DeleteMessages(bounded(t), "orders", at(1)...) })
	edit(client.EditDone, func() ([]client.EditState, error) { return admin.MoveMessages(bounded(t), "orders", "later", at(2)...) })
	c.Kill(leader)
	edit(client.EditDone, func() ([]client.EditState, error) { return admin.RequeueMessages(bounded(t), "orders", at(5)...) })
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Deleted == 1 && k.Moved == 1 && k.Ready == 4 && k.Delayed == 0 })
	wantCounts(t, c, "later", func(k wire.QueueCounts) bool { return k.Stored == 1 && k.Ready == 1 })

	// Settings and pauses.
	before := info(c, "orders")
	losing(wire.OpQueueUpdate, func() {
		q, err := admin.UpdateQueue(bounded(t), "orders", func(s *client.QueueSettings) { s.LengthMax = 77 })
		if err != nil || q.Settings.LengthMax != 77 || q.Revision != before.Revision+1 {
			t.Fatal(q, err)
		}
	})
	losing(wire.OpQueuePause, func() {
		if q, err := admin.PauseQueue(bounded(t), "orders"); err != nil || !q.Paused {
			t.Fatal(q, err)
		}
	})
	losing(wire.OpQueuePause, func() {
		if q, err := admin.ResumeQueue(bounded(t), "orders"); err != nil || q.Paused {
			t.Fatal(q, err)
		}
	})

	// Reject, and a release from under a handler.
	var rejected error
	held := make(chan *client.Delivery, 10)
	done, over := make(chan struct{}), make(chan struct{})
	losing(wire.OpSettle, func() {
		consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
			if string(d.Body()) == "0" {
				rejected = d.Reject(ctx, "bad")
				close(done)
				return nil
			}
			held <- d
			select {
			case <-ctx.Done():
			case <-over:
			}
			return nil
		}, client.WithPrefetch(2))
		t.Cleanup(func() { close(over) }) // runs before the consumer is stopped
		await(t, "the reject", done)
	})
	if rejected != nil {
		t.Error(rejected)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Parked == 1 })
	d := await(t, "a message that is held", held)
	losing(wire.OpEdit, func() {
		m, err := admin.Message(bounded(t), "orders", client.Place{Lane: d.ID().Lane, Offset: d.ID().Offset})
		if err != nil {
			t.Fatal(err)
		}
		states, err := admin.ReleaseMessages(bounded(t), "orders", m.Place())
		if err != nil || states[0] != client.EditDone {
			t.Fatal(states, err)
		}
	})
	if err := d.Ack(bounded(t)); !errors.Is(err, client.ErrLeaseLost) {
		t.Errorf("ack after the release: %v", err)
	}
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestLook_AtEveryState_TouchesNothing: the answers are the same at the next
// leader.
func TestLook_AtEveryState_TouchesNothing(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	admin := cl.Admin()
	p := producerOf(t, cl, "orders")
	publish := func(m client.Message) {
		t.Helper()
		if _, err := p.Publish(bounded(t), m); err != nil {
			t.Fatal(err)
		}
	}
	held := make(chan *client.Delivery, 10)
	publish(client.Message{Body: []byte("parked")})
	publish(client.Message{Body: []byte("held"), OrderingKey: "k"})
	release := make(chan struct{})
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error {
		if string(d.Body()) == "parked" {
			return client.DeadLetter(errors.New("bad"))
		}
		held <- d
		<-release
		return nil
	}, client.WithPrefetch(1), client.WithConsumerLabel("worker-3"))
	t.Cleanup(func() { close(release) }) // runs before the consumer is stopped
	await(t, "the second message", held)
	publish(client.Message{Body: []byte("behind"), OrderingKey: "k"})
	publish(client.Message{Body: []byte("delayed"), Delay: time.Hour})
	publish(client.Message{Body: []byte("ready"), TTL: time.Hour})
	look := func() {
		t.Helper()
		for state, want := range map[client.MessageState]string{
			client.Ready: "ready", client.Blocked: "behind", client.Delayed: "delayed", client.Leased: "held", client.Parked: "parked",
		} {
			seen, err := admin.Peek(bounded(t), "orders", client.PeekOptions{State: state, Bodies: true})
			if err != nil || len(seen.Messages) != 1 || seen.More || seen.Messages[0].Content == nil || string(seen.Messages[0].Content.Body) != want {
				t.Fatalf("%v: %+v, %v", state, seen, err)
			}
			m := seen.Messages[0]
			one, err := admin.Message(bounded(t), "orders", m.Place())
			if err != nil || one.State != state || string(one.Content.Body) != want {
				t.Fatalf("%v: %+v, %v", state, one, err)
			}
			switch state {
			case client.Leased:
				if m.Label != "worker-3" || m.OrderingKey != "k" || m.Attempts != 1 {
					t.Errorf("%+v", m)
				}
			case client.Parked:
				if m.Reason != "rejected" || m.LastError != "bad" || len(m.Events) == 0 {
					t.Errorf("%+v", m)
				}
			case client.Ready:
				if m.Expires <= 0 {
					t.Errorf("%+v", m)
				}
			}
		}
		consumers, err := admin.Consumers(bounded(t), "orders", 0, 100)
		if err != nil || len(consumers) != 1 || consumers[0].Label != "worker-3" || consumers[0].Held != 1 {
			t.Fatalf("%+v, %v", consumers, err)
		}
		if _, err := admin.Message(bounded(t), "orders", client.Place{Offset: 99}); !errors.Is(err, client.ErrNoMessage) {
			t.Error(err)
		}
		if _, err := admin.Peek(bounded(t), "none", client.PeekOptions{}); !isNoQueue(err) {
			t.Error(err)
		}
	}
	look()
	before := info(c, "orders").Counts
	c.Kill(leader)
	look()
	if after := info(c, "orders").Counts; after != before {
		t.Errorf("counts %+v, before %+v", after, before)
	}
}

// TestPeek_ManyLargeBodies_ComeInPages: one answer stays within a frame.
func TestPeek_ManyLargeBodies_ComeInPages(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	p := producerOf(t, cl, "orders")
	const n = 20
	var futures []*client.Future
	for i := range n {
		futures = append(futures, p.PublishAsync(bounded(t), client.Message{Body: make([]byte, 900<<10), BizID: fmt.Sprint(i), Priority: i % 2}))
	}
	for _, f := range futures {
		if _, err := f.Wait(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	o := client.PeekOptions{Bodies: true}
	pages, seen := 0, map[string]bool{}
	for more := true; more; {
		page, err := cl.Admin().Peek(bounded(t), "orders", o)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, m := range page.Messages {
			if m.Content == nil || seen[m.Content.BizID] {
				t.Fatalf("%s comes twice, or without its body", m.ID())
			}
			seen[m.Content.BizID] = true
		}
		more, o.From = page.More, page.Next
	}
	if pages < 4 || len(seen) != n {
		t.Fatalf("%d messages in %d pages", len(seen), pages)
	}
}

// TestSessions_ListedAndEnded: a producer whose session was ended by command is
// refused; nothing is stored for it under the old one.
func TestSessions_ListedAndEnded(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	proxy := clustertest.NewProxy(t)
	cl := connect(t, c, client.WithDialer(proxy.Dial))
	p, err := cl.NewProducer("orders", client.WithName("svc"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Publish(bounded(t), client.Message{Body: []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	c.Kill(leader)
	found, err := cl.Admin().Sessions(bounded(t), 1, 100)
	if err != nil || len(found) != 1 || found[0].Name != "svc" || found[0].Session != r.ID.Session {
		t.Fatalf("%+v, %v", found, err)
	}
	rule, lost := once(wire.OpCloseSession, clustertest.Cut)
	proxy.OnAnswer(rule)
	if err := cl.Admin().EndSession(bounded(t), found[0]); err != nil {
		t.Fatal(err)
	}
	await(t, "the lost answer", lost)
	if _, err := cl.Admin().Session(bounded(t), r.ID.Session.Number); !errors.Is(err, client.ErrNoSession) {
		t.Fatal(err)
	}
	if o, err := cl.Outcome(bounded(t), r.ID); err != nil || o.State != client.Unknown {
		t.Fatalf("outcome %+v, %v", o, err)
	}
}
