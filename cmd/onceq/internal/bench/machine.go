package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/latency"
)

// MachineConfig says for how long a machine is watched.
type MachineConfig struct {
	After time.Duration // is left out before
	Time  time.Duration
}

// Validate refuses what makes no sense.
func (c MachineConfig) Validate() error {
	switch {
	case c.After < 0:
		return exit.Errorf(exit.Usage, "--after %v: 0 or more", c.After)
	case c.Time <= 0:
		return exit.Errorf(exit.Usage, "--time %v: above 0", c.Time)
	}
	return nil
}

// MachineRow is what a machine kept from whoever ran on it. The percentiles are of what
// something that comes at any moment would have waited for a processor, although it goes
// before everything else: no latency that was measured meanwhile can be below.
type MachineRow struct {
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	P999    float64 `json:"p999_ms"`
	Max     float64 `json:"max_ms"`
	Stolen  float64 `json:"stolen"` // of the time of all processors, what the host took: 0 to 1
}

// ErrMachine says that a machine cannot be watched from here.
var ErrMachine = errors.New("the machine cannot be watched")

// waker calls woken each period, and tells by how much it was too late, until woken wants
// no more or ctx ends.
type waker func(ctx context.Context, period time.Duration, woken func(now time.Time, late time.Duration) (more bool, err error)) error

// machinePeriod is how often the watcher wakes up.
const machinePeriod = time.Millisecond

// Machine watches until the time is over or ctx ends, and tells what it has seen. begun
// is called when it has begun to. It is to have a process of its own: it keeps one
// thread, and shares no scheduler and no garbage collector with what is measured.
//
// The way is that of jHiccup (Gil Tene): who wakes up too late would have kept waiting
// whatever had come meanwhile, the last of it for the shortest time.
func Machine(ctx context.Context, cfg MachineConfig, begun func()) (MachineRow, error) {
	return watch(ctx, cfg, begun, wakeUps, readTicks)
}

func watch(ctx context.Context, cfg MachineConfig, begun func(), wakeUps waker, read func() (ticks, error)) (MachineRow, error) {
	if err := cfg.Validate(); err != nil {
		return MachineRow{}, err
	}
	h := latency.New()
	var before ticks
	var from, began, last time.Time
	err := wakeUps(ctx, machinePeriod, func(now time.Time, late time.Duration) (more bool, err error) {
		switch last = now; {
		case from.IsZero():
			from = now.Add(cfg.After)
			begun()
			return true, nil
		case now.Before(from):
			return true, nil
		case began.IsZero():
			began = now
			before, err = read()
			return true, err
		}
		for ; late > 0; late -= machinePeriod {
			h.Record(late)
		}
		h.Record(0)
		return now.Sub(began) < cfg.Time, nil
	})
	if err != nil {
		return MachineRow{}, err
	}
	if h.Count() == 0 {
		return MachineRow{}, fmt.Errorf("%w: nothing was seen of it yet", ErrMachine)
	}
	after, err := read()
	if err != nil {
		return MachineRow{}, err
	}
	return MachineRow{
		Seconds: last.Sub(began).Seconds(), Stolen: after.stolenSince(before),
		P50: h.Millis(50), P99: h.Millis(99), P999: h.Millis(99.9), Max: h.Millis(100),
	}, nil
}

// ticks is the time of all processors since the machine started.
type ticks struct{ all, stolen uint64 }

func (t ticks) stolenSince(before ticks) float64 {
	if t.all <= before.all {
		return 0
	}
	return float64(t.stolen-min(before.stolen, t.stolen)) / float64(t.all-before.all)
}
