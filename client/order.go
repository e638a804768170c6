package client

import "onceq/transport/wire"

// unordered is the order of publishes that come out when their delay is over.
const unordered = -1

// orderOf says among which other publishes of its producer this one keeps its
// place. Those of one priority are handed out in storing order, so they have to
// be stored in the order in which they were handed in, with or without an
// ordering key. A lower priority need not wait for a higher one, and for a
// message that is delayed storing order means nothing.
func orderOf(ms []wire.Message) int {
	for i := range ms {
		if ms[i].Delay == 0 && ms[i].DeliverAt == 0 {
			return int(ms[i].Priority) // the same for all
		}
	}
	return unordered
}

// chain notes which publish has to be stored before f, the newest of open.
func (p *Producer) chain(f *Future) {
	if f.order == unordered {
		return
	}
	f.before = p.chains[f.order]
	if f.before != nil {
		f.before.behind = f
	}
	p.chains[f.order] = f
}

// unchain: f has its outcome, or loses its sequence. What comes behind it waits
// for what came before it.
func (p *Producer) unchain(f *Future) {
	if f.behind != nil {
		f.behind.before = f.before
	} else if f.order != unordered && p.chains[f.order] == f {
		p.chains[f.order] = f.before
	}
	if f.before != nil {
		f.before.behind = f.behind
	}
	f.before, f.behind = nil, nil
}
