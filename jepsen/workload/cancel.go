package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
	"onceq/transport/wire"
)

const (
	hastyPercent = 60
	hastyMost    = 12 * time.Millisecond
	ghostsMax    = 500 // late copies that are still to come
	ghostLate    = 15 * time.Second
)

// cancel is about publishes that their producer gives up: what was sealed as never
// stored is never stored, whatever copy comes how late.
func cancel() Workload {
	return Workload{
		Name:   "cancel",
		What:   "publishes are given up while copies are under way and sealed; copies come once more after the seal, from elsewhere and much later",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}, "small": {LeaseTime: queueLease, LengthMax: smallLength}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(queueLease)
			least := int(seconds * 5)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least, Sealed: int(seconds / 2)}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i := range 2 {
				t.producers.Go(func() { giveUp(producing, w, fmt.Sprintf("p%d", i+1)) })
			}
			t.producers.Go(func() {
				retransmit(producing, w, "d1", float64(w.Rate)/6, retransmission{early: 50})
			})
			for i := range 2 {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: 64, nacks: 1, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			slow := &consumer{w: w, queue: "small", lease: queueLease, prefetch: smallLength / 2, slow: 100, stays: true}
			t.consumers.Go(func() { slow.run(consuming, "s1") })
			return t
		},
	}
}

// giveUp is a hasty producer, and the ghosts of its publishes: copies that come
// after their seal.
func giveUp(ctx context.Context, w *World, name string) {
	g := &ghosts{w: w, name: name, ctx: ctx, peers: newPeers(w, name+".ghost"), r: w.rng(name + ".ghost"), slots: make(chan struct{}, ghostsMax)}
	defer g.peers.close()
	defer g.all.Wait()
	p := &producer{w: w, queue: "jepsen", rate: float64(w.Rate) / 6, pipelined: true, hasty: true, after: g.raise}
	p.run(ctx, name)
}

type ghosts struct {
	w     *World
	name  string
	ctx   context.Context // of the traffic; it is stored since ghosts outlive calls
	peers *peers
	slots chan struct{}
	all   sync.WaitGroup

	mu sync.Mutex // guards r
	r  *rand.Rand
}

// raise lets a copy of a sealed publish come, once at once and once later.
func (g *ghosts) raise(op history.Event, id client.InnerMsgID, m client.Message) {
	select {
	case g.slots <- struct{}{}:
	default:
		return
	}
	g.mu.Lock()
	late := between(g.r, 0, ghostLate)
	g.mu.Unlock()
	g.all.Go(func() {
		defer func() { <-g.slots }()
		g.send(op, id, m)
		pause(g.ctx, late)
		g.send(op, id, m)
	})
}

// send sends a copy as the library does, over a connection of our own.
func (g *ghosts) send(op history.Event, id client.InnerMsgID, m client.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), copyTimeout)
	defer cancel()
	g.mu.Lock()
	to := g.peers.toLeader(g.r)
	g.mu.Unlock()
	c := g.peers.get(ctx, to)
	if c == nil {
		return
	}
	messages := []wire.Message{{Body: m.Body, BizID: m.BizID, Headers: m.Headers}}
	copied := g.w.H.Invoke(history.Event{
		Proc: g.name + ".ghost", Client: g.name + ".ghost", Node: c.Welcome.Node, F: history.Publish, Key: op.Key, ID: op.ID, Carried: carried(messages[0]), Copies: 1,
		Inner: id.Short(), Text: "after its seal",
	})
	payload, err := c.Call(ctx, wire.OpPublish, wire.PublishFrame{
		Incarnation: id.Session.Incarnation, Group: id.Session.Group, Session: id.Session.Number, Epoch: unnamedEpoch, Floor: 1, Queue: op.Key,
		Publishes: []wire.Publish{{Sequence: id.Sequence, Checksum: wire.PublishChecksum(op.Key, messages), Messages: messages}},
	})
	res, err := onlyResult(payload, err)
	switch {
	case err != nil:
		g.peers.failed(copied, err)
	case res.Status == wire.StatusOK:
		copied.Seq, copied.Lane, copied.Dup = res.Offset, int(res.Lane), res.Duplicate
		g.w.H.Complete(copied, history.OK)
	case res.Status == wire.StatusSealed:
		copied.Err = res.Status.String()
		g.w.H.Complete(copied, history.Fail)
	default:
		// Its session may have ended with its producer.
		copied.Err = "late copy: " + res.Status.String()
		g.w.H.Complete(copied, history.Fail)
	}
}

// unnamedEpoch is the epoch of a session that only its opener knows.
const unnamedEpoch = 1
