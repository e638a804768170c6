package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// eachLogStore runs f with the raft log in either store.
func eachLogStore(t *testing.T, f func(t *testing.T, o clustertest.Option)) {
	for _, kind := range []string{"wal", "boltdb"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f(t, func(c *cluster.Config) { c.LogStore = kind })
		})
	}
}

// bounded is the context of what must happen.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), clustertest.Bound)
	t.Cleanup(cancel)
	return ctx
}

// wantNoLeader makes a call with a deadline of its own again and again, until its
// client has heard that nobody leads and the call says so. It ends with that
// deadline each time, and never with an outcome.
func wantNoLeader(t *testing.T, what string, call func(context.Context) error) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		ctx, cancel := context.WithTimeout(bounded(t), 300*time.Millisecond)
		defer cancel()
		err := call(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrOutcomeUnknown) {
			t.Fatalf("%s without a leader: %v", what, err)
		}
		if !errors.Is(err, client.ErrNoLeader) || !strings.Contains(err.Error(), "ONCEQ-1003") {
			return fmt.Sprintf("%s: %v", what, err)
		}
		return ""
	})
}

// connect makes a client that ends with the test.
func connect(t *testing.T, c *clustertest.Cluster, opts ...client.Option) *client.Client {
	t.Helper()
	cl, err := client.Dial(bounded(t), c.URL(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func producerOf(t *testing.T, cl *client.Client, queue string) *client.Producer {
	t.Helper()
	p, err := cl.NewProducer(queue)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func createQueue(t *testing.T, c *clustertest.Cluster, queue string, s wire.QueueSettings) {
	t.Helper()
	q := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.QueueReply, error) { return r.CreateQueue(queue, s) })
	if q.Status != wire.StatusOK {
		t.Fatalf("create %s: %v", queue, q.Status)
	}
}

// lateCopy hands the leader a publish frame that a client had sent before, byte
// for byte.
func lateCopy(t *testing.T, c *clustertest.Cluster, payload []byte) wire.PublishResult {
	t.Helper()
	p := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.PublishReply, error) {
		ctx, cancel := context.WithTimeout(context.Background(), clustertest.Bound)
		defer cancel()
		_, reply, err := r.Call(ctx, wire.OpPublish, payload)
		if err != nil {
			return wire.PublishReply{}, err
		}
		return wire.DecodePublishReply(reply)
	})
	if len(p.Results) != 1 {
		t.Fatalf("late copy: %+v", p)
	}
	return p.Results[0]
}

// wantCounts compares what the leader says of a queue with what must hold.
func wantCounts(t *testing.T, c *clustertest.Cluster, queue string, holds func(k wire.QueueCounts) bool) {
	t.Helper()
	if k := info(c, queue).Counts; !holds(k) {
		t.Errorf("counts of %s: %+v", queue, k)
	}
}

// redelivered is how often messages became ready again, for any reason.
func redelivered(k wire.QueueCounts) uint64 {
	return k.RedeliveredExpired + k.RedeliveredGone + k.RedeliveredLeft + k.RedeliveredNacked
}

// received keeps what handlers were given.
type received struct {
	mu       sync.Mutex
	bodies   map[string]int
	attempts map[int]int
	held     []*client.Delivery
}

func newReceived() *received {
	return &received{bodies: make(map[string]int), attempts: make(map[int]int)}
}

func (r *received) note(d *client.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies[string(d.Body())]++
	r.attempts[d.Attempt()]++
	r.held = append(r.held, d)
}

func (r *received) all() []*client.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*client.Delivery(nil), r.held...)
}

// waitFor waits until n deliveries were handed out.
func (r *received) waitFor(t *testing.T, n int) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		if got := len(r.all()); got < n {
			return fmt.Sprintf("%d of %d deliveries", got, n)
		}
		return ""
	})
}

// waitSettled waits until no message of a queue is to be handed out or held. The end of
// a consumer waits for its acks as well, but not as long as a starved machine may take
// for so many.
func waitSettled(t *testing.T, c *clustertest.Cluster, queue string) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		if k := info(c, queue).Counts; k.Ready+k.Leased > 0 {
			return fmt.Sprintf("counts of %s: %+v", queue, k)
		}
		return ""
	})
}

// onceEach says that every one of n messages was handed out once, as its first
// attempt.
func (r *received) onceEach(t *testing.T, n int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bodies) != n || len(r.held) != n || r.attempts[1] != n {
		t.Errorf("%d different messages in %d deliveries, attempts %v; want %d once", len(r.bodies), len(r.held), r.attempts, n)
	}
}

// consume runs Consume until the test ends or stop is called, which waits for
// it.
func consume(t *testing.T, cl *client.Client, queue string, h client.Handler, opts ...client.ConsumeOption) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cl.Consume(ctx, queue, h, opts...) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, client.ErrClosed) {
				t.Errorf("consume %s: %v", queue, err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// letClusterTimePass returns when n lease times of d have passed by the clock
// that leases live by: a message on a queue of its own is held by a consumer
// that does nothing, and has been taken from it n times.
func letClusterTimePass(t *testing.T, c *clustertest.Cluster, n int, d time.Duration) {
	t.Helper()
	queue := "clock-" + fmt.Sprintf("%x", clustertest.NewNonce())[:8]
	createQueue(t, c, queue, wire.QueueSettings{LeaseTime: d})
	s := clustertest.AtLeader(c, (*clustertest.Raw).OpenSession)
	if p := publishOne(t, c, s, 1, queue, 1); p.Status != wire.StatusOK {
		t.Fatalf("publish: %+v", p)
	}
	r := dial(t, c.WaitLeader())
	// It never says what it is done with, so its credit bounds how often.
	if a := must(r.Attach(clustertest.NewConsumer(), 1, queue, uint32(n), 1))(t); a.Status != wire.StatusOK {
		t.Fatalf("attach: %v", a.Status)
	}
	clustertest.Eventually(t, func() string {
		q, err := r.Queue(queue)
		if err != nil {
			t.Fatalf("the leader changed while the test waits: %v", err)
		}
		if q.Info.Counts.RedeliveredExpired < uint64(n) {
			return fmt.Sprintf("%d of %d lease times have passed", q.Info.Counts.RedeliveredExpired, n)
		}
		return ""
	})
}
