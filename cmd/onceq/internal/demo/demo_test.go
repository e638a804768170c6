package demo

import (
	"context"
	"testing"
	"testing/synctest"

	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/ledger"
)

var cfg = Config{Messages: 1000, Producers: 2, Consumers: 2, Nodes: 3, Kills: 2, Seed: 5, BodyBytes: 100}

func TestBody_ReadsBackAndShowsDamage(t *testing.T) {
	for _, id := range []ledger.ID{{Producer: 1}, {Producer: 200, Number: 1 << 40}} {
		b := cfg.body(id)
		if len(b) < cfg.BodyBytes {
			t.Fatalf("%d bytes", len(b))
		}
		if got, intact := cfg.parse(b); got != id || !intact {
			t.Fatalf("%v reads back as %v, intact %v", id, got, intact)
		}
		b[len(b)-1] ^= 1
		if got, intact := cfg.parse(b); got != id || intact {
			t.Fatalf("damage at the end is not seen: %v, %v", got, intact)
		}
	}
	if _, intact := cfg.parse([]byte("nonsense")); intact {
		t.Fatal("nonsense is a body")
	}
	other := cfg
	other.Seed++
	if string(other.body(ledger.ID{})) == string(cfg.body(ledger.ID{})) {
		t.Fatal("the seed changes nothing")
	}
}

func TestNacks_AFewAndTheSameForASeed(t *testing.T) {
	n := 0
	for i := range uint64(50_000) {
		id := ledger.ID{Producer: 1, Number: i}
		first := cfg.nacks(id)
		if first {
			n++
		}
		if again := cfg.nacks(id); again != first {
			t.Fatal("not the same twice")
		}
	}
	if n < 50 || n > 200 {
		t.Fatalf("%d of 50,000 are given back, about one of %d was meant", n, nackEvery)
	}
}

func TestGate_HoldsUntilOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		ctx := t.Context()
		for range 2 {
			if g.wait(ctx) {
				t.Fatal("an open gate makes wait")
			}
		}
		waited := make(chan bool, 1)
		go func() { waited <- g.wait(ctx) }()
		synctest.Wait()
		if len(waited) != 0 {
			t.Fatal("a closed gate lets pass")
		}
		g.open(1) // never back
		synctest.Wait()
		if len(waited) != 0 {
			t.Fatal("the gate was opened by less")
		}
		g.open(3)
		if !<-waited {
			t.Fatal("the wait is not told")
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		g.wait(ended)
		if g.passed != 3 {
			t.Fatalf("%d passed", g.passed)
		}
	})
}

func TestShare_PartsAreEvenAndEndWithAll(t *testing.T) {
	r := &run{cfg: cfg}
	if r.share(0) != 0 || r.share(1) != 333 || r.share(2) != 666 || r.share(3) != 1000 {
		t.Fatal(r.share(1), r.share(2), r.share(3))
	}
}

func TestValidate_RefusesNonsense(t *testing.T) {
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no messages":        func(c *Config) { c.Messages = 0 },
		"too many messages":  func(c *Config) { c.Messages = messagesMax + 1 },
		"no producers":       func(c *Config) { c.Producers = 0 },
		"negative producers": func(c *Config) { c.Producers = -1 },
		"no nodes":           func(c *Config) { c.Nodes = 0 },
		"negative kills":     func(c *Config) { c.Kills = -1 },
		"small bodies":       func(c *Config) { c.BodyBytes = 1 },
		"negative rate":      func(c *Config) { c.Rate = -1 },
	} {
		c := cfg
		change(&c)
		if exit.Of(c.Validate()) != exit.Usage {
			t.Errorf("%s: %v", name, c.Validate())
		}
	}
}
