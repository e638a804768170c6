package workload

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"math/rand/v2"
	"strings"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bodyMax bounds the filling of a body.
const bodyMax = 900

// body is made from the id alone: the id, a zero, filling, a checksum.
func body(id string) []byte {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	b := append([]byte(id), 0)
	for range r.IntN(bodyMax) {
		b = append(b, byte(r.Uint32()))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// idOf reads the id out of a body, and says what is wrong with the body.
func idOf(b []byte, bizID string) (string, error) {
	id, _, ok := strings.Cut(string(b), "\x00")
	switch {
	case !ok || len(b) < 4:
		return bizID, fmt.Errorf("a body of %d bytes without an id", len(b))
	case string(body(id)) != string(b):
		return id, fmt.Errorf("a body of %d bytes that is not the one of its id", len(b))
	case id != bizID:
		return id, fmt.Errorf("the biz-id is %q", bizID)
	}
	return id, nil
}
