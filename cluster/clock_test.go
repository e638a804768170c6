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

// What a consumer is told that it has left of a lease must not be more than it has,
// however long ago the clock was sampled.
func TestClock_TheLatestIsWhatASampleWouldGive(t *testing.T) {
	mono := &fakeMono{at: time.Hour}
	c := newClock(mono.read)
	if _, running := c.latest(); running {
		t.Error("it runs before the term")
	}
	c.start(1000)
	for _, passed := range []time.Duration{0, 70 * time.Millisecond, 900 * time.Millisecond, time.Minute} {
		mono.at += passed
		latest, running := c.latest()
		if again, _ := c.latest(); again != latest || !running {
			t.Errorf("%v after the last sample it is %d, then %d", passed, latest, again)
		}
		if sampled := c.sample(0); sampled != latest {
			t.Errorf("%v after the last sample: %d, and a sample gives %d", passed, latest, sampled)
		}
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
		name                       string
		began, now, deadline, want fsm.Time
	}{
		{"due: at once", 0, 100 * s, 100 * s, 100 * s},
		{"overdue: at once", 0, 100 * s, 90 * s, 100 * s},
		{"within a second: exactly when due", 0, 100 * s, 100*s + s/2, 100*s + s/2},
		{"within ten: each second", 0, 100 * s, 107 * s, 101 * s},
		{"beyond: a tenth of what remains", 0, 1000 * s, 1200 * s, 1020 * s},
		{"far: each minute", 0, 1000 * s, 72 * 3600 * s, 1060 * s},
		{"far, in a young term: each second", 100 * s, 105 * s, 72 * 3600 * s, 106 * s},
		{"far, in an older one: a tenth of its age", 100 * s, 300 * s, 72 * 3600 * s, 320 * s},
	} {
		if got := tickAt(tc.now, tc.deadline, tc.began); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, time.Duration(got), time.Duration(tc.want))
		}
	}
}

// TestTickAt_FailoversSlowADelayByATenth replays a delay of half an hour with
// leaders that die without a warning, however often: what they had measured
// and not committed is lost.
func TestTickAt_FailoversSlowADelayByATenth(t *testing.T) {
	const delay = fsm.Time(30 * time.Minute)
	for _, life := range []fsm.Time{fsm.Time(20 * time.Second), fsm.Time(2 * time.Minute), fsm.Time(25 * time.Minute)} {
		var committed, spent fsm.Time
		for committed < delay {
			began := committed
			for {
				next := tickAt(committed, delay, began)
				if next-began > life || committed >= delay {
					break
				}
				committed = next
			}
			if committed < delay {
				spent += life
			} else {
				spent += committed - began
			}
			if spent > 2*delay {
				t.Fatalf("leaders that live %v: %v committed after %v", time.Duration(life), time.Duration(committed), time.Duration(spent))
			}
		}
		if most := delay + delay/8; spent > most {
			t.Errorf("leaders that live %v: a delay of %v took %v", time.Duration(life), time.Duration(delay), time.Duration(spent))
		}
	}
}
