package fsmtest

import (
	"fmt"

	"onceq/transport/wire"
)

// modelPull is one receive of an entry. Its answer is line at of the results.
type modelPull struct {
	wire.Receive
	at    int
	queue *modelQueue
	from  *modelConsumer // nil: refused
}

// Next is the number of a consumer's next delivery: what a receive that makes
// sense begins with.
func (m *Model) Next(id wire.ConsumerID) uint64 {
	if _, k := m.consumer(id); k != nil {
		return uint64(len(k.log)) + 1
	}
	return 1
}

func (e *modelEntry) puller(id wire.ConsumerID, queue string, first uint64) (*modelQueue, *modelConsumer, string) {
	_, q := e.queue(queue)
	owner, k := e.consumer(id)
	switch {
	case q == nil:
		return nil, nil, "no queue"
	case k != nil && (k.pulled == 0 || owner != q || k.leaving), k == nil && first != 1:
		return nil, nil, "consumer gone"
	case k == nil && reached(e.Limits.ConsumersMax, e.consumers()):
		return nil, nil, "too many consumers"
	case k == nil:
		k = e.newConsumer(id, q)
		k.pulled = 1
	}
	return q, k, ""
}

func (e *modelEntry) beginPull(p *modelPull) string {
	q, k, refused := e.puller(p.Consumer, p.Queue, p.First)
	if refused != "" {
		return refused
	}
	k.raise(p.Done)
	p.queue, p.from = q, k
	if p.First == uint64(len(k.log))+1 && k.want == 0 {
		k.want = int(p.Limit)
	}
	return ""
}

func (e *modelEntry) endPull(p *modelPull) string {
	k := p.from
	k.want = 0
	next := uint64(len(k.log)) + 1
	if p.First > k.pulled && p.First < next {
		k.pulled = p.First
	}
	held := ""
	for i, d := range k.log {
		if n := uint64(i + 1); p.First == k.pulled && n >= p.First && d.state == wire.LeaseHeld {
			held += fmt.Sprintf(" #%d q%d/p%d.%d attempt %d until %v", n, e.number(p.queue), d.message.lane, d.message.offset, d.attempt, d.deadline)
		}
	}
	st := "ok"
	if p.First < next && held == "" {
		st = "stale"
	}
	p.queue.dropUnused(k)
	k.rest(e)
	return fmt.Sprintf("%s q%d next %d%s", st, e.number(p.queue), next, held)
}

// dropUnused forgets a puller that was made for nothing.
func (q *modelQueue) dropUnused(k *modelConsumer) {
	if len(k.log) == 0 {
		q.drop(k)
	}
}

// rest notes when a puller's last lease went.
func (k *modelConsumer) rest(e *modelEntry) {
	if held := k.held() > 0; held != k.busy {
		k.busy, k.idle = held, e.Now
	}
}

func (e *modelEntry) pullerEnds(q *modelQueue, k *modelConsumer) bool {
	k.rest(e)
	if !k.busy && k.idle+q.settings.LeaseTime <= e.Now {
		return true
	}
	for _, d := range k.log {
		d.tell = false
		if d.state == wire.LeaseHeld && d.deadline <= e.Now {
			e.failed(d, wire.LeaseExpired, 0)
		}
	}
	k.rest(e)
	return false
}

func (e *modelEntry) release(r wire.Release) string {
	q, k, refused := e.puller(r.Consumer, r.Queue, r.First)
	if refused != "" {
		return refused
	}
	k.raise(r.Done)
	switch {
	case r.First == uint64(len(k.log))+1 && reached(e.Limits.LeasesMax, e.remembered()):
		q.dropUnused(k)
		return "too many leases"
	case r.First == uint64(len(k.log))+1:
		k.log = append(k.log, &modelDelivery{state: wire.LeaseReturned})
		k.pulled = r.First
		if k.held() == 0 {
			k.busy, k.idle = false, e.Now
		}
	case r.First == k.pulled:
		for i, d := range k.log {
			if uint64(i+1) >= r.First && d.state == wire.LeaseHeld {
				d.state = wire.LeaseReturned
				e.record(d.message)
				e.comeBack(d.message, 0)
			}
		}
	}
	return fmt.Sprintf("ok q%d next %d", e.number(q), len(k.log)+1)
}
