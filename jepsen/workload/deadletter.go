package workload

import (
	"context"
	"fmt"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	deadLimit    = 3
	graves       = "graves"
	deadNacks    = 40
	deadRejects  = 5
	deadBackoff  = 20 * time.Millisecond
	deadPrefetch = 32
	deadKeys     = 16
)

// deadletter is about what fails for good: it goes to the dead-letter queue when it
// has failed as often as its queue allows, and nothing gets lost or doubled on that
// way.
func deadletter() Workload {
	return Workload{
		Name: "deadletter",
		What: "a queue with a delivery limit, whose consumers give back and reject much, die and leave; what has failed too often comes out of the dead-letter queue, once, and what is behind it in its ordering key goes on, not before",
		Queues: map[string]client.QueueSettings{
			"jepsen": {LeaseTime: queueLease, DeliveryLimit: deadLimit, DeadLetter: graves, BackoffMin: deadBackoff, BackoffMax: 10 * deadBackoff},
			graves:   {LeaseTime: queueLease},
		},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease, s.Limit, s.DeadLetters = int64(queueLease), deadLimit, graves
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least / 2, Dead: int(seconds), KeysPassed: int(seconds / 2), CalmOK: 80}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 2 {
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 4, pipelined: true}
				if i == 1 {
					p.keys = deadKeys
					p.rate /= 3 // of a key there is one at a time
				}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
			}
			for i := range 3 {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: deadPrefetch, nacks: deadNacks, rejects: deadRejects, slow: 2, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			for i := range 2 {
				s := &consumer{w: w, queue: graves, lease: queueLease, prefetch: deadPrefetch, stays: i == 0, buries: true}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("b%d", i+1)) })
			}
			return t
		},
	}
}

// bury is the end of a dead letter.
func (s *consumer) bury(proc string, d *client.Delivery, id string, bad error) {
	info, is := d.DeadLetter()
	now := s.w.H.Now()
	e := history.Event{
		Proc: proc, Client: proc, F: history.Dead, Type: history.OK, T0: now, T1: now, Of: -1,
		Key: s.queue, ID: id, Seq: d.ID().Offset, Lane: int(d.ID().Lane), Attempt: info.Attempts, Text: info.Reason, Carried: carriedTo(d),
	}
	switch {
	case bad != nil:
		e.Err = bad.Error()
	case !is:
		e.Err = "it is no dead letter"
	}
	s.w.H.Add(e)
	s.w.Count.Delivered.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), ackPatience)
	defer cancel()
	_ = d.Ack(ctx) // it comes again, to the same end
}
