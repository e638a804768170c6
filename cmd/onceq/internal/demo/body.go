package demo

import (
	"bytes"
	"fmt"
	"hash/fnv"

	"onceq/cmd/onceq/internal/ledger"
)

// body is the message of an id: its number for people, and bytes that follow
// from seed and id, so that a consumer can tell whether it is unchanged.
func (c Config) body(id ledger.ID) []byte {
	b := fmt.Appendf(make([]byte, 0, c.BodyBytes), "producer %d message %d ", id.Producer, id.Number)
	x := c.random(id, "body")
	for len(b) < c.BodyBytes {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = append(b, "0123456789abcdef"[x>>60])
	}
	return b
}

// parse reads the id of a body, and whether the body is unchanged.
func (c Config) parse(b []byte) (id ledger.ID, intact bool) {
	if _, err := fmt.Fscanf(bytes.NewReader(b), "producer %d message %d ", &id.Producer, &id.Number); err != nil {
		return ledger.ID{}, false
	}
	return id, bytes.Equal(b, c.body(id))
}

// nackEvery: one message of that many is given back on purpose, once.
const nackEvery = 500

// nacks says whether a consumer gives the first delivery of id back.
func (c Config) nacks(id ledger.ID) bool { return c.random(id, "nack")>>1%nackEvery == 0 }

// random is a number that follows from seed, id and what it is for.
func (c Config) random(id ledger.ID, what string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d %d %s", c.Seed, id.Producer, id.Number, what)
	x := h.Sum64()
	// FNV's high bits change little between neighbours; one round of a mixer
	// spreads them.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x | 1 // never 0, from which body could not go on
}
