package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// publishMany publishes n messages, "m0" and on.
func publishMany(t *testing.T, cl *client.Client, queue string, n int) {
	t.Helper()
	ctx := bounded(t)
	p := producerOf(t, cl, queue)
	fs := make([]*client.Future, n)
	for i := range fs {
		fs[i] = p.PublishAsync(ctx, client.Message{Body: fmt.Appendf(nil, "m%d", i)})
	}
	for i, f := range fs {
		if _, err := f.Wait(ctx); err != nil {
			t.Fatalf("publish %d: %v", i, err)
		}
	}
}

// TestAck_AfterTheLeaseExpired_IsRefusedAndTheNewHolderKeepsIt: consumer A hangs
// until its lease has run out, B holds the message, A acks. A is told the truth,
// at the next leader as well, and B's lease and ack are not touched.
func TestAck_AfterTheLeaseExpired_IsRefusedAndTheNewHolderKeepsIt(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady)
	leader := c.WaitLeader()
	// B's is kept alive in real time, on a machine that may have more to do than it can.
	createQueue(t, c, "orders", wire.QueueSettings{LeaseTime: 5 * time.Second})
	s := clustertest.AtLeader(c, (*clustertest.Raw).OpenSession)

	// B came first, so it is given what comes back when neither holds anything;
	// until A has its message B is full. It extends what it holds, as the client
	// library does.
	publishOne(t, c, s, 1, "orders", 1)
	cl := connect(t, c)
	got := newReceived()
	stop := consume(t, cl, "orders", func(_ context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	}, client.WithManualSettle(), client.WithPrefetch(1))
	defer stop()
	got.waitFor(t, 1)
	publishOne(t, c, s, 2, "orders", 2)

	ra := dial(t, leader)
	a := clustertest.NewConsumer()
	must(ra.Attach(a, 1, "orders", 1, 1))(t)
	clustertest.Eventually(t, func() string {
		if len(ra.Deliveries(a, 1)) == 0 {
			return "A has nothing"
		}
		return ""
	})
	if err := got.all()[0].Ack(bounded(t)); err != nil {
		t.Fatal(err)
	}
	got.waitFor(t, 2)
	d := got.all()[1]
	// Until B had room A may have been given the message again.
	attemptsOfA := uint64(d.Attempt() - 1)
	if attemptsOfA == 0 || len(ra.Deliveries(a, 1)) != int(attemptsOfA) {
		t.Fatalf("B has attempt %d, A had %d", d.Attempt(), len(ra.Deliveries(a, 1)))
	}
	clustertest.Eventually(t, func() string {
		lost := uint64(0)
		for _, p := range ra.Pushed() {
			if p.Op == wire.OpLost {
				l := must(wire.DecodeLost(p.Payload))(t)
				if l.Consumer == a && len(l.Lost) == 1 && l.Lost[0].State == wire.LeaseExpired {
					lost++
				}
			}
		}
		if lost != attemptsOfA {
			return fmt.Sprintf("A was told of %d lost leases, it lost %d", lost, attemptsOfA)
		}
		return ""
	})
	refused := func(r *clustertest.Raw) {
		t.Helper()
		ack := must(r.Ack(a, 1, 1, attemptsOfA))(t)
		if ack.Status != wire.StatusOK || len(ack.Results) == 0 {
			t.Fatalf("A's late ack: %+v", ack)
		}
		for _, st := range ack.Results {
			if st.State != wire.LeaseExpired {
				t.Fatalf("A's late ack: %+v", ack)
			}
		}
	}
	refused(ra)
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Acked == 1 && k.Leased == 1 })
	if err := d.Extend(bounded(t), time.Second); err != nil {
		t.Fatalf("B's lease after A's ack: %v", err)
	}
	c.Kill(leader)
	refused(dial(t, c.WaitOtherLeader(leader)))
	if err := d.Ack(bounded(t)); err != nil {
		t.Fatalf("B's ack: %v", err)
	}
	refused(dial(t, c.WaitLeader()))
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool {
		return k.Acked == 2 && k.Delivered == attemptsOfA+2 && k.RedeliveredExpired == attemptsOfA && redelivered(k) == attemptsOfA
	})
	stop()
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestAck_AnsweredThenLeaderKilled_NothingIsRedelivered: what Ack has confirmed
// never comes back, however long one waits after the leader is gone. On a machine
// with more to do a lease of a second runs out before its ack is applied; such an
// ack is refused, confirms nothing, and its message comes again.
func TestAck_AnsweredThenLeaderKilled_NothingIsRedelivered(t *testing.T) {
	t.Parallel()
	eachLogStore(t, func(t *testing.T, o clustertest.Option) {
		const n = 200
		const lease = time.Second
		c := clustertest.New(t, 3, o, clustertest.Steady)
		leader := c.WaitLeader()
		createQueue(t, c, "orders", wire.QueueSettings{LeaseTime: lease})
		cl := connect(t, c)
		publishMany(t, cl, "orders", n)
		var acks sync.WaitGroup
		acks.Add(n)
		var confirmed sync.Map // body -> the id of the delivery whose ack was confirmed
		stop := consume(t, cl, "orders", func(_ context.Context, d *client.Delivery) error {
			body := string(d.Body())
			if id, ok := confirmed.Load(body); ok {
				t.Errorf("%s comes as %s after the ack of %v was confirmed", body, d.ID(), id)
			}
			err := d.Ack(bounded(t))
			if err == nil {
				if id, twice := confirmed.LoadOrStore(body, d.ID()); twice {
					t.Errorf("the acks of %s and %v, of the same message, are both confirmed", d.ID(), id)
				} else {
					acks.Done()
				}
			} else if !errors.Is(err, client.ErrLeaseLost) {
				t.Errorf("ack of %s: %v", d.ID(), err)
			}
			return err
		}, client.WithConcurrency(16))
		defer stop()
		done := make(chan struct{})
		go func() {
			acks.Wait()
			close(done)
		}()
		await(t, "the acks", done)
		before := info(c, "orders").Counts
		if before.Acked != n || before.Ready+before.Leased+before.Delayed != 0 {
			t.Errorf("counts with all acks confirmed: %+v", before)
		}
		c.Kill(leader)
		c.WaitOtherLeader(leader)
		letClusterTimePass(t, c, 2, lease)
		wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k == before })
		stop()
		c.Restart(leader)
		c.WaitCaughtUp()
		c.DigestsAgree()
	})
}

// TestTenThousandLeased_LeaderKilled_NothingIsRedelivered: several consumers
// hold ten thousand messages and live through the death of the leader. They keep
// them all, past the grace time, and their acks count.
func TestTenThousandLeased_LeaderKilled_NothingIsRedelivered(t *testing.T) {
	t.Parallel()
	const n, consumers = 10_000, 4
	c := clustertest.New(t, 3, clustertest.Steady)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	publishMany(t, connect(t, c), "orders", n)
	got := newReceived()
	var stops []func()
	for range consumers {
		stops = append(stops, consume(t, connect(t, c), "orders", func(_ context.Context, d *client.Delivery) error {
			got.note(d)
			return nil
		}, client.WithManualSettle(), client.WithPrefetch(n/consumers), client.WithConcurrency(64)))
	}
	got.waitFor(t, n)
	c.Kill(leader)
	c.WaitOtherLeader(leader)
	// Longer than the grace of ten seconds, in which a consumer that did not come
	// back would be given up.
	letClusterTimePass(t, c, 3, 4*time.Second)
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool {
		return k.Leased == n && k.Delivered == n && redelivered(k) == 0
	})
	ctx := bounded(t)
	var acks sync.WaitGroup
	for _, d := range got.all() {
		acks.Go(func() {
			if err := d.Ack(ctx); err != nil {
				t.Errorf("ack of %s: %v", d.ID(), err)
			}
		})
	}
	acks.Wait()
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool {
		return k.Acked == n && k.Delivered == n && redelivered(k) == 0
	})
	for _, stop := range stops {
		stop()
	}
	got.onceEach(t, n)
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestQuorum_LostAndRegained: the nodes lose each other, not their clients.
// Publishes and acks wait, nothing fails and no lease ends; when the nodes have
// each other again all goes on, without a restart.
func TestQuorum_LostAndRegained(t *testing.T) {
	t.Parallel()
	eachLogStore(t, func(t *testing.T, o clustertest.Option) {
		const n = 200
		c := clustertest.New(t, 3, o, func(c *cluster.Config) { c.PeerTimeout = 2 * time.Second })
		c.WaitLeader()
		createQueue(t, c, "orders", wire.QueueSettings{})
		cl := connect(t, c)
		publishMany(t, cl, "orders", n)
		got := newReceived()
		stop := consume(t, connect(t, c), "orders", func(_ context.Context, d *client.Delivery) error {
			got.note(d)
			return nil
		}, client.WithManualSettle(), client.WithPrefetch(n))
		defer stop()
		got.waitFor(t, n)

		for i := range 3 {
			c.Isolate(c.Node(i))
		}
		clustertest.Eventually(t, func() string {
			if l := c.Leader(); l != nil {
				return l.NodeID + " still leads"
			}
			return ""
		})
		p := producerOf(t, cl, "orders")
		var fs []*client.Future
		for i := range n {
			fs = append(fs, p.PublishAsync(bounded(t), client.Message{Body: fmt.Appendf(nil, "m%d", n+i)}))
		}
		acked := make(chan error, n)
		for _, d := range got.all()[:n] {
			go func() { acked <- d.Ack(bounded(t)) }()
		}
		// A caller that cannot wait is told why within its own deadline.
		hurried := producerOf(t, connect(t, c), "orders")
		wantNoLeader(t, "publish", func(ctx context.Context) error {
			_, err := hurried.Publish(ctx, client.Message{Body: []byte("never sent")})
			return err
		})
		for i, f := range fs {
			select {
			case <-f.Done():
				_, err := f.Wait(bounded(t))
				t.Fatalf("publish %d has an outcome without a quorum: %v", i, err)
			default:
			}
		}
		select {
		case err := <-acked:
			t.Fatalf("an ack was answered without a quorum: %v", err)
		default:
		}

		c.Heal()
		for i, f := range fs {
			if _, err := f.Wait(bounded(t)); err != nil {
				t.Fatalf("publish %d: %v", i, err)
			}
		}
		for range n {
			if err := <-acked; err != nil {
				t.Fatalf("ack: %v", err)
			}
		}
		got.waitFor(t, 2*n)
		for _, d := range got.all()[n:] { // each waits for the log
			if err := d.Ack(bounded(t)); err != nil {
				t.Fatalf("ack: %v", err)
			}
		}
		wantCounts(t, c, "orders", func(k wire.QueueCounts) bool {
			return k.Stored == 2*n && k.Acked == 2*n && k.Delivered == 2*n && redelivered(k) == 0
		})
		stop()
		got.onceEach(t, 2*n)
		c.WaitCaughtUp()
		c.DigestsAgree()
	})
}
