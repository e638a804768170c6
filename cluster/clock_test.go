package cluster

import (
	"testing"
	"time"

	"onceq/fsm"
)

// fakeMono is a monotonic clock that a test moves by hand.
type fakeMono struct{ at time.Duration }

func (f *fakeMono) read() time.Duration { return f.at }

func TestClock_CountsFromTheMachinesNow(t *testing.T) {
	mono := &fakeMono{at: time.Hour}
	c := newClock(mono.read)
	if got := c.sample(0); got != 0 {
		t.Fatalf("before the term: stamped %d", got)
	}
	mono.at += time.Hour
	c.start(1000)
	mono.at += 300 * time.Millisecond
	if got, want := c.sample(0), fsm.Time(1000+300*time.Millisecond); got != want {
		t.Fatalf("stamp %d, want %d", got, want)
	}
}

func TestClock_APauseCostsASecondAtMost(t *testing.T) {
	mono := &fakeMono{}
	c := newClock(mono.read)
	c.start(0)
	mono.at += time.Minute // paused, suspended
	if got, want := c.sample(0), fsm.Time(time.Second); got != want {
		t.Fatalf("after a pause of a minute: %v, want %v", time.Duration(got), time.Duration(want))
	}
	mono.at += 10 * time.Millisecond
	if got, want := c.sample(0), fsm.Time(time.Second+10*time.Millisecond); got != want {
		t.Fatalf("after it: %v, want %v", time.Duration(got), time.Duration(want))
	}
}

func TestClock_AStalledProposalStopsTime(t *testing.T) {
	mono := &fakeMono{}
	c := newClock(mono.read)
	c.start(0)
	var wait time.Duration
	for range 80 { // eight seconds in samples of 100 ms
		mono.at += clockSampleEvery
		wait += clockSampleEvery
		c.sample(wait)
	}
	if got, _ := c.read(); got != fsm.Time(clockStallMax) {
		t.Fatalf("eight seconds of stall moved time by %v, want %v", time.Duration(got), clockStallMax)
	}
	mono.at += clockSampleEvery
	if got := c.sample(0); got != fsm.Time(clockStallMax+clockSampleEvery) {
		t.Fatalf("after the stall: %v", time.Duration(got))
	}
}

func TestClock_StandsBetweenTerms(t *testing.T) {
	mono := &fakeMono{}
	c := newClock(mono.read)
	c.start(5)
	c.stop()
	mono.at += time.Second
	if got := c.sample(0); got != 5 {
		t.Fatalf("moved to %d without leading", got)
	}
	if _, running := c.read(); running {
		t.Fatal("runs after stop")
	}
}

func TestTickAt(t *testing.T) {
	const s = fsm.Time(time.Second)
	for _, tc := range []struct {
		name                string
		now, deadline, want fsm.Time
	}{
		{"due: at once", 100 * s, 100 * s, 100 * s},
		{"overdue: at once", 100 * s, 90 * s, 100 * s},
		{"within a second: exactly when due", 100 * s, 100*s + s/2, 100*s + s/2},
		{"within ten: each second", 100 * s, 107 * s, 101 * s},
		{"beyond: a tenth of what remains", 100 * s, 300 * s, 120 * s},
		{"far: each minute", 0, 72 * 3600 * s, 60 * s},
	} {
		if got := tickAt(tc.now, tc.deadline); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, time.Duration(got), time.Duration(tc.want))
		}
	}
}

// TestTickAt_FailoversSlowADelayByATenth replays: a delay of half an hour, and
// a leader that dies right before each next tick would be committed.
func TestTickAt_FailoversSlowADelayByATenth(t *testing.T) {
	const delay = fsm.Time(30 * time.Minute)
	var now, lost fsm.Time
	for now < delay {
		next := tickAt(now, delay)
		// A term lives until just before its second tick: it commits one and
		// loses what it measured after it.
		now = next
		if now < delay {
			lost = max(lost, tickAt(now, delay)-now)
		}
	}
	if now != delay {
		t.Fatalf("tick at %v, the deadline is %v", time.Duration(now), time.Duration(delay))
	}
	if lost > delay/10 {
		t.Fatalf("one failover loses %v", time.Duration(lost))
	}
}
