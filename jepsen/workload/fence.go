package workload

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// fence is about named sessions that go from owner to owner, as when a producer is
// started again elsewhere while its old self still runs: the old one goes on
// publishing, and copies of its open arrive late. It speaks raw frames, since the
// client library stops when it hears that it was replaced.
func fence() Workload {
	return Workload{
		Name:   "fence",
		What:   "named sessions that are taken over while the old owner goes on publishing and copies of its open arrive late",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease, s.Raw = int64(queueLease), true
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least / 2, Acks: least / 2, Fenced: int(seconds)}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			const names, consumers = 3, 2
			for i := range names {
				t.producers.Go(func() { handOver(producing, w, fmt.Sprintf("f%d", i+1), float64(w.Rate)/4/names) })
			}
			for i := range consumers {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: 64, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			return t
		},
	}
}

const (
	ownsLeast, ownsMost = 300 * time.Millisecond, 4 * time.Second // before the next one takes over
	lingersMost         = 5 * time.Second                         // after that
	stubbornMost        = 3 * time.Second                         // for one publish
	lateOpensMost       = 3
)

// owner has a named session until the next one takes it.
type owner struct {
	w        *World
	session  string
	proc     string
	peers    *peers
	nonce    wire.Nonce
	expected uint64
	r        *rand.Rand
	has      wire.SessionOpened
}

// handOver lets one owner after the other take a session.
func handOver(ctx context.Context, w *World, session string, rate float64) {
	r := w.rng(session)
	var all sync.WaitGroup
	defer all.Wait()
	epoch := uint64(0)
	for k := 1; ctx.Err() == nil; k++ {
		o := &owner{w: w, session: session, proc: fmt.Sprintf("%s.%d", session, k), expected: epoch, r: rand.New(rand.NewPCG(r.Uint64(), 1))}
		o.peers = newPeers(w, o.proc)
		_, _ = crand.Read(o.nonce[:]) // never fails
		for !o.open(ctx, "") && ctx.Err() == nil {
			pause(ctx, 100*time.Millisecond)
		}
		if o.has.Status != wire.StatusOK {
			o.peers.close()
			return
		}
		epoch = o.has.Epoch
		owns := between(r, ownsLeast, ownsMost)
		lingering, cancel := context.WithTimeout(ctx, owns+between(r, 0, lingersMost))
		all.Go(func() {
			defer o.peers.close()
			defer cancel()
			o.publish(lingering, rate, time.Now().Add(owns))
		})
		pause(ctx, owns)
	}
}

// open asks for the session. Each copy asks for the same, so all but the first
// repeat an answer, or come too late.
func (o *owner) open(ctx context.Context, text string) (got bool) {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	c := o.peers.get(ctx, o.peers.toLeader(o.r))
	if c == nil {
		return false
	}
	op := o.w.H.Invoke(history.Event{Proc: o.proc, Client: o.proc, Node: c.Welcome.Node, F: history.Open, Session: o.session, Text: text})
	payload, err := c.Call(ctx, wire.OpOpenSession, wire.OpenSession{
		Incarnation: c.Welcome.Incarnation, Group: c.Welcome.Topology.Group, Named: true, Name: o.session, ExpectedEpoch: o.expected, Nonce: o.nonce, Label: o.proc,
	})
	var reply wire.SessionOpened
	if err == nil {
		reply, err = wire.DecodeSessionOpened(payload)
	}
	switch {
	case err != nil:
		o.peers.failed(op, err)
		return false
	case reply.Status != wire.StatusOK:
		op.Err = reply.Status.String()
		o.w.H.Complete(op, history.Fail)
		return false
	}
	op.Epoch = reply.Epoch
	o.w.H.Complete(op, history.OK)
	if text == "" {
		o.has = reply
	}
	return true
}

// publish publishes, one after the other, whether it still has the session or not.
// Once another has it, it also asks for the session now and then, as a late copy does.
func (o *owner) publish(ctx context.Context, rate float64, until time.Time) {
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	opens := 0
	for sequence := o.has.Next; ; sequence++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		id := o.w.id(o.proc, int(sequence))
		for began := time.Now(); time.Since(began) < stubbornMost && !o.send(id, sequence); {
			time.Sleep(between(o.r, 20*time.Millisecond, 200*time.Millisecond))
		}
		if time.Now().After(until) && opens < lateOpensMost && o.r.IntN(20) == 0 {
			opens++
			o.open(ctx, "copy")
		}
	}
}

// send sends one copy; final says that no other one is needed.
func (o *owner) send(id string, sequence uint64) (final bool) {
	ctx, cancel := context.WithTimeout(context.Background(), copyTimeout)
	defer cancel()
	c := o.peers.get(ctx, o.peers.toLeader(o.r))
	if c == nil {
		return false
	}
	messages := []wire.Message{wireContent(id)}
	op := o.w.H.Invoke(history.Event{
		Proc: o.proc, Client: o.proc, Node: c.Welcome.Node, F: history.Publish, Key: "jepsen", ID: id, Carried: carried(messages[0]), Copies: 1,
		Inner: wire.InnerMsgID{Session: o.has.Session, Sequence: sequence}.Short(), Session: o.session, Epoch: o.has.Epoch,
	})
	payload, err := c.Call(ctx, wire.OpPublish, wire.PublishFrame{
		Incarnation: o.has.Session.Incarnation, Group: o.has.Session.Group, Session: o.has.Session.Number, Epoch: o.has.Epoch,
		Floor: o.has.Next, Queue: "jepsen",
		Publishes: []wire.Publish{{Sequence: sequence, Checksum: wire.PublishChecksum("jepsen", messages), Messages: messages}},
	})
	res, err := onlyResult(payload, err)
	switch {
	case err != nil:
		if !o.peers.failed(op, err) {
			o.w.Count.Unknown.Add(1)
		}
		return false
	case res.Status == wire.StatusOK:
		op.Seq, op.Lane, op.Dup = res.Offset, int(res.Lane), res.Duplicate
		o.w.Count.Published.Add(1)
		o.w.H.Complete(op, history.OK)
	default:
		op.Err = res.Status.String()
		o.w.Count.Refused.Add(1)
		o.w.H.Complete(op, history.Fail)
	}
	return true
}
