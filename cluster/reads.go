package cluster

import (
	"onceq/transport/wire"
)

// read is a look-up that must see everything that was confirmed before it came.
// do runs under the machine's read lock, and then, which may be nil, when it is
// free again: nothing is applied while it is held, so do visits a bounded number of
// rows, and no two look-ups share one hold. refuse is called instead of
// both when the look-up cannot be answered.
type read struct {
	do     func()
	then   func()
	refuse func(e *wire.ErrorReply)
}

// reader answers look-ups at the leader. It takes the commit index first and
// lets a majority confirm the leadership after that (see confirmer), so the index covers
// whatever any leader has confirmed; then it waits until that much is applied
// here. A node that only believes to lead, or has not caught up with its
// predecessor, would answer "not stored" for a confirmed message. One
// confirmation serves all look-ups that waited for it.
type reader struct {
	g     *group
	queue chan read
	asks  *confirmer // set before it runs
}

func newReader(g *group) *reader { return &reader{g: g, queue: make(chan read, readsMax)} }

// submit queues a look-up; it never blocks.
func (r *reader) submit(q read) {
	select {
	case r.queue <- q:
	default:
		q.refuse(errOverloaded("look-ups"))
	}
}

func (r *reader) run(end <-chan struct{}) {
	defer r.asks.asking.Wait()
	for {
		var batch []read
		select {
		case q := <-r.queue:
			batch = append(batch, q)
		case <-end:
			r.drain()
			return
		}
		for more := true; more; {
			select {
			case q := <-r.queue:
				batch = append(batch, q)
			default:
				more = false
			}
		}
		refused := r.confirm(end)
		if refused != nil {
			for _, q := range batch {
				q.refuse(refused)
			}
			continue
		}
		r.answer(batch)
	}
}

// confirm returns nil when the machine may be read.
func (r *reader) confirm(end <-chan struct{}) *wire.ErrorReply {
	// The term that is served in, and not the present one: a node that has lost the
	// leadership and won it again has in its log what was confirmed meanwhile, and need
	// not have applied it.
	term := r.g.lead.servesIn()
	if term == 0 {
		return r.g.refusal()
	}
	index := r.g.raft.CommitIndex()
	if !r.asks.leads(term, end) {
		return r.g.refusal()
	}
	ch := r.g.progress.reached(index)
	select {
	case <-ch:
		return nil
	case <-end:
		r.g.progress.forget(ch)
		return errShuttingDown()
	}
}

func (r *reader) answer(batch []read) {
	for _, q := range batch {
		r.look(q)
		if q.then != nil {
			q.then()
		}
	}
}

func (r *reader) look(q read) {
	r.g.mu.RLock()
	defer r.g.mu.RUnlock()
	q.do()
}

// drain refuses what came too late.
func (r *reader) drain() {
	for {
		select {
		case q := <-r.queue:
			q.refuse(errShuttingDown())
		default:
			return
		}
	}
}
