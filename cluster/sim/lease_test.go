package sim

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
	"onceq/fsm"
)

// seen is what handlers were given.
type seen struct {
	mu       sync.Mutex
	bodies   map[string]int
	attempts map[int]int
}

func newSeen() *seen { return &seen{bodies: make(map[string]int), attempts: make(map[int]int)} }

func (s *seen) note(d *client.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies[string(d.Body())]++
	s.attempts[d.Attempt()]++
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bodies)
}

func (s *seen) attempt(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts[n]
}

// until waits, in virtual time, until f holds.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for start := time.Now(); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > time.Hour {
			t.Fatalf("an hour of virtual time: %s", what)
		}
	}
}

func publishN(t *testing.T, c *client.Client, queue string, n int) {
	t.Helper()
	ctx := context.Background()
	p, err := c.NewProducer(queue)
	if err != nil {
		t.Fatal(err)
	}
	var fs []*client.Future
	for i := range n {
		fs = append(fs, p.PublishAsync(ctx, client.Message{Body: fmt.Appendf(nil, "m%d", i)}))
	}
	for _, f := range fs {
		if _, err := f.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func counts(t *testing.T, c *client.Client, queue string) client.QueueCounts {
	t.Helper()
	q, err := c.Admin().Queue(context.Background(), queue)
	if err != nil {
		t.Fatal(err)
	}
	return q.Counts
}

func create(t *testing.T, c *client.Client, queue string, s client.QueueSettings) {
	t.Helper()
	if _, err := c.Admin().CreateQueue(context.Background(), queue, s); err != nil {
		t.Fatal(err)
	}
}

// TestThousandsLeased_LeaderDies_NothingIsRedelivered: whatever a living
// consumer holds it keeps over a failover, and its leases last.
func TestThousandsLeased_LeaderDies_NothingIsRedelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		w := New(t, 3)
		defer w.Close()
		c := w.Dial("c1")
		defer c.Close()
		create(t, c, "orders", client.QueueSettings{})
		publishN(t, c, "orders", n)
		s := newSeen()
		ctx, cancel := context.WithCancel(context.Background())
		hold := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- c.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
				s.note(d)
				<-hold
				return nil
			}, client.WithPrefetch(n), client.WithConcurrency(16))
		}()
		until(t, "all leased", func() bool { return counts(t, c, "orders").Leased == n })
		old := w.Leader()
		w.Kill(old)
		w.Leader(old)
		// Two lease times and the grace pass.
		time.Sleep(2*fsm.LeaseTimeDefault + fsm.GraceTime)
		close(hold)
		until(t, "all acked", func() bool { return counts(t, c, "orders").Acked == n })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if k := counts(t, c, "orders"); k.Delivered != n || k.RedeliveredExpired+k.RedeliveredGone+k.RedeliveredNacked+k.RedeliveredLeft != 0 {
			t.Errorf("counts %+v", k)
		}
		if s.attempt(1) != n || s.count() != n {
			t.Errorf("handled %d, attempts %v", s.count(), s.attempts)
		}
		w.Start(old)
		w.CaughtUp()
		w.DigestsAgree(c)
	})
}

// TestDeadConsumer_ItsWorkGoesToAnotherAfterTheGrace: a consumer whose host
// falls silent is detached, and what it holds comes back as a second attempt.
func TestDeadConsumer_ItsWorkGoesToAnotherAfterTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, 3)
		defer w.Close()
		dying, living := w.Dial("c1"), w.Dial("c2")
		defer living.Close()
		// A lease far longer than the grace: it is the detach that counts.
		create(t, living, "orders", client.QueueSettings{LeaseTime: time.Hour})
		publishN(t, living, "orders", 20)
		ctx, cancel := context.WithCancel(context.Background())
		first, second := newSeen(), newSeen()
		gone := make(chan error, 1)
		go func() {
			gone <- dying.Consume(ctx, "orders", func(ctx context.Context, d *client.Delivery) error {
				first.note(d)
				<-ctx.Done()
				return ctx.Err()
			}, client.WithPrefetch(20), client.WithConcurrency(20))
		}()
		until(t, "the first holds all", func() bool { return first.count() == 20 })
		done := make(chan error, 1)
		go func() {
			done <- living.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
				second.note(d)
				return nil
			})
		}()
		w.Net.Isolate("c1")
		start := time.Now()
		until(t, "the second has all", func() bool { return second.count() == 20 })
		if took := time.Since(start); took < fsm.GraceTime {
			t.Errorf("redelivered after %v, the grace is %v", took, fsm.GraceTime)
		}
		if second.attempt(2) != 20 {
			t.Errorf("attempts %v, want the second for each", second.attempts)
		}
		until(t, "all acked", func() bool { return counts(t, living, "orders").Acked == 20 })
		cancel()
		<-done
		dying.Close()
		<-gone
		if k := counts(t, living, "orders"); k.RedeliveredGone != 20 || k.RedeliveredExpired != 0 {
			t.Errorf("counts %+v", k)
		}
		w.DigestsAgree(living)
	})
}

// TestRollingRestart_NothingIsRedelivered: every node in turn ends in order and
// comes back, under work.
func TestRollingRestart_NothingIsRedelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, 3)
		defer w.Close()
		c := w.Dial("c1")
		defer c.Close()
		create(t, c, "orders", client.QueueSettings{})
		ctx, cancel := context.WithCancel(context.Background())
		s := newSeen()
		done := make(chan error, 1)
		go func() {
			done <- c.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
				s.note(d)
				time.Sleep(50 * time.Millisecond)
				return nil
			}, client.WithConcurrency(4))
		}()
		published := make(chan int, 1)
		stop := make(chan struct{})
		var slowest time.Duration
		go func() {
			n := 0
			p, err := c.NewProducer("orders")
			if err != nil {
				t.Error(err)
			}
			for {
				select {
				case <-stop:
					published <- n
					return
				default:
				}
				begin := time.Now()
				if _, err := p.Publish(ctx, client.Message{Body: fmt.Appendf(nil, "m%d", n)}); err != nil {
					t.Error(err)
				}
				slowest = max(slowest, time.Since(begin))
				n++
				time.Sleep(30 * time.Millisecond)
			}
		}()
		for range 2 {
			for _, n := range w.Nodes {
				time.Sleep(time.Second)
				w.Stop(n)
				w.Leader()
				time.Sleep(time.Second)
				w.Start(n)
				w.CaughtUp()
			}
		}
		close(stop)
		n := <-published
		until(t, "all acked", func() bool { return counts(t, c, "orders").Acked == uint64(n) })
		cancel()
		<-done
		if k := counts(t, c, "orders"); k.Delivered != uint64(n) || k.Stored != uint64(n) {
			t.Errorf("%d published, counts %+v", n, k)
		}
		if s.attempt(1) != n {
			t.Errorf("attempts %v of %d", s.attempts, n)
		}
		t.Logf("%d messages, the slowest publish took %v of virtual time", n, slowest)
		w.DigestsAgree(c)
	})
}

// TestDelay_FailoversDoNotStarveIt: cluster time goes on over leaders that die
// often, so a nack's delay ends.
func TestDelay_FailoversDoNotStarveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 5 * time.Minute
		w := New(t, 3)
		defer w.Close()
		c := w.Dial("c1")
		defer c.Close()
		create(t, c, "orders", client.QueueSettings{})
		publishN(t, c, "orders", 1)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var mu sync.Mutex
		var at []time.Time
		done := make(chan error, 1)
		go func() {
			done <- c.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				at = append(at, time.Now())
				if len(at) == 1 {
					return client.RetryAfter(delay, fmt.Errorf("later"))
				}
				return nil
			})
		}()
		handled := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(at)
		}
		until(t, "the first attempt", func() bool { return handled() == 1 })
		failovers := 0
		for handled() < 2 && failovers < 100 {
			leader := w.Leader()
			time.Sleep(20 * time.Second)
			w.Kill(leader)
			w.Leader(leader)
			w.Start(leader)
			failovers++
		}
		if handled() < 2 {
			t.Fatalf("not redelivered after %d failovers", failovers)
		}
		if took := at[1].Sub(at[0]); took < delay {
			t.Errorf("redelivered after %v, the delay is %v", took, delay)
		} else {
			t.Logf("a delay of %v took %v with %d failovers", delay, took, failovers)
		}
		cancel()
		<-done
	})
}
