package workload

import (
	"context"
	"fmt"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	queueLease = 30 * time.Second
	smallPart  = 6 // of the rate goes to the small queue, more than is consumed
	smallBurst = 400
)

// queue is the plain life of a queue: what is confirmed is delivered, and nothing
// twice without a cause.
func queue() Workload {
	return Workload{
		Name:   "queue",
		What:   "publish, receive and ack through the client library, pipelined and one by one; producers and consumers come and go",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}, "small": {LeaseTime: queueLease, LengthMax: smallLength}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(queueLease)
			s.ProducerOrder = true
			least := int(seconds * 20)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least, CalmOK: 80}
		},
		Start: startQueue,
	}
}

func startQueue(ctx context.Context, w *World) *Traffic {
	t, producing, consuming := newTraffic(ctx)
	const producers, consumers = 4, 3
	for i := range producers {
		p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / producers, pipelined: i != 0}
		if i == producers-1 {
			p.session = w.Run + "-named"
		}
		t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
	}
	// Bursts of more than one frame onto a queue that is often full: what was refused
	// must not be overtaken by what came after it.
	p := &producer{w: w, queue: "small", rate: float64(w.Rate) / smallPart, pipelined: true, burst: smallBurst}
	t.producers.Go(func() { p.run(producing, "o1") })
	slow := &consumer{w: w, queue: "small", lease: queueLease, prefetch: smallLength / 2, slow: 100, stays: true}
	t.consumers.Go(func() { slow.run(consuming, "s1") })
	for i := range consumers {
		s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: 64, nacks: 2, slow: 3, stays: i == 0}
		t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
	}
	return t
}
