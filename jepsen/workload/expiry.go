package workload

import (
	"context"
	"fmt"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	ttlLeast       = 200 * time.Millisecond
	ttlMost        = 5 * time.Second
	queueTTL       = 3 * time.Second // of the queue that has one
	expiryBurst    = 60
	expirySlow     = 60 // per cent
	expiryNacks    = 15
	expiryPrefetch = 16
)

// expiry is about messages that get too old: what nobody has by then is gone and
// counted, what a consumer holds stays its own.
func expiry() Workload {
	return Workload{
		Name: "expiry",
		What: "messages with a time to live, of their own and of their queue, and fewer consumers than they need: what is too old is gone, is counted, and nothing else is",
		Queues: map[string]client.QueueSettings{
			"jepsen": {LeaseTime: queueLease},
			"brief":  {LeaseTime: queueLease, TTL: queueTTL},
		},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(queueLease)
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least / 2, Acks: least / 4, Expired: int(seconds), CalmOK: 80}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 2 {
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 4, pipelined: true, burst: expiryBurst, expires: true}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
				b := &producer{w: w, queue: "brief", rate: float64(w.Rate) / 8, pipelined: true, burst: expiryBurst, expires: i == 0, queueTTL: queueTTL}
				t.producers.Go(func() { b.run(producing, fmt.Sprintf("b%d", i+1)) })
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: expiryPrefetch, nacks: expiryNacks, slow: expirySlow, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
				o := &consumer{w: w, queue: "brief", lease: queueLease, prefetch: expiryPrefetch, nacks: expiryNacks, slow: expirySlow, stays: i == 0}
				t.consumers.Go(func() { o.run(consuming, fmt.Sprintf("d%d", i+1)) })
			}
			return t
		},
	}
}
