package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"onceq/jepsen/history"
	"onceq/transport/wire"
)

const (
	passLateMost  = 3 * time.Second
	passRetry     = 100 * time.Millisecond
	passRetryMost = 500 * time.Millisecond
)

// passer settles what a raw consumer got by ack-and-publish, and sends each of
// those more than once: at once over another connection, and again when the
// delivery was settled long ago and the cluster has forgotten its number. The
// client library would ask for the outcome instead.
type passer struct {
	*retransmitter
	to string // queue
}

// pass runs raw consumers of queue that pass everything on, until ctx ends.
func pass(ctx, bad context.Context, w *World, queue, to, name string, how holding) {
	p := &passer{to: to, retransmitter: &retransmitter{
		w: w, name: name, peers: newPeers(w, name), ctx: bad, r: w.rng(name + " copies"), next: 1, floor: 1, released: map[uint64]bool{},
	}}
	defer p.peers.close()
	if !p.open() {
		return
	}
	how.pass = p.pass
	misbehave(ctx, bad, w, queue, name, how)
}

// pass is the end of one delivery.
func (p *passer) pass(s *holder, h *held, r *rand.Rand) {
	e := p.take()
	e.queue, e.id = p.to, fmt.Sprintf("%s>%d.%s.%d", h.id, h.attempt, p.name, e.sequence)
	e.messages = []wire.Message{wireContent(e.id)}
	for !p.passed(s, h, e, r) {
		if s.isOver() {
			return // the sequence stays open, and so does the floor
		}
		time.Sleep(between(r, passRetry, passRetryMost))
	}
	s.mu.Lock()
	h.end()
	delete(s.open, h.number)
	s.mu.Unlock()
	for range r.IntN(3) {
		pause(p.ctx, between(r, 0, passLateMost))
		p.copy(s, h, e, p.peers.toLeader(r), false)
	}
	p.release(e)
}

// passed sends one copy or two at once, and says whether the outcome is known.
func (p *passer) passed(s *holder, h *held, e *entry, r *rand.Rand) bool {
	var second bool
	var wg sync.WaitGroup
	if r.IntN(4) == 0 {
		to := p.peers.toLeader(r)
		wg.Go(func() { second = p.copy(s, h, e, to, true) })
	}
	first := p.copy(s, h, e, p.peers.toLeader(r), true)
	wg.Wait()
	return first || second
}

// copy sends one copy and writes what became of it: of the ack too, while it is
// open. It is true when the outcome is final.
func (p *passer) copy(s *holder, h *held, e *entry, to line, open bool) (final bool) {
	ctx, cancel := context.WithTimeout(context.Background(), copyTimeout)
	defer cancel()
	c := p.peers.get(ctx, to)
	if c == nil {
		return false
	}
	s.mu.Lock()
	done := s.done()
	s.mu.Unlock()
	p.mu.Lock()
	floor := min(p.floor, e.sequence)
	p.mu.Unlock()
	outputs := []wire.Output{{Queue: e.queue, Messages: e.messages}}
	acked := history.Event{
		Proc: s.proc, Client: s.proc, Node: c.Welcome.Node, F: history.Ack, Key: s.queue, ID: h.id, Seq: h.seq, Text: history.Chained,
		Lease: fmt.Sprintf("%s:%d", s.proc, h.number), Attempt: h.attempt,
	}
	if open {
		acked = s.w.H.Invoke(acked)
	}
	published := s.w.H.Invoke(history.Event{
		Proc: p.proc(e), Client: p.name, Node: c.Welcome.Node, F: history.Publish, Key: e.queue, ID: e.id, Carried: carried(e.messages[0]), Copies: 1, Inner: p.inner(e),
	})
	end := func(t history.Type, reason string) {
		published.Err, acked.Err = reason, reason
		s.w.H.Complete(published, t)
		if open {
			s.w.H.Complete(acked, t)
		}
	}
	payload, err := c.Call(ctx, wire.OpAckPublish, wire.AckPublish{
		Incarnation: p.session.Session.Incarnation, Group: p.session.Session.Group, Session: p.session.Session.Number, Epoch: p.session.Epoch,
		Floor: floor, Sequence: e.sequence, Checksum: wire.AckPublishChecksum(s.id, h.number, outputs),
		Consumer: s.id, Number: h.number, Done: done, Outputs: outputs,
	})
	res, err := onlyResult(payload, err)
	if err == nil && res.Status == wire.StatusOK && len(res.Outputs) != 1 {
		err = errors.New("stored without a place")
	}
	switch {
	case err != nil && !p.peers.answer(err):
		s.w.Count.Unknown.Add(1)
		end(history.Info, err.Error())
		return false
	case err == nil && res.Status == wire.StatusOK:
		published.Seq, published.Lane, published.Dup = res.Outputs[0].Offset, int(res.Outputs[0].Lane), res.Duplicate
		s.w.Count.Published.Add(1)
		s.w.Count.Acked.Add(1)
		end(history.OK, "")
		return true
	case err == nil && (res.Status == wire.StatusLeaseLost || res.Status == wire.StatusConsumerGone):
		// Whoever finds no record and no lease will never find one.
		s.w.Count.Lost.Add(1)
		end(history.Fail, res.Status.String())
		return true
	case err == nil:
		err = errors.New(res.Status.String())
	}
	acked.F, acked.Text = history.Nothing, acked.F
	s.w.Count.Refused.Add(1)
	end(history.Fail, err.Error())
	return false
}
