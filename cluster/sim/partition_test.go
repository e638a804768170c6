package sim

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
)

// TestPartitions: the leader is cut off from the other nodes in each way there
// is, and clients reach it or do not. Each message is stored once and handed out
// once; the consumer is alive all the time, so nothing is redelivered.
func TestPartitions(t *testing.T) {
	for _, tc := range []struct {
		name string
		cut  func(w *World, leader *Node)
	}{
		{"leader cut off from the nodes, clients reach it", func(w *World, l *Node) {
			for _, n := range w.Nodes {
				if n != l {
					w.Net.CutBoth(l.Host, n.Host)
				}
			}
			w.Gossip.Isolate(l.gossip)
		}},
		{"leader cut off from everybody", func(w *World, l *Node) { w.Isolate(l) }},
		{"leader is not heard", func(w *World, l *Node) {
			for _, n := range w.Nodes {
				if n != l {
					w.Net.Cut(l.Host, n.Host)
				}
			}
		}},
		{"leader hears nobody", func(w *World, l *Node) {
			for _, n := range w.Nodes {
				if n != l {
					w.Net.Cut(n.Host, l.Host)
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(t, 3)
				defer w.Close()
				w.Net.SetDelay(200 * time.Microsecond)
				producing, consuming := w.Dial("c1"), w.Dial("c2")
				defer producing.Close()
				defer consuming.Close()
				create(t, producing, "orders", client.QueueSettings{})
				ctx, cancel := context.WithCancel(context.Background())
				s := newSeen()
				done := make(chan error, 1)
				go func() {
					done <- consuming.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
						s.note(d)
						return nil
					})
				}()
				stop := make(chan struct{})
				published := make(chan int, 1)
				go func() {
					n := 0
					p, err := producing.NewProducer("orders")
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
						if _, err := p.Publish(ctx, client.Message{Body: fmt.Appendf(nil, "m%d", n)}); err != nil {
							t.Error(err)
						}
						n++
						time.Sleep(20 * time.Millisecond)
					}
				}()
				for range 3 {
					time.Sleep(2 * time.Second)
					leader := w.Leader()
					tc.cut(w, leader)
					w.Leader(leader)
					time.Sleep(4 * time.Second)
					w.Heal()
					until(t, "the old leader follows", func() bool {
						st := leader.Status()
						return !st.Serving && st.Leader != "" || w.Leader() == leader
					})
				}
				time.Sleep(2 * time.Second)
				close(stop)
				n := <-published
				if n < 200 {
					t.Errorf("only %d messages were published", n)
				}
				until(t, "all acked", func() bool { return counts(t, producing, "orders").Acked == uint64(n) })
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if k := counts(t, producing, "orders"); k.Stored != uint64(n) || k.Delivered != uint64(n) {
					t.Errorf("%d published, counts %+v", n, k)
				}
				if s.count() != n || s.attempt(1) != n {
					t.Errorf("%d published, %d handled, attempts %v", n, s.count(), s.attempts)
				}
				w.CaughtUp()
				w.DigestsAgree(producing)
			})
		})
	}
}
