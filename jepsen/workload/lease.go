package workload

import (
	"context"
	"fmt"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const leaseLease = 3 * time.Second

// lease is about who holds a message: consumers stall past their lease, ack late,
// ack twice, ack over another connection, extend, give back and then ack, die and
// leave.
func lease() Workload {
	return Workload{
		Name:   "lease",
		What:   "raw consumers that stall, ack late, twice, from elsewhere, after a nack, extend, die and leave; a lease of 3 s",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: leaseLease}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(leaseLease)
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least / 2, Refused: int(seconds / 2), CalmOK: 80}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			const producers, consumers = 2, 4
			for i := range producers {
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 3 / producers, pipelined: true}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
			}
			for i := range consumers {
				t.consumers.Go(func() {
					misbehave(consuming, producing, w, "jepsen", fmt.Sprintf("l%d", i+1), holding{lease: leaseLease})
				})
			}
			return t
		},
	}
}
