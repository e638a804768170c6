package workload

import (
	"context"
	"fmt"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	priorities   = 4
	delayPercent = 30
	delayLeast   = 20 * time.Millisecond
	delayMost    = 4 * time.Second
)

// delay is about when a message may be handed out, and before which others.
func delay() Workload {
	return Workload{
		Name:   "delay",
		What:   "priorities, publishes that are kept back for a while and nacks with a delay: nothing comes early, nothing is forgotten, the higher priority goes first",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease, s.ProducerOrder = int64(queueLease), true
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least, CalmOK: 80}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 3 {
				// Bursts, so that something is left to choose from.
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 3, pipelined: true, burst: 100, timed: true}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
			}
			for i := range 3 {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: 8, nacks: 10, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			return t
		},
	}
}
