package workload

import (
	"context"
	"fmt"
	"sync"

	"onceq/client"
	"onceq/jepsen/history"
)

const pullAtOnce = 20

// pull is about consumers that ask: a receive whose answer gets lost is repeated and
// gets the same, and one that is given up takes nothing with it. The lease of the
// first queue is longer than the run, so whatever the cluster believes to have handed
// out stays where it is, and shows when the queue cannot be emptied. So who gives up
// there says so until it was heard; the client library does that for a while only,
// so its receives there are not given up before the run is over. In the second queue
// who gives up is never heard of again, and leases run out.
func pull() Workload {
	return Workload{
		Name:   "pull",
		Newest: true, // a receive
		What:   "consumers that ask for some messages at a time, and raw ones that do not wait for the answer: they release what it brings, under a lease of 10 min, or go away, under one of 3 s",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: resumeLease}, "short": {LeaseTime: leaseLease}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(resumeLease)
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least / 2}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 2 {
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 4, pipelined: true, burst: 20}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
			}
			p := &producer{w: w, queue: "short", rate: float64(w.Rate) / 8, pipelined: true, burst: 20}
			t.producers.Go(func() { p.run(producing, "p3") })
			for i := range 3 {
				s := &consumer{w: w, queue: "jepsen", lease: resumeLease, nacks: 3, slow: 3}
				t.consumers.Go(func() { s.ask(consuming, fmt.Sprintf("g%d", i+1)) })
			}
			for i := range 2 {
				t.consumers.Go(func() {
					askAndGiveUp(consuming, producing, w, "jepsen", fmt.Sprintf("r%d", i+1), resumeLease, false)
				})
				t.consumers.Go(func() {
					askAndGiveUp(consuming, producing, w, "short", fmt.Sprintf("d%d", i+1), leaseLease, true)
				})
			}
			return t
		},
	}
}

// ask receives until ctx ends. Each receive is a consumer of its own in the history.
func (s *consumer) ask(ctx context.Context, name string) {
	r := s.w.rng(name)
	c := s.w.connect(ctx, name)
	if c == nil {
		return
	}
	var settles sync.WaitGroup
	for n := 1; ctx.Err() == nil; n++ {
		proc := fmt.Sprintf("%s.%d", name, n)
		ds, err := c.Receive(ctx, s.queue, 1+r.IntN(pullAtOnce))
		if err != nil && ctx.Err() == nil {
			s.w.Report("%s: receive: %v", proc, err)
		}
		for _, d := range ds {
			s.handle(c, proc, d, r, &settles)
		}
	}
	settles.Wait()
	_ = c.Close()
}
