package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
)

const (
	wardenEvery   = 1500 * time.Millisecond // commands on one queue
	wardenEnd     = time.Minute             // for what it does last
	commandMost   = 8 * time.Second
	recreateMost  = 300 * time.Millisecond
	pausedMost    = 1500 * time.Millisecond
	deleteSome    = 5 // messages with one command
	scratchLength = 400
)

var scratch = []string{"scratch1", "scratch2"}

// admin is about commands on queues that are in use: what they remove is gone for
// good, what they do not touch is not lost, and the counts add up.
func admin() Workload {
	queues := map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}}
	for _, q := range scratch {
		queues[q] = client.QueueSettings{LeaseTime: queueLease}
	}
	return Workload{
		Name:    "admin",
		What:    "queues are purged, deleted and created again, paused, changed and messages of them deleted while others publish to them and consume; a queue beside them must not notice",
		Queues:  queues,
		Numbers: true,
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease = int64(queueLease)
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least, Acks: least, Commands: int(seconds / 3)}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			for i, q := range []string{"jepsen", scratch[0], scratch[1]} {
				p := &producer{w: w, queue: q, rate: float64(w.Rate) / 4, pipelined: true}
				t.producers.Go(func() { p.run(producing, fmt.Sprintf("p%d", i+1)) })
				s := &consumer{w: w, queue: q, lease: queueLease, prefetch: 32, nacks: 2, slow: 20, stays: true}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
				other := &consumer{w: w, queue: q, lease: queueLease, prefetch: 32, nacks: 2, slow: 20}
				t.consumers.Go(func() { other.run(consuming, fmt.Sprintf("o%d", i+1)) })
			}
			for i, q := range scratch {
				k := &warden{w: w, queue: q, proc: fmt.Sprintf("a%d", i+1), r: w.rng(q)}
				t.producers.Go(func() { k.run(producing) })
			}
			return t
		},
	}
}

// warden commands one queue, one command after the other.
type warden struct {
	w           *World
	queue, proc string
	r           *rand.Rand
	c           *client.Client
}

// run commands until ctx ends, and leaves the queue there and at work.
func (k *warden) run(ctx context.Context) {
	for ctx.Err() == nil {
		if k.c = k.w.connect(ctx, k.proc); k.c == nil {
			break
		}
		life, cancel := context.WithTimeout(ctx, between(k.r, producerLifeMin, producerLifeMost))
		for pause(life, between(k.r, 0, 2*wardenEvery)) {
			k.command(life)
		}
		cancel()
		_ = k.c.Close()
	}
	// A cluster that is broken for good is left as it is: the drain tells of it.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), wardenEnd)
	defer cancel()
	if k.c = k.w.connect(ending, k.proc+".end"); k.c != nil {
		for (k.create(ending) != nil || k.resume(ending) != nil) && pause(ending, 200*time.Millisecond) {
		}
		_ = k.c.Close()
	}
}

func (k *warden) command(ctx context.Context) {
	switch n := k.r.IntN(100); {
	case n < 30:
		_ = k.do(ctx, history.Purge, nil, func(ctx context.Context) error {
			_, err := k.c.Admin().PurgeQueue(ctx, k.queue)
			return err
		})
	case n < 45:
		_ = k.do(ctx, history.Delete, nil, func(ctx context.Context) error {
			_, err := k.c.Admin().DeleteQueue(ctx, k.queue)
			return err
		})
		pause(ctx, between(k.r, 0, recreateMost))
		_ = k.create(ctx)
	case n < 65:
		_ = k.do(ctx, history.Pause, nil, func(ctx context.Context) error {
			_, err := k.c.Admin().PauseQueue(ctx, k.queue)
			return err
		})
		pause(ctx, between(k.r, 0, pausedMost))
		_ = k.resume(ctx)
	case n < 80:
		most := uint64(k.r.IntN(2) * scratchLength)
		_ = k.do(ctx, "change", nil, func(ctx context.Context) error {
			_, err := k.c.Admin().UpdateQueue(ctx, k.queue, func(s *client.QueueSettings) { s.LengthMax = most })
			return err
		})
	default:
		k.deleteSome(ctx)
	}
}

func (k *warden) create(ctx context.Context) error {
	return k.do(ctx, "create", nil, func(ctx context.Context) error {
		_, err := k.c.Admin().CreateQueue(ctx, k.queue, client.QueueSettings{LeaseTime: queueLease})
		if errors.Is(err, client.ErrConflict) {
			return nil // it is there, and was changed
		}
		return err
	})
}

func (k *warden) resume(ctx context.Context) error {
	return k.do(ctx, history.Unpause, nil, func(ctx context.Context) error {
		_, err := k.c.Admin().ResumeQueue(ctx, k.queue)
		return err
	})
}

// deleteSome deletes messages that it has looked at.
func (k *warden) deleteSome(ctx context.Context) {
	looking, cancel := context.WithTimeout(ctx, commandMost)
	defer cancel()
	peeked, err := k.c.Admin().Peek(looking, k.queue, client.PeekOptions{Limit: deleteSome, Bodies: true})
	if err != nil || len(peeked.Messages) == 0 {
		return
	}
	var places []client.Place
	var items []history.Item
	for i := range peeked.Messages {
		m := &peeked.Messages[i]
		if m.Content == nil {
			continue
		}
		places = append(places, m.Place())
		items = append(items, history.Item{ID: idOfBizID(m.Content.BizID)})
	}
	_ = k.do(ctx, history.DeleteMessages, items, func(ctx context.Context) error {
		states, err := k.c.Admin().DeleteMessages(ctx, k.queue, places...)
		for i := range states {
			items[i].State = states[i].String()
		}
		return err
	})
}

// do commands the warden's queue.
func (k *warden) do(ctx context.Context, what string, items []history.Item, f func(ctx context.Context) error) error {
	return k.w.command(ctx, k.proc, k.queue, what, items, f)
}

// command runs a command on a queue and writes what came of it.
func (w *World) command(ctx context.Context, proc, queue, what string, items []history.Item, f func(ctx context.Context) error) error {
	op := w.H.Invoke(history.Event{Proc: proc, Client: proc, F: history.Admin, Key: queue, Text: what, Listed: items})
	// A command that was begun is seen through: how it ends is what this is about.
	trying, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandMost)
	defer cancel()
	err := f(trying)
	switch {
	case err == nil:
		w.H.Complete(op, history.OK)
	case errors.Is(err, client.ErrRevision), errors.Is(err, client.ErrNoQueue):
		op.Err = err.Error()
		w.H.Complete(op, history.Fail)
	default:
		op.Err = err.Error()
		w.H.Complete(op, history.Info)
	}
	return err
}
