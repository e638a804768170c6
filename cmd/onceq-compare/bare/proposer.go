package bare

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// What an entry may have, as onceq's own.
const (
	entryGoal   = 512 << 10 // bytes; where the next one begins
	entryWorth  = 16 << 10  // from which on a second one is in flight
	inFlightMax = 4
)

// proposer collects commands while entries are in flight, and makes an entry of what has
// come together.
type proposer struct {
	apply func(entry []byte, timeout time.Duration) raft.ApplyFuture
	lost  func(error) // what was proposed may not have happened
	wake  chan struct{}

	mu     sync.Mutex // guards what follows
	open   []*batch   // oldest first; the last takes more
	flying map[uint64]*batch
	number uint64
}

// batch is an entry, and whom to tell when it is applied.
type batch struct {
	entry     []byte
	confirmed []confirms
}

// confirms is what is confirmed of a client's by an entry.
type confirms struct {
	to *client
	n  uint32
}

func newProposer(lost func(error)) *proposer {
	return &proposer{lost: lost, wake: make(chan struct{}, 1), flying: map[uint64]*batch{}}
}

// add has a command proposed; n of a client's publishes are confirmed by it.
func (p *proposer) add(k kind, body []byte, to *client, n uint32) {
	p.mu.Lock()
	if len(p.open) == 0 || len(p.open[len(p.open)-1].entry)+len(body) > entryGoal {
		p.open = append(p.open, &batch{entry: make([]byte, entryHead, entryHead+commandHead+len(body))})
	}
	b := p.open[len(p.open)-1]
	b.entry = appendCommand(b.entry, k, body)
	if last := len(b.confirmed) - 1; n > 0 && last >= 0 && b.confirmed[last].to == to {
		b.confirmed[last].n += n
	} else if n > 0 {
		b.confirmed = append(b.confirmed, confirms{to, n})
	}
	p.mu.Unlock()
	p.signal()
}

func (p *proposer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next is the entry that is worth to be proposed now, nil for none.
func (p *proposer) next() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) == 0 || len(p.flying) >= inFlightMax || len(p.flying) > 0 && len(p.open[0].entry) < entryWorth {
		return nil
	}
	b := p.open[0]
	p.open = p.open[1:]
	p.number++
	p.flying[p.number] = b
	binary.BigEndian.PutUint64(b.entry, p.number)
	return b.entry
}

// run proposes for as long as the process lives.
func (p *proposer) run() {
	for range p.wake {
		for entry := p.next(); entry != nil; entry = p.next() {
			f := p.apply(entry, 0)
			go func() {
				if err := f.Error(); err != nil {
					p.lost(err)
				}
			}()
		}
	}
}

// applied confirms what is in an entry of this node's.
func (p *proposer) applied(number uint64) {
	p.mu.Lock()
	b := p.flying[number]
	delete(p.flying, number)
	p.mu.Unlock()
	if b == nil {
		return
	}
	for _, c := range b.confirmed {
		c.to.out.frame(kindConfirmed, func(out []byte) []byte { return binary.BigEndian.AppendUint32(out, c.n) })
	}
	p.signal()
}
