package cluster

import (
	"context"
	"errors"
	"time"
)

// ErrNotLeading: the node does not lead, or has not begun to.
var ErrNotLeading = errors.New("this node does not lead")

// advanceLook is how often Advance looks whether the time is in the log.
const advanceLook = 2 * time.Millisecond

// Advance moves cluster time forward by d at once, for tests of what takes long:
// leases run out, delays pass, sessions expire. It returns when the leader has
// applied the new time and what it found due. ErrNotLeading: another node must be
// asked; it may have happened all the same when this one has just lost the lead.
func (n *Node) Advance(ctx context.Context, d time.Duration) error {
	g := n.group.Load()
	if g == nil {
		return ErrNotLeading
	}
	want, running := g.clock.skip(d)
	if !running {
		return ErrNotLeading
	}
	look := time.NewTicker(advanceLook)
	defer look.Stop()
	for {
		g.proposer.requestTick()
		g.mu.RLock()
		now, next := g.machine.Now(), g.machine.NextTimer()
		g.mu.RUnlock()
		if now >= want && (next == 0 || next > want) {
			return nil
		}
		if _, running := g.clock.read(); !running {
			return ErrNotLeading
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.done:
			return ErrNotLeading
		}
	}
}
