package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"onceq/cmd/onceq/internal/exit"
)

// Config says what is measured.
type Config struct {
	Workload  string // "pub" or "e2e"
	Sizes     []int  // bytes of a body
	Time      time.Duration
	WarmUp    time.Duration
	Rate      float64 // of the paced load
	Producers int
	Consumers int
	InFlight  int // of one producer; for e2e, messages between publish and receive in all
	Seed      uint64
}

// The bounds of a run.
const (
	bodyMin      = 16
	bodyMax      = 8 << 20
	clientsMax   = 64
	inFlightMax  = 32_768     // well within the window of a session
	messagesMax  = 20_000_000 // of one load: the due times are kept
	receiveGrace = 60 * time.Second
)

// Validate refuses nonsense before anything starts.
func (c Config) Validate() error {
	for _, s := range c.Sizes {
		if s < bodyMin || s > bodyMax {
			return exit.Errorf(exit.Usage, "--size %d: from %d to %d", s, bodyMin, bodyMax)
		}
	}
	switch {
	case len(c.Sizes) == 0:
		return exit.Errorf(exit.Usage, "no --size")
	case c.Time <= 0 || c.Time > time.Hour:
		return exit.Errorf(exit.Usage, "--time %s: more than 0, at most 1h", c.Time)
	case c.Rate <= 0:
		return exit.Errorf(exit.Usage, "--rate %g: more than 0", c.Rate)
	case c.Rate*(c.Time+c.WarmUp).Seconds() > messagesMax:
		return exit.Errorf(exit.Usage, "--rate %g for %s is more than %d messages", c.Rate, c.Time, messagesMax)
	case c.Producers < 1 || c.Producers > clientsMax:
		return exit.Errorf(exit.Usage, "--producers %d: from 1 to %d", c.Producers, clientsMax)
	case c.Consumers < 1 || c.Consumers > clientsMax:
		return exit.Errorf(exit.Usage, "--consumers %d: from 1 to %d", c.Consumers, clientsMax)
	case c.InFlight < 1 || c.InFlight > inFlightMax:
		return exit.Errorf(exit.Usage, "--in-flight %d: from 1 to %d", c.InFlight, inFlightMax)
	}
	return nil
}

// bodies makes bodies of one size: random bytes, with a number in front.
type bodies struct {
	size int
	pool []byte
	rng  *rand.Rand
}

// poolBytes of random bytes are drawn from at random places.
const poolBytes = 1 << 20

func newBodies(size int, seed uint64) *bodies {
	b := &bodies{size: size, pool: make([]byte, poolBytes+size), rng: rand.New(rand.NewPCG(seed, uint64(size)))}
	for i := 0; i+8 <= len(b.pool); i += 8 {
		binary.LittleEndian.PutUint64(b.pool[i:], b.rng.Uint64())
	}
	return b
}

// next makes the body of message n.
func (b *bodies) next(n uint64) []byte {
	body := make([]byte, b.size)
	copy(body, b.pool[b.rng.IntN(poolBytes):])
	binary.LittleEndian.PutUint64(body, n)
	return body
}

// number reads back which message a body is.
func number(body []byte) (uint64, bool) {
	if len(body) < bodyMin {
		return 0, false
	}
	return binary.LittleEndian.Uint64(body), true
}
