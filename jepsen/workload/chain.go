package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

// secondLength keeps the second queue of a chain full now and then: then nothing
// may be acked.
const secondLength = 60

// chain is about ack-and-publish: a message leaves the first queue exactly when
// its output enters the second.
func chain() Workload {
	return Workload{
		Name: "chain",
		What: "two queues in a row: each message is acked and its output published in one step, by one consumer in several copies; the second queue is often full",
		Queues: map[string]client.QueueSettings{
			"jepsen": {LeaseTime: queueLease}, "second": {LeaseTime: queueLease, LengthMax: secondLength},
		},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(queueLease)
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 2 {
				p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 4, pipelined: true}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
			}
			for i := range 3 {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: 32, nacks: 2, slow: 2, stays: i == 0, chain: "second"}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			t.consumers.Go(func() {
				pass(consuming, producing, w, "jepsen", "second", "r1", holding{lease: queueLease})
			})
			for i := range 2 {
				s := &consumer{w: w, queue: "second", lease: queueLease, prefetch: 32, nacks: 1, slow: 10, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("e%d", i+1)) })
			}
			return t
		},
	}
}

const (
	chainPatienceLeast = 2 * time.Second
	chainRetry         = 100 * time.Millisecond
)

// passOn acks a delivery and publishes its output in one step. The output's id
// tells the attempt and the try, so that two outputs of one message can be told
// apart.
func (s *consumer) passOn(ctx context.Context, c *client.Client, ack history.Event, d *client.Delivery) {
	for try := 1; ; try++ {
		out := fmt.Sprintf("%s>%d.%d", ack.ID, ack.Attempt, try)
		ack.Text = history.Chained
		acked := s.w.H.Invoke(ack)
		m := content(out)
		published := s.w.H.Invoke(history.Event{Proc: ack.Proc, Client: ack.Client, F: history.Publish, Key: s.chain, ID: out, Carried: carriedBy(m)})
		trying, cancel := context.WithTimeout(ctx, chainPatienceLeast)
		receipts, err := c.AckAndPublish(trying, d, client.Outgoing{Queue: s.chain, Message: m})
		cancel()
		unknown := (*client.OutcomeUnknownError)(nil)
		switch {
		case err == nil && len(receipts) == 1:
			s.w.published(published, receipts[0], nil)
			s.w.settled(acked, nil)
			return
		case errors.As(err, &unknown):
			s.w.published(published, client.Receipt{}, err)
			s.w.settled(acked, err)
			if s.became(ctx, c, published, unknown.ID) {
				return
			}
			continue // never: the delivery is still to be settled
		case errors.Is(err, client.ErrLeaseLost):
			s.w.published(published, client.Receipt{}, err)
			s.w.settled(acked, err)
			return
		case err == nil:
			err = fmt.Errorf("%d receipts", len(receipts))
		}
		// Nothing has happened. What was not settled goes on being held.
		published.Err, acked.Err, acked.F, acked.Text = err.Error(), err.Error(), history.Nothing, acked.F
		s.w.Count.Refused.Add(1)
		s.w.H.Complete(published, history.Fail)
		s.w.H.Complete(acked, history.Fail)
		switch {
		case errors.Is(err, client.ErrClosed):
			return
		case !pause(ctx, chainRetry):
			s.giveBack(ack, d)
			return
		}
	}
}

// became closes an output whose outcome is unknown. It is false when it was never
// published, and so its input not acked.
func (s *consumer) became(ctx context.Context, c *client.Client, published history.Event, id client.InnerMsgID) (stored bool) {
	for {
		seal := s.w.H.Invoke(history.Event{Proc: published.Proc, Client: published.Client, F: history.Seal, Key: s.chain, ID: published.ID, Inner: id.Short()})
		o, err := c.Seal(ctx, id)
		switch {
		case err != nil:
			seal.Err = err.Error()
			s.w.H.Complete(seal, history.Info)
			if errors.Is(err, client.ErrClosed) || !pause(ctx, chainRetry) {
				return true // nobody knows; who holds the input hears it from its lease
			}
			continue
		case o.State == client.Never:
			seal.Text = "sealed"
		case o.State == client.Stored:
			seal.Text = "stored"
		default:
			seal.Text, seal.Err = "below floor", o.State.String()+": "+o.Reason
		}
		s.w.H.Complete(seal, history.OK)
		return o.State != client.Never
	}
}

// giveBack nacks what could not be passed on.
func (s *consumer) giveBack(ack history.Event, d *client.Delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), ackPatience)
	defer cancel()
	ack.F, ack.Text = history.Nack, ""
	op := s.w.H.Invoke(ack)
	s.w.settled(op, d.Nack(ctx, nil))
}
