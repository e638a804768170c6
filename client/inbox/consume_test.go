package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"onceq/client"
	"onceq/client/inbox"
	"onceq/client/onceqtest"
)

// Messages come twice because the sender repeats them, handlers fail, and the
// leader dies twice; with and without manual settling every message has one effect
// and none is left in the queue.
func TestConsume_OneEffectEach(t *testing.T) {
	const orders = 300
	for _, manual := range []bool{false, true} {
		t.Run(fmt.Sprintf("manual %t", manual), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cluster := onceqtest.Start(t, 3)
			c := cluster.Client()
			if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
				t.Fatal(err)
			}
			db, err := bbolt.Open(filepath.Join(t.TempDir(), "inbox"), 0o600, &bbolt.Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()

			var mu sync.Mutex
			effects, failed, deliveries := map[string]int{}, map[string]bool{}, 0
			all := make(chan struct{})
			handler := inbox.Handler(inbox.Bolt(db, time.Hour), func(ctx context.Context, d *client.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				if deliveries++; deliveries%5 == 0 && !failed[d.BizID()] {
					failed[d.BizID()] = true
					return client.RetryAfter(0, errors.New("busy"))
				}
				if effects[d.BizID()]++; len(effects) == orders {
					select {
					case <-all:
					default:
						close(all)
					}
				}
				return nil
			})
			opts := []client.ConsumeOption{client.WithConcurrency(8), client.WithPrefetch(64)}
			if manual {
				opts = append(opts, client.WithManualSettle())
			}
			consuming, stop := context.WithCancel(ctx)
			defer stop()
			consumed := make(chan error, 1)
			go func() { consumed <- c.Consume(consuming, "orders", handler, opts...) }()

			p, err := c.NewProducer("orders")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 2 * orders {
				switch i {
				case orders / 2:
					cluster.Restart(cluster.KillLeader())
				case orders:
					cluster.KillLeader()
				}
				m := client.Message{BizID: fmt.Sprint("order-", i/2)}
				if _, err := p.Publish(ctx, m); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case <-all:
			case <-ctx.Done():
				t.Fatalf("%d of %d orders had an effect", len(effects), orders)
			}
			stop()
			if err := <-consumed; err != nil {
				t.Fatal(err)
			}
			// Whatever is left is acked by the next consumer, without an effect.
			consuming, stop = context.WithCancel(ctx)
			defer stop()
			go func() { consumed <- c.Consume(consuming, "orders", handler, opts...) }()
			look := time.NewTicker(10 * time.Millisecond)
			defer look.Stop()
			for {
				q, err := c.Admin().Queue(ctx, "orders")
				if err != nil {
					t.Fatal(err)
				}
				if q.Counts.Acked == 2*orders {
					break
				}
				<-look.C
			}
			stop()
			if err := <-consumed; err != nil {
				t.Fatal(err)
			}
			for id, n := range effects {
				if n != 1 {
					t.Errorf("%s had %d effects", id, n)
				}
			}
		})
	}
}
