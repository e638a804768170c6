package proxy

import (
	"sync"
	"time"

	"onceq/transport/wire"
)

// Presence is a Tap that notes for each consumer, by its label, the stretches of
// time in which it cannot have heard from the cluster. The cluster may give a
// consumer up that was away for long enough, and only then.
type Presence struct {
	// Least is how long a stretch must be to be told.
	Least time.Duration
	// Silent is told of a stretch when it ends.
	Silent func(label string, from, to time.Time)

	mu        sync.Mutex // guards what follows
	asked     map[request]wire.Attach
	consumers map[string]*presence // by label
	byLink    map[int][]*presence
}

type request struct {
	link int
	corr uint32
}

type presence struct {
	label    string
	consumer wire.ConsumerID
	link     int // where it is attached, 0 for nowhere
	heard    time.Time
}

// NewPresence makes a Presence.
func NewPresence(least time.Duration, silent func(label string, from, to time.Time)) *Presence {
	return &Presence{
		Least: least, Silent: silent,
		asked: map[request]wire.Attach{}, consumers: map[string]*presence{}, byLink: map[int][]*presence{},
	}
}

// Frame implements Tap.
func (p *Presence) Frame(l Link, d Direction, f wire.Frame) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if d == ToServer {
		if f.Op == wire.OpAttach && !f.Reply {
			if a, err := wire.DecodeAttach(f.Payload); err == nil {
				p.asked[request{l.Number, f.Corr}] = a
			}
		}
		return
	}
	for _, c := range p.byLink[l.Number] {
		p.hear(c, now)
	}
	if f.Op != wire.OpAttach || !f.Reply {
		return
	}
	a, ok := p.asked[request{l.Number, f.Corr}]
	delete(p.asked, request{l.Number, f.Corr})
	reply, err := wire.DecodeAttached(f.Payload)
	if !ok || err != nil || reply.Status != wire.StatusOK {
		return
	}
	c := p.consumers[a.Label]
	switch {
	case c == nil:
		c = &presence{label: a.Label, heard: now}
		p.consumers[a.Label] = c
	case c.consumer != a.Consumer:
		// It was given up and begins anew.
		p.hear(c, now)
	default:
		p.hear(c, now)
		p.leave(c)
	}
	c.consumer = a.Consumer
	if c.link != l.Number {
		p.leave(c)
		c.link = l.Number
		p.byLink[l.Number] = append(p.byLink[l.Number], c)
	}
}

func (p *Presence) hear(c *presence, now time.Time) {
	if now.Sub(c.heard) >= p.Least {
		p.Silent(c.label, c.heard, now)
	}
	c.heard = now
}

// leave takes a consumer off the link it was on.
func (p *Presence) leave(c *presence) {
	on := p.byLink[c.link]
	for i, x := range on {
		if x == c {
			p.byLink[c.link] = append(on[:i:i], on[i+1:]...)
			break
		}
	}
	if len(p.byLink[c.link]) == 0 {
		delete(p.byLink, c.link)
	}
	c.link = 0
}

// Closed implements Tap.
func (p *Presence) Closed(l Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.byLink[l.Number] {
		c.link = 0
	}
	delete(p.byLink, l.Number)
	for r := range p.asked {
		if r.link == l.Number {
			delete(p.asked, r)
		}
	}
}

// Finish tells the stretches that have not ended.
func (p *Presence) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.consumers {
		if c.link == 0 {
			p.hear(c, time.Now())
		}
	}
}
