package cluster

import (
	"sync"
	"time"

	"onceq/fsm"
	"onceq/transport/wire"
)

const (
	// holdBefore: the grace of a new term's consumers is prolonged this long
	// before it would end, when consumers are still on their way.
	holdBefore = fsm.Time(2 * time.Second)
	// unheardFor: a connection this young that has not asked anything may be a
	// consumer that is about to attach.
	unheardFor = 2 * time.Second
)

// ticker keeps the leader's clock sampled and the log's clock moving while the
// machine waits for a deadline. It counts cluster time only, which its own
// samples move; it never looks at how much time has passed.
type ticker struct {
	g    *group
	wake chan struct{} // cap 1

	mu     sync.Mutex // guards the fields below
	active bool
	target fsm.Time // a stamp is wanted at this time; 0: no deadline is pending
	hold   fsm.Time // when to prolong the grace of all, if consumers are on their way
	holds  int      // in this term
	began  fsm.Time // the machine's now when the term began
}

func newTicker(g *group) *ticker { return &ticker{g: g, wake: make(chan struct{}, 1)} }

// start begins a term. Called by the goroutine that applies.
func (t *ticker) start(now fsm.Time) {
	t.mu.Lock()
	t.active, t.target, t.holds, t.began = true, 0, 0, now
	t.hold = now + fsm.Time(fsm.GraceTime) - holdBefore
	t.mu.Unlock()
	t.poke()
}

func (t *ticker) stop() {
	t.mu.Lock()
	t.active = false
	t.mu.Unlock()
	t.poke()
}

func (t *ticker) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// applied takes note of what an entry left to wait for. Called by the goroutine
// that applies.
func (t *ticker) applied(eff *fsm.Effects) {
	t.mu.Lock()
	old := t.target
	t.target = 0
	if eff.NextTimer != 0 {
		t.target = tickAt(eff.Now, eff.NextTimer, t.began)
	}
	sooner := t.target != 0 && (old == 0 || t.target < old)
	t.mu.Unlock()
	if eff.More {
		t.g.proposer.requestTick()
		return
	}
	if sooner {
		t.poke()
	}
}

// run samples and ticks until the group ends.
func (t *ticker) run(end <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, active := t.step()
		if !active {
			select {
			case <-t.wake:
				continue
			case <-end:
				return
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-t.wake:
		case <-end:
			return
		}
	}
}

// step takes a sample, asks for a tick when one is due, and returns how long to
// wait for the next step.
func (t *ticker) step() (wait time.Duration, active bool) {
	t.mu.Lock()
	active, target, hold, holds := t.active, t.target, t.hold, t.holds
	t.mu.Unlock()
	if !active {
		return 0, false
	}
	now := t.g.clock.sample(t.g.proposer.oldestWait())
	t.g.hub.proposeDetaches()
	t.g.receives.expire()
	if holds < fsm.GraceHoldsMax && now >= hold {
		t.maybeHold(now)
	}
	wait = clockSampleEvery
	if target != 0 {
		if target <= now {
			t.g.proposer.requestTick()
		} else {
			wait = min(wait, time.Duration(target-now))
		}
	}
	return wait, true
}

// maybeHold prolongs everybody's grace while consumers are on their way: a
// storm of reconnects after a failover is no reason to redeliver.
func (t *ticker) maybeHold(now fsm.Time) {
	waiting := t.g.proposer.attachesWaiting() + t.g.hub.unheard(unheardFor)
	t.mu.Lock()
	if waiting == 0 {
		t.holds = fsm.GraceHoldsMax // whoever comes later has a grace of its own
		t.mu.Unlock()
		return
	}
	t.holds++
	t.hold = now + fsm.Time(fsm.GraceTime) - holdBefore
	t.mu.Unlock()
	t.g.propose(fsm.KindHoldGrace, fsm.HoldGracePayload(), func(o outcome) {
		if o.Err != nil && o.Err.Code == wire.CodeOverloaded {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.holds--
			t.hold = now
		}
	})
}
