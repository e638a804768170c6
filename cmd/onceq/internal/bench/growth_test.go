package bench

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"onceq/cmd/onceq/internal/exit"
)

func growthConfig() GrowthConfig {
	return GrowthConfig{Of: []string{GrowQueues}, Sizes: map[string][]uint64{GrowQueues: {1, 10}}, Body: 16, Window: time.Second, Windows: 3, InFlight: 10}
}

func TestGrowthValidate_RefusesNonsense(t *testing.T) {
	if err := growthConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*GrowthConfig){
		"of nothing known": func(c *GrowthConfig) { c.Of = []string{"moons"} },
		"no sizes":         func(c *GrowthConfig) { c.Of = nil },
		"descending":       func(c *GrowthConfig) { c.Sizes[GrowQueues] = []uint64{10, 1} },
		"too many":         func(c *GrowthConfig) { c.Sizes[GrowQueues] = []uint64{growthMax[GrowQueues] + 1} },
		"small body":       func(c *GrowthConfig) { c.Body = 1 },
		"no time":          func(c *GrowthConfig) { c.Window = 0 },
		"none in flight":   func(c *GrowthConfig) { c.InFlight = 0 },
	} {
		c := growthConfig()
		change(&c)
		if exit.Of(c.Validate()) != exit.Usage {
			t.Errorf("%s: %v", name, c.Validate())
		}
	}
}

func TestGrowthRatio_CPUAndWithoutItTheTime(t *testing.T) {
	first := GrowthRow{PerSecond: 100, CPUMicros: 20}
	if got := growthRatio(GrowthRow{PerSecond: 100, CPUMicros: 30}, first); got != 1.5 {
		t.Error(got)
	}
	if got := growthRatio(GrowthRow{PerSecond: 50}, GrowthRow{PerSecond: 100}); got != 2 {
		t.Error(got)
	}
}

func TestEach_OnceForEachAndEndsWithTheFirstError(t *testing.T) {
	var sum atomic.Uint64
	if err := each(t.Context(), 3, 200, func(_ context.Context, i uint64) error { sum.Add(i); return nil }); err != nil || sum.Load() != 199*200/2-3 {
		t.Fatal(err, sum.Load())
	}
	broken := errors.New("broken")
	if err := each(t.Context(), 0, 1<<40, func(context.Context, uint64) error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
}

func tailsConfig() TailsConfig {
	return TailsConfig{Events: []string{TailLarge, TailSlow}, Time: time.Second, Rate: 10, Size: 16, Connections: 1, Queues: 10, Active: 10, Behind: 1}
}

func TestTailsConfig_RefusesNonsense(t *testing.T) {
	for name, change := range map[string]func(*TailsConfig){
		"an event that is not known":                   func(c *TailsConfig) { c.Events = []string{"flood"} },
		"less than no connections":                     func(c *TailsConfig) { c.Connections = -1 },
		"too many connections":                         func(c *TailsConfig) { c.Connections = int(growthMax[GrowConnections]) + 1 },
		"no queues":                                    func(c *TailsConfig) { c.Queues, c.Active = 0, 0 },
		"more in use than there are":                   func(c *TailsConfig) { c.Active = c.Queues + 1 },
		"a follower that has missed less than nothing": func(c *TailsConfig) { c.Behind = -1 },
		"a follower that has missed too much":          func(c *TailsConfig) { c.Behind = backlogMax + 1 },
		"no rate":                                      func(c *TailsConfig) { c.Rate = 0 },
	} {
		c := tailsConfig()
		change(&c)
		if exit.Of(c.Validate()) != exit.Usage {
			t.Errorf("%s: %v", name, c.Validate())
		}
	}
}

func TestTailsConfig_TheCalmLoadComesFirst(t *testing.T) {
	c := tailsConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := c.events(); len(got) != 3 || got[0] != TailCalm || got[1] != TailSlow || got[2] != TailLarge {
		t.Error(got)
	}
	c.Events = nil
	if got := c.events(); len(got) != len(Tails) {
		t.Error(got)
	}
}
