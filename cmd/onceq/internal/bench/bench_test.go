package bench

import (
	"bytes"
	"compress/flate"
	"testing"
	"time"

	"onceq/cmd/onceq/internal/exit"
)

var cfg = Config{Workload: "pub", Sizes: []int{16}, Time: time.Second, Rate: 100, Producers: 1, Consumers: 1, InFlight: 10, Seed: 1}

func TestValidate_RefusesNonsense(t *testing.T) {
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no size":        func(c *Config) { c.Sizes = nil },
		"small body":     func(c *Config) { c.Sizes = []int{16, 8} },
		"no time":        func(c *Config) { c.Time = 0 },
		"no rate":        func(c *Config) { c.Rate = 0 },
		"too many":       func(c *Config) { c.Rate, c.Time = 1e6, time.Hour },
		"no producers":   func(c *Config) { c.Producers = 0 },
		"no consumers":   func(c *Config) { c.Consumers = 0 },
		"none in flight": func(c *Config) { c.InFlight = 0 },
	} {
		c := cfg
		change(&c)
		if exit.Of(c.Validate()) != exit.Usage {
			t.Errorf("%s: %v", name, c.Validate())
		}
	}
}

func TestBodies_NumberedAndIncompressible(t *testing.T) {
	b := newBodies(1024, 7)
	for n := range uint64(500_000) {
		b.next(n, 0) // what was drawn from for long is still random
	}
	var all bytes.Buffer
	for n := range uint64(100) {
		body := b.next(n, time.Duration(n)*time.Second)
		if got, due, ok := label(body); len(body) != 1024 || got != n || due != time.Duration(n)*time.Second || !ok {
			t.Fatal(len(body), got, due, ok)
		}
		all.Write(body)
	}
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(all.Bytes())
	w.Close()
	if packed.Len() < all.Len()*95/100 {
		t.Fatalf("%d bytes compress to %d", all.Len(), packed.Len())
	}
	if _, _, ok := label([]byte("short")); ok {
		t.Fatal("a short body has a label")
	}
}

func TestBodies_SameForASeed(t *testing.T) {
	if one := newBodies(64, 3); bytes.Equal(one.share(5).next(1, 0), one.share(6).next(1, 0)) || !bytes.Equal(one.share(5).next(1, 0), one.share(5).next(1, 0)) {
		t.Error("shared bodies depend on their seeds alone")
	}
	if !bytes.Equal(newBodies(64, 3).next(1, 0), newBodies(64, 3).next(1, 0)) || bytes.Equal(newBodies(64, 3).next(1, 0), newBodies(64, 4).next(1, 0)) {
		t.Fatal("bodies do not follow from the seed")
	}
}

func TestSeen_CountsEachOnce(t *testing.T) {
	var s seen
	for _, n := range []uint64{0, 63, 64, 1_000_000} {
		if !s.add(n) || s.add(n) {
			t.Fatal(n)
		}
	}
	if s.count != 4 {
		t.Fatal(s.count)
	}
}

func TestLoadsOf_OnlyTheChosen(t *testing.T) {
	c := cfg
	if got := loadsOf(c); len(got) != 3 {
		t.Fatal(got)
	}
	c.Loads = []string{LoadFull}
	if got := loadsOf(c); len(got) != 1 || got[0].inFlight != c.InFlight || got[0].rate != 0 {
		t.Fatal(got)
	}
}

func TestDueAt_DoesNotDrift(t *testing.T) {
	began := time.Unix(0, 0)
	if got := dueAt(began, 3_000_000, 3000); got.Sub(began) != 1000*time.Second {
		t.Fatal(got)
	}
}
