package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestChaos runs producers and consumers against the real machine while requests,
// replies, connections and leaders are lost and late copies arrive, and audits
// every publish and every handling by its id. ONCEQ_SEEDS=7 or 1-500 chooses what
// is run.
func TestChaos(t *testing.T) { chaosSeeds(t, chaos) }

// TestChaos_Chain is a chain of three queues under the same faults: each message
// reaches the end exactly once.
func TestChaos_Chain(t *testing.T) { chaosSeeds(t, chaosChain) }

func chaosSeeds(t *testing.T, run func(t *testing.T, seed int64)) {
	from, to := int64(1), int64(8)
	if s := os.Getenv("ONCEQ_SEEDS"); s != "" {
		a, b, many := strings.Cut(s, "-")
		if !many {
			b = a
		}
		var err1, err2 error
		from, err1 = strconv.ParseInt(a, 10, 64)
		to, err2 = strconv.ParseInt(b, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	}
	for seed := from; seed <= to; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, seed) })
		})
	}
}

const (
	chaosProducers = 3
	chaosMessages  = 400 // of each producer
	chaosLength    = 300 // of the queue: sometimes full
)

func chaos(t *testing.T, seed int64) {
	n := newFakeNet(t, "n1", "n2", "n3")
	w := newWorld(t, n, seed)
	t.Cleanup(n.stop)
	t.Cleanup(w.close)
	c, err := Dial(t.Context(), n.url(), WithDialer(n.dial), WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	length := uint64(0)
	if seed%2 == 0 {
		length = chaosLength
	}
	if _, err := c.Admin().CreateQueue(t.Context(), "orders", QueueSettings{LengthMax: length}); err != nil {
		t.Fatal(err)
	}

	var wg, faults sync.WaitGroup
	quiet := make(chan struct{})
	faults.Go(func() {
		rng := rand.New(rand.NewSource(seed))
		for {
			select {
			case <-time.After(time.Duration(rng.Intn(int(700 * time.Millisecond)))):
			case <-quiet:
				return
			}
			switch rng.Intn(3) {
			case 0:
				n.order[rng.Intn(3)].cut()
			default:
				w.lead(rng.Intn(3))
			}
		}
	})

	// Consumers note each body they have handled.
	consuming, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	handled := map[string]int{}
	var eaters sync.WaitGroup
	for i := range 2 {
		rng := rand.New(rand.NewSource(seed + int64(i)))
		eaters.Go(func() {
			err := c.Consume(consuming, "orders", func(ctx context.Context, d *Delivery) error {
				mu.Lock()
				pause, fail := time.Duration(rng.Intn(int(40*time.Millisecond))), rng.Intn(20) == 0
				mu.Unlock()
				time.Sleep(pause)
				if fail {
					return RetryAfter(pause, errors.New("not today"))
				}
				mu.Lock()
				defer mu.Unlock()
				handled[string(d.Body())]++
				return nil
			}, WithConcurrency(1+3*i), WithPrefetch(20))
			if err != nil {
				t.Errorf("consume: %v", err)
			}
		})
	}

	type outcome struct {
		body    string
		receipt Receipt
		err     error
	}
	outcomes := make([][]outcome, chaosProducers)
	for i := range chaosProducers {
		rng := rand.New(rand.NewSource(seed*1000 + int64(i)))
		wg.Go(func() {
			p := producer(t, c, WithMaxInFlight(64))
			var futures []*Future
			for k := range chaosMessages {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if rng.Intn(4) == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.Intn(int(200*time.Millisecond))))
				}
				b := fmt.Sprintf("p%d.%d", i, k)
				f := p.PublishAsync(ctx, body(b))
				futures = append(futures, f)
				outcomes[i] = append(outcomes[i], outcome{body: b})
				if rng.Intn(2) == 0 {
					time.Sleep(time.Duration(rng.Intn(int(60 * time.Millisecond))))
				}
				t.Cleanup(cancel)
			}
			for k, f := range futures {
				outcomes[i][k].receipt, outcomes[i][k].err = f.Wait(t.Context())
			}
			if err := p.Close(t.Context()); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
	close(quiet)
	faults.Wait()
	w.settleDown()
	time.Sleep(20 * time.Second) // late copies have come, leases of the lost have run out

	counts := map[string]int{}
	for _, os := range outcomes {
		for _, o := range os {
			w.mu.Lock()
			times := w.offsets[o.body]
			w.mu.Unlock()
			unknown := (*OutcomeUnknownError)(nil)
			switch {
			case times > 1:
				t.Errorf("%s was stored %d times", o.body, times)
			case o.err == nil:
				counts["confirmed"]++
				if times != 1 {
					t.Errorf("%s was confirmed and is not stored", o.body)
				}
			case errors.As(o.err, &unknown):
				counts["unknown"]++
				got, err := c.Outcome(t.Context(), unknown.ID)
				if err != nil || unknown.Final || got.State != map[int]OutcomeState{0: Never, 1: Stored}[times] {
					t.Errorf("%s (%s) was stored %d times, outcome %+v, %v", o.body, unknown.ID, times, got, err)
				}
			default:
				counts["refused"]++
				if times != 0 {
					t.Errorf("%s was refused (%v) and is stored", o.body, o.err)
				}
			}
		}
	}
	w.mu.Lock()
	last := map[string]int{}
	for _, b := range w.stored {
		p, k, _ := strings.Cut(b, ".")
		number, _ := strconv.Atoi(k)
		if l, ok := last[p]; ok && number <= l {
			t.Errorf("%s was stored after %s.%d", b, p, l)
		}
		last[p] = number
	}
	all := len(w.stored)
	w.mu.Unlock()

	// Everything stored is handled, and only once: no lease was let run out.
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		mu.Lock()
		done := len(handled) == all
		mu.Unlock()
		if done {
			break
		}
	}
	stop()
	eaters.Wait()
	mu.Lock()
	defer mu.Unlock()
	for _, b := range w.stored {
		if handled[b] != 1 {
			t.Errorf("%s was handled %d times", b, handled[b])
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := w.machine.Counts(); left.Messages != 0 || left.Leases != 0 {
		t.Errorf("left in the machine: %+v", left)
	}
	t.Logf("%v of %d, stored %d, leader changes %d, connections %d", counts, chaosProducers*chaosMessages, all, c.Stats().LeaderChanges, c.Stats().Connects)
	if counts["confirmed"] == 0 || counts["refused"] == 0 {
		t.Errorf("%v: the test shows less than it should", counts)
	}
}
