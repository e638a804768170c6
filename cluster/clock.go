package cluster

import (
	"sync"
	"time"

	"onceq/fsm"
)

const (
	// clockSampleMax is the most that one sample may add. A process that was
	// paused, a machine that was suspended: they cost everybody's leases this
	// much and no more.
	clockSampleMax = time.Second
	// clockSampleEvery is how often a sample is taken beside the stamps.
	clockSampleEvery = 100 * time.Millisecond
	// clockStallMax: while the oldest proposal has waited longer, time stands.
	// Extends are stuck behind the same disk, so leases must not run.
	clockStallMax = time.Second
)

// clock is the leader's measure of cluster time: the machine's now at the
// leader's own first entry, plus what samples of the monotonic clock have added
// since. It is a sum of samples and never a difference to the start of the
// term, because the difference would count a pause in full.
//
// Invariant: between stop and start nothing is added and nothing is stamped.
type clock struct {
	mono func() time.Duration // the monotonic clock

	mu      sync.Mutex // guards the fields below; nothing is called under it
	running bool
	now     fsm.Time
	last    time.Duration // when the newest sample was taken
}

func newClock(mono func() time.Duration) *clock { return &clock{mono: mono} }

// monotonic returns the process's monotonic clock, counted from now on.
func monotonic() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// start begins a term at the machine's time.
func (c *clock) start(base fsm.Time) {
	at := c.mono()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running, c.now, c.last = true, base, at
}

// stop ends the term.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = false
}

// sample adds what was measured since the last sample and returns the time to
// stamp. oldestWait is how long the oldest proposal has been waiting.
func (c *clock) sample(oldestWait time.Duration) fsm.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Read under the lock: two samples out of order would count a span twice.
	at := c.mono()
	passed := at - c.last
	c.last = at
	if c.running && oldestWait <= clockStallMax && passed > 0 {
		c.now += fsm.Time(min(passed, clockSampleMax))
	}
	return c.now
}

// skip adds to the time as if d had been measured. False while nobody leads here.
func (c *clock) skip(d time.Duration) (now fsm.Time, running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running {
		c.now += fsm.Time(d)
	}
	return c.now, c.running
}

// latest returns the time that a sample would give now at the most, without taking one:
// what is promised by it is not promised for too long.
func (c *clock) latest() (now fsm.Time, running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running {
		return c.now, false
	}
	return c.now + fsm.Time(max(0, min(c.mono()-c.last, clockSampleMax))), true
}

// read returns the time of the newest sample, without taking one.
func (c *clock) read() (now fsm.Time, running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, c.running
}

const (
	tickNear    = fsm.Time(10 * time.Second) // a deadline this close: ticks each second
	tickNearMax = fsm.Time(time.Second)
	tickFarMax  = fsm.Time(time.Minute)
)

// tickAt returns the cluster time at which the next stamp must be in the log,
// given the machine's now, its earliest deadline and the machine's now when the
// term began. What was not committed is lost with the leader. Ticks in
// proportion to what remains and to the term's age let failovers slow a delay
// by about a tenth and never starve it, not even when no leader lives as long as
// a tenth of the delay; a leader that lives long ticks rarely.
func tickAt(now, deadline, began fsm.Time) fsm.Time {
	remains := deadline - now
	switch {
	case remains <= 0:
		return now
	case remains <= tickNear:
		return now + min(remains, tickNearMax)
	default:
		return now + min(remains/10, tickFarMax, max(tickNearMax, (now-began)/10))
	}
}
