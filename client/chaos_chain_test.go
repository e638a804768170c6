package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand"
	"sync"
	"testing"
	"time"
)

const chainMessages = 300

func chaosChain(t *testing.T, seed int64) {
	n := newFakeNet(t, "n1", "n2", "n3")
	w := newWorld(t, n, seed)
	t.Cleanup(n.stop)
	t.Cleanup(w.close)
	c, err := Dial(t.Context(), n.url(), WithDialer(n.dial), WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, q := range []string{"orders", "second", "third"} {
		length := uint64(0)
		if q == "second" && seed%2 == 0 {
			length = 20 // sometimes full: then nothing is acked either
		}
		if _, err := c.Admin().CreateQueue(t.Context(), q, QueueSettings{LengthMax: length}); err != nil {
			t.Fatal(err)
		}
	}
	var faults sync.WaitGroup
	quiet := make(chan struct{})
	faults.Go(func() {
		rng := rand.New(rand.NewSource(seed))
		for {
			select {
			case <-time.After(time.Duration(rng.Intn(int(500 * time.Millisecond)))):
			case <-quiet:
				return
			}
			if rng.Intn(3) == 0 {
				n.order[rng.Intn(3)].cut()
			} else {
				w.lead(rng.Intn(3))
			}
		}
	})

	consuming, stop := context.WithCancel(t.Context())
	var stages sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	stage := func(from, to string, rng *rand.Rand) {
		stages.Go(func() {
			err := c.Consume(consuming, from, func(ctx context.Context, d *Delivery) error {
				mu.Lock()
				patience := time.Duration(0)
				if rng.Intn(5) == 0 {
					patience = time.Duration(rng.Intn(int(100 * time.Millisecond)))
				}
				mu.Unlock()
				if patience > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, patience)
					defer cancel()
				}
				_, err := c.AckAndPublish(ctx, d, Outgoing{to, body(to + " " + string(d.Body()))})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					counts["confirmed"]++
				case errors.Is(err, ErrOutcomeUnknown):
					counts["unknown"]++
				case errors.Is(err, ErrQueueFull):
					counts["full"]++
				default:
					counts["other"]++
				}
				return err
			}, WithConcurrency(8), WithPrefetch(30))
			if err != nil {
				t.Errorf("consume %s: %v", from, err)
			}
		})
	}
	stage("orders", "second", rand.New(rand.NewSource(seed+1)))
	stage("second", "third", rand.New(rand.NewSource(seed+2)))
	arrived := map[string]int{}
	stages.Go(func() {
		err := c.Consume(consuming, "third", func(ctx context.Context, d *Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			arrived[string(d.Body())]++
			return nil
		})
		if err != nil {
			t.Errorf("consume third: %v", err)
		}
	})
	p := producer(t, c)
	for k := range chainMessages {
		if _, err := p.Publish(t.Context(), body(fmt.Sprint(k))); err != nil {
			t.Fatal(err)
		}
	}
	close(quiet)
	faults.Wait()
	w.settleDown()
	for deadline := time.Now().Add(30 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		mu.Lock()
		done := len(arrived) == chainMessages
		mu.Unlock()
		if done {
			break
		}
	}
	time.Sleep(20 * time.Second) // late copies have come
	stop()
	stages.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for k := range chainMessages {
		if b := fmt.Sprintf("third second %d", k); arrived[b] != 1 {
			t.Errorf("%q arrived %d times", b, arrived[b])
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for b, times := range w.offsets {
		if times != 1 {
			t.Errorf("%q was stored %d times", b, times)
		}
	}
	if left := w.machine.Counts(); left.Messages != 0 || left.Leases != 0 {
		t.Errorf("left in the machine: %+v", left)
	}
	t.Logf("%v, leader changes %d, connections %d", counts, c.Stats().LeaderChanges, c.Stats().Connects)
	if counts["confirmed"] < chainMessages || counts["unknown"] == 0 {
		t.Errorf("%v: the test shows less than it should", counts)
	}
}
