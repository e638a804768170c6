package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	// resumeLease is longer than the run is given to drain: what the cluster believes
	// to be held and the consumer never got stays where it is.
	resumeLease  = 10 * time.Minute
	lossyPercent = 3
	movePercent  = 50 // of those
	hangUpMost   = 3 * time.Millisecond
	moveMost     = 5 * time.Millisecond
)

// resume is about what becomes of deliveries and settles when a connection ends
// with them under way: the consumer lists what it has no answer for, and the
// cluster says the truth about each, sends what it lacks, and nothing else.
func resume() Workload {
	return Workload{
		Name:   "resume",
		What:   "raw consumers that cut their connections with deliveries and settles under way, and attach again with the list of what has no answer, also over a second connection while the first one ends; a lease of 10 min",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: resumeLease}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(resumeLease)
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least / 2, Listed: int(seconds)}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 2 {
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 4, pipelined: true, burst: 20}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
			}
			for i := range 3 {
				t.consumers.Go(func() {
					misbehave(consuming, producing, w, "jepsen", fmt.Sprintf("l%d", i+1), holding{lease: leaseLease, lossy: true})
				})
			}
			return t
		},
	}
}

// hangUp cuts the connection in a moment, whatever is under way on it, or has it
// replaced.
func (s *holder) hangUp(r *rand.Rand) {
	if r.IntN(100) < movePercent {
		select {
		case s.moving <- between(r, 0, moveMost):
		default: // it is not attached, or moves
		}
		return
	}
	after := between(r, 0, hangUpMost)
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c == nil {
		return
	}
	s.tasks.Go(func() {
		time.Sleep(after) // the time in which something else gets under way
		c.Close()
	})
}
