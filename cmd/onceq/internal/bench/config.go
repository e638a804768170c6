package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"onceq/cmd/onceq/internal/exit"
)

// Config says what is measured.
type Config struct {
	Workload  string   // "pub" or "e2e"
	Loads     []string // LoadSingle, LoadPaced, LoadFull; none: all of them
	Sizes     []int    // bytes of a body
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

// bodies makes bodies of one size: random bytes behind a label of 16.
type bodies struct {
	size int
	pool []byte
	body []byte // the newest
	rng  *rand.Rand
}

// poolBytes of random bytes are drawn from at random places.
const poolBytes = 1 << 20

func newBodies(size int, seed uint64) *bodies {
	b := &bodies{size: size, pool: make([]byte, poolBytes+size), body: make([]byte, size), rng: rand.New(rand.NewPCG(seed, uint64(size)))}
	for i := 0; i+8 <= len(b.pool); i += 8 {
		binary.LittleEndian.PutUint64(b.pool[i:], b.rng.Uint64())
	}
	return b
}

// share makes bodies of the same random bytes for one more who publishes: a pool of
// its own would cost a millisecond and a MiB at the moment when the load begins.
func (b *bodies) share(seed uint64) *bodies {
	return &bodies{size: b.size, pool: b.pool, body: make([]byte, b.size), rng: rand.New(rand.NewPCG(seed, uint64(b.size)))}
}

// next makes the body of message n, which is due so long after the load began. It
// may be overwritten by the next one.
func (b *bodies) next(n uint64, due time.Duration) []byte {
	body := b.body // not the pool itself: in the long run nothing but labels would be left of it
	copy(body, b.pool[b.rng.IntN(poolBytes):])
	binary.LittleEndian.PutUint64(body, n)
	binary.LittleEndian.PutUint64(body[8:], uint64(due))
	return body
}

// label reads back which message a body is and when it was due.
func label(body []byte) (n uint64, due time.Duration, ok bool) {
	if len(body) < bodyMin {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(body), time.Duration(binary.LittleEndian.Uint64(body[8:])), true
}

// seen notes which messages were received.
type seen struct {
	words []uint64
	count uint64
}

// add says whether n is new.
func (s *seen) add(n uint64) bool {
	word, bit := n/64, uint64(1)<<(n%64)
	for uint64(len(s.words)) <= word {
		s.words = append(s.words, 0)
	}
	if s.words[word]&bit != 0 {
		return false
	}
	s.words[word] |= bit
	s.count++
	return true
}
