package sim

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
)

// TestTenFailovers: a producer and a consumer work through ten deaths of the
// leader. Each message is stored once and handed out once.
func TestTenFailovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, 3)
		defer w.Close()
		c := w.Dial("c1")
		defer c.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
			t.Fatal(err)
		}

		var mu sync.Mutex
		handled := make(map[string]int)
		attempts := make(map[int]int)
		consumed := make(chan error, 1)
		go func() {
			consumed <- c.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				handled[string(d.Body())]++
				attempts[d.Attempt()]++
				return nil
			})
		}()

		stop := make(chan struct{})
		published := make(chan int, 1)
		go func() {
			p, err := c.NewProducer("orders")
			if err != nil {
				t.Error(err)
				published <- 0
				return
			}
			n := 0
			for {
				select {
				case <-stop:
					p.Close(ctx)
					published <- n
					return
				default:
				}
				if _, err := p.Publish(ctx, client.Message{Body: fmt.Appendf(nil, "m%d", n)}); err != nil {
					t.Errorf("publish %d: %v", n, err)
				}
				n++
				time.Sleep(20 * time.Millisecond)
			}
		}()

		for range 10 {
			leader := w.Leader()
			time.Sleep(2 * time.Second)
			w.Kill(leader)
			w.Leader(leader)
			time.Sleep(time.Second)
			w.Start(leader)
		}
		time.Sleep(5 * time.Second)
		close(stop)
		n := <-published
		if n < 500 {
			t.Fatalf("only %d messages were published: the test shows little", n)
		}
		for {
			q, err := c.Admin().Queue(ctx, "orders")
			if err != nil {
				t.Fatal(err)
			}
			if q.Counts.Acked == uint64(n) {
				if q.Counts.Stored != uint64(n) || q.Counts.Delivered != uint64(n) {
					t.Errorf("%d published, counts %+v", n, q.Counts)
				}
				break
			}
			if q.Counts.Acked > uint64(n) {
				t.Fatalf("%d published, counts %+v", n, q.Counts)
			}
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
		if err := <-consumed; err != nil {
			t.Errorf("consume: %v", err)
		}
		for i := range n {
			if k := handled[fmt.Sprintf("m%d", i)]; k != 1 {
				t.Errorf("m%d was handled %d times", i, k)
			}
		}
		if attempts[1] != n {
			t.Errorf("attempts: %v", attempts)
		}
		w.CaughtUp()
		w.DigestsAgree(c)
	})
}
