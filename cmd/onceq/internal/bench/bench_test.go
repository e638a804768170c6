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
	var all bytes.Buffer
	for n := range uint64(100) {
		body := b.next(n)
		if got, ok := number(body); len(body) != 1024 || got != n || !ok {
			t.Fatal(len(body), got, ok)
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
	if _, ok := number([]byte("short")); ok {
		t.Fatal("a short body has a number")
	}
}

func TestBodies_SameForASeed(t *testing.T) {
	if !bytes.Equal(newBodies(64, 3).next(1), newBodies(64, 3).next(1)) || bytes.Equal(newBodies(64, 3).next(1), newBodies(64, 4).next(1)) {
		t.Fatal("bodies do not follow from the seed")
	}
}

func TestDueAt_DoesNotDrift(t *testing.T) {
	began := time.Unix(0, 0)
	if got := dueAt(began, 3_000_000, 3000); got.Sub(began) != 1000*time.Second {
		t.Fatal(got)
	}
}
