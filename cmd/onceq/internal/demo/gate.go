package demo

import (
	"context"
	"sync"
)

// gate lets so many publishes pass and makes the next wait until it is opened
// further. It keeps traffic for each kill: without it a slow restart would find
// everything published already.
type gate struct {
	mu     sync.Mutex // guards what follows
	passed uint64
	limit  uint64
	opened chan struct{} // closed and made anew when limit rises
}

func newGate(limit uint64) *gate { return &gate{limit: limit, opened: make(chan struct{})} }

// wait passes the gate and reports whether that took waiting. When ctx ends it
// returns without having passed.
func (g *gate) wait(ctx context.Context) (waited bool) {
	for {
		g.mu.Lock()
		if g.passed < g.limit {
			g.passed++
			g.mu.Unlock()
			return waited
		}
		opened := g.opened
		g.mu.Unlock()
		waited = true
		select {
		case <-opened:
		case <-ctx.Done():
			return waited
		}
	}
}

// open raises the limit.
func (g *gate) open(limit uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if limit > g.limit {
		g.limit = limit
		close(g.opened)
		g.opened = make(chan struct{})
	}
}
