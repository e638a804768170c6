package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
	"onceq/jepsen/raw"
)

// World is what a workload gets.
type World struct {
	H     *history.Writer
	Run   string   // what all ids start with
	Addrs []string // of the nodes
	URL   string
	Dial  func(client string) raw.Dialer // the way of a client through the proxy
	Seed  uint64
	Rate  int // publishes a second, all producers together
	// Numbers: queues are deleted and created again, so places need their number.
	Numbers bool
	// Draining is closed when nothing is broken any more and the queues are to be
	// emptied. Then no consumer comes or goes: after a change of the leader each new
	// connection keeps the leases of dead consumers for longer, for a minute at most,
	// since it may be one of theirs.
	Draining chan struct{}
	// Virtual: time is that of a bubble, which stands still for ever when something in it
	// waits for what is outside: a listener of the system, a process.
	Virtual bool
	// Report is told of errors that no history has a place for.
	Report func(format string, args ...any)

	Count Counters
}

// Counters are for the progress on the terminal.
type Counters struct {
	Published, Unknown, Refused atomic.Int64
	Delivered, Acked, Lost      atomic.Int64
}

// Workload is one kind of traffic.
type Workload struct {
	Name string
	What string
	// Queues are created before it starts.
	Queues map[string]client.QueueSettings
	// Numbers: its queues are deleted and created again, so that a place is told with
	// the queue's number.
	Numbers bool
	// Newest: it needs what came after the first version of the machine.
	Newest bool
	// Apart: it starts processes, or works on those of the nodes, so there is none of it
	// in virtual time.
	Apart bool
	// Setup adds to the first line of the history; seconds is how long it will run.
	Setup func(s *history.Setup, seconds float64)
	// Start starts the traffic.
	Start func(ctx context.Context, w *World) *Traffic
}

// Traffic is a workload that runs.
type Traffic struct {
	producing context.CancelFunc
	consuming context.CancelFunc
	producers sync.WaitGroup
	consumers sync.WaitGroup
}

// newTraffic returns traffic that begins, and the contexts of its producers and of
// its consumers: these go on when ctx has ended, until Stop.
func newTraffic(ctx context.Context) (t *Traffic, producing, consuming context.Context) {
	t = &Traffic{}
	producing, t.producing = context.WithCancel(ctx)
	consuming, t.consuming = context.WithCancel(context.WithoutCancel(ctx))
	return t, producing, consuming
}

// StopProducing ends the producers and waits until all their publishes have an
// outcome, known or not.
func (t *Traffic) StopProducing() {
	t.producing()
	t.producers.Wait()
}

// Stop ends everything and waits for it.
func (t *Traffic) Stop() {
	t.StopProducing()
	t.consuming()
	t.consumers.Wait()
}

// All are the workloads there are.
func All() []Workload {
	return []Workload{queue(), dedup(), lease(), order(), delay(), chain(), cancel(), resume(), admin(), members(), backups(), outbox(), stall(), stallLong(), deadletter(), pull(), fence(), expiry(), redrive()}
}

// Find finds a workload by its name.
func Find(name string) (Workload, bool) {
	all := All()
	i := slices.IndexFunc(all, func(w Workload) bool { return w.Name == name })
	if i < 0 {
		return Workload{}, false
	}
	return all[i], true
}

// rng gives each process its own chance, from the seed of the run.
func (w *World) rng(name string) *rand.Rand {
	h := uint64(14695981039346656037)
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(w.Seed, h))
}

// between is a random time.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}

// pause waits, false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect makes a client, and tries until it can.
func (w *World) connect(ctx context.Context, name string) *client.Client {
	for {
		trying, cancel := context.WithTimeout(ctx, 5*time.Second)
		c, err := client.Dial(trying, w.URL, client.WithDialer(w.Dial(name)), client.WithLabel(name))
		cancel()
		if err == nil {
			return c
		}
		if !pause(ctx, 200*time.Millisecond) {
			return nil
		}
	}
}

// published writes what became of a publish.
func (w *World) published(op history.Event, r client.Receipt, err error) {
	unknown := (*client.OutcomeUnknownError)(nil)
	switch {
	case err == nil:
		op.Seq, op.Dup, op.Copies, op.Inner = r.Message.Offset, r.Duplicate, r.Attempts, r.ID.Short()
		op.Lane = int(r.Message.Lane)
		if w.Numbers {
			op.Number = r.Message.QueueNumber
		}
		w.Count.Published.Add(1)
		w.H.Complete(op, history.OK)
	case errors.As(err, &unknown):
		op.Err, op.Inner = err.Error(), unknown.ID.Short()
		w.Count.Unknown.Add(1)
		w.H.Complete(op, history.Info)
	case errors.Is(err, client.ErrNotStored):
		op.Err = "sealed"
		w.Count.Refused.Add(1)
		w.H.Complete(op, history.Fail)
	default:
		op.Err = err.Error()
		w.Count.Refused.Add(1)
		w.H.Complete(op, history.Fail)
	}
}

// id makes the id of a producer's message.
func (w *World) id(producer string, n int) string { return fmt.Sprintf("%s-%s-%d", w.Run, producer, n) }
