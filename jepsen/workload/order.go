package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	orderKeys    = 48
	orderBurst   = 700 // more than two frames of the client library
	overtakers   = 2
	overtakeLong = 6 // sequences of one key that go about at once
	overtakeWait = 40 * time.Millisecond
	overtakeMost = 15 * time.Second // then what has no outcome is sealed
	hurryPercent = 10               // of sequences that are sealed after their first copy
)

// order is about the order of what has one ordering key. Producers hand in more
// than a frame at once, of which a part may be refused; overtakers send several
// sequences of one key over several connections, the last maybe first, each naming
// the one before it.
func order() Workload {
	return Workload{
		Name:   "order",
		What:   "ordering keys: overlapping frames of a producer with refusals in between, sequences that overtake each other on raw connections, full queues; consumers give back, die and leave; a queue with a single active consumer",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}, "small": {LeaseTime: queueLease, LengthMax: smallLength}, "single": {LeaseTime: queueLease, SingleActive: true}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease, s.ProducerOrder, s.Single = int64(queueLease), true, []string{"single"}
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 2 {
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 2, pipelined: true, burst: orderBurst, keys: orderKeys}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
			}
			p := &producer{w: w, queue: "small", rate: float64(w.Rate) / smallPart, pipelined: true, burst: smallBurst, keys: orderKeys}
			t.producers.Go(func() { p.run(producing, "o1") })
			for i := range overtakers {
				t.producers.Go(func() { overtakeAll(producing, w, fmt.Sprintf("x%d", i+1), float64(w.Rate)/12/overtakers) })
			}
			for i := range 3 {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: 64, nacks: 4, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			one := &producer{w: w, queue: "single", rate: float64(w.Rate) / smallPart, pipelined: true}
			t.producers.Go(func() { one.run(producing, "u1") })
			for i := range 2 {
				s := &consumer{w: w, queue: "single", lease: queueLease, prefetch: 16, nacks: 2}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("v%d", i+1)) })
			}
			slow := &consumer{w: w, queue: "small", lease: queueLease, prefetch: smallLength / 2, slow: 100, stays: true}
			t.consumers.Go(func() { slow.run(consuming, "s1") })
			return t
		},
	}
}

// overtakeAll sends chains of sequences, one chain after the other, until ctx ends.
func overtakeAll(ctx context.Context, w *World, name string, rate float64) {
	d := &retransmitter{w: w, name: name, peers: newPeers(w, name), ctx: ctx, r: w.rng(name), next: 1, floor: 1, released: map[uint64]bool{}}
	defer d.peers.close()
	if !d.open() {
		return
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) * overtakeLong / rate))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.overtake()
		case <-ctx.Done():
			return
		}
	}
}

// overtake sends some sequences of one key, each by itself, until each has its
// outcome.
func (d *retransmitter) overtake() {
	queue := "jepsen"
	if d.chance(4) == 0 {
		queue = "small"
	}
	key := fmt.Sprintf("k%d", d.chance(orderKeys))
	var last *entry
	var all sync.WaitGroup
	for range overtakeLong {
		e := d.take()
		e.queue, e.alone, e.after = queue, true, last
		e.messages[0].OrderingKey = key
		last = e
		seed := uint64(d.chance(1 << 62))
		all.Go(func() { d.hurry(e, rand.New(rand.NewPCG(seed, 1))) })
	}
	all.Wait()
}

// hurry sends one sequence again and again, and seals it when nothing comes of it.
// Now and then that is at once: then what comes behind may name a sealed one, while
// what comes before is not stored yet.
func (d *retransmitter) hurry(e *entry, r *rand.Rand) {
	began, most := time.Now(), overtakeMost
	if r.IntN(100) < hurryPercent {
		most = 0
	}
	for first := true; !e.final() && (first || time.Since(began) < most); first = false {
		time.Sleep(between(r, 0, overtakeWait))
		d.send(e, d.peers.toLeader(r), e.messages)
	}
	for !e.final() && time.Since(began) < sealMost {
		d.seal(e, d.peers.toLeader(r))
		time.Sleep(between(r, 50*time.Millisecond, 300*time.Millisecond))
	}
	if e.final() {
		d.release(e)
	}
}
