package cluster_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"

	"onceq/client"
	"onceq/cluster/clustertest"
)

// BenchmarkPublish: one producer with many publishes in flight; each counts when
// it is on a majority's disks.
func BenchmarkPublish(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		for _, size := range []int{16, 1024} {
			b.Run(fmt.Sprintf("nodes=%d/bytes=%d", nodes, size), func(b *testing.B) {
				c := clustertest.New(b, nodes)
				c.WaitLeader()
				ctx := context.Background()
				cl, err := client.Dial(ctx, c.URL())
				if err != nil {
					b.Fatal(err)
				}
				defer cl.Close()
				if _, err := cl.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
					b.Fatal(err)
				}
				p, err := cl.NewProducer("orders")
				if err != nil {
					b.Fatal(err)
				}
				body := make([]byte, size)
				rand.Read(body)
				b.ResetTimer()
				for b.Loop() {
					f := p.PublishAsync(ctx, client.Message{Body: body})
					select {
					case <-f.Done():
						if _, err := f.Wait(ctx); err != nil {
							b.Fatal(err)
						}
					default:
					}
				}
				if err := p.Flush(ctx); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}
