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
	redriveLimit  = 2
	redriveNacks  = 45
	redriveRoom   = 8 // of the dead-letter queue: what fails beyond it is parked
	redriveEvery  = 1200 * time.Millisecond
	redriveAtOnce = 30 // of a hundred redrives, in which two operators work at the same time
	redriveByHand = 40 // of a hundred, in which what was looked at is moved instead
	redriveKeys   = 12
)

// redrive is about the way back: what has failed too often goes to a dead-letter queue
// that is mostly full, or is parked where it was, and operators send both back to work
// until it is acked.
func redrive() Workload {
	return Workload{
		Name: "redrive",
		What: "messages fail, go to a dead-letter queue with little room or are parked, and operators send them back to work, all or one by one, again and again, also twice at the same time: each comes through once, with its priority, and with its ordering key one at a time and in order",
		Queues: map[string]client.QueueSettings{
			"jepsen": {LeaseTime: queueLease, DeliveryLimit: redriveLimit, DeadLetter: graves, BackoffMin: deadBackoff, BackoffMax: 10 * deadBackoff},
			graves:   {LeaseTime: queueLease, LengthMax: redriveRoom},
		},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease, s.Limit, s.DeadLetters, s.Redriven = int64(queueLease), redriveLimit, graves, true
			least := int(seconds * 10)
			s.Least = history.Least{
				Publishes: least, Deliveries: least, Acks: least / 2, Commands: int(seconds / 3), Moved: int(seconds), Parked: 1, KeysPassed: int(seconds / 2), KeysMoved: int(seconds / 5), CalmOK: 80,
			}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 2 {
				// One has ordering keys, one priorities: no message has both.
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 6, pipelined: true, prior: i == 1}
				if i == 0 {
					p.keys = redriveKeys
					p.rate /= 2 // of a key there is one at a time
				}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
			}
			for i := range 3 {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: deadPrefetch, nacks: redriveNacks, rejects: deadRejects, slow: 2, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			for i := range 2 {
				// They go on until all is drained: nothing else empties the dead-letter queue.
				o := &operator{w: w, proc: fmt.Sprintf("a%d", i+1)}
				t.consumers.Go(func() { o.run(consuming) })
			}
			return t
		},
	}
}

// operator sends back to work whatever it finds.
type operator struct {
	w    *World
	proc string
	r    *rand.Rand
}

func (o *operator) run(ctx context.Context) {
	o.r = o.w.rng(o.proc)
	for ctx.Err() == nil {
		c := o.w.connect(ctx, o.proc)
		if c == nil {
			return
		}
		life, cancel := context.WithTimeout(ctx, between(o.r, producerLifeMin, producerLifeMost))
		for o.rest(life) {
			if o.r.IntN(100) < redriveByHand {
				o.move(life, c)
			} else {
				o.redrive(life, c, graves)
			}
			o.redrive(life, c, "jepsen") // what is parked there
		}
		cancel()
		_ = c.Close()
	}
}

// rest waits, mostly. Sometimes it waits for a moment of the clock that the other
// operator waits for too.
func (o *operator) rest(ctx context.Context) bool {
	if o.r.IntN(100) < redriveAtOnce {
		return pause(ctx, redriveEvery-time.Duration(o.w.H.Now())%redriveEvery)
	}
	return pause(ctx, between(o.r, 0, redriveEvery))
}

// move sends dead letters back one by one, which is the same to them.
func (o *operator) move(ctx context.Context, c *client.Client) {
	looking, cancel := context.WithTimeout(ctx, commandMost)
	defer cancel()
	peeked, err := c.Admin().Peek(looking, graves, client.PeekOptions{Limit: redriveRoom})
	if err != nil || len(peeked.Messages) == 0 {
		return
	}
	var places []client.Place
	for i := range peeked.Messages {
		places = append(places, peeked.Messages[i].Place())
	}
	_ = o.w.command(ctx, o.proc, graves, history.Redrive, nil, func(ctx context.Context) error {
		_, err := c.Admin().MoveMessages(ctx, graves, "jepsen", places...)
		return err
	})
}

func (o *operator) redrive(ctx context.Context, c *client.Client, queue string) {
	_ = o.w.command(ctx, o.proc, queue, history.Redrive, nil, func(ctx context.Context) error {
		_, err := c.Admin().Redrive(ctx, queue, client.RedriveOptions{})
		return err
	})
}
