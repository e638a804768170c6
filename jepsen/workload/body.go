package workload

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	// bodyMax bounds the filling of most bodies.
	bodyMax = 900
	// One body in largeOne is large, up to the most that a cluster takes unless it is
	// set otherwise: entries, frames and the memory for messages are full of one of them.
	largeOne, largeLeast, largeMost = 400, 200 << 10, 1 << 20
)

// body is made from the id alone: the id, a zero, filling, a checksum.
func body(id string) []byte {
	r := rand.New(rand.NewPCG(hashOf(id), 1))
	n := r.IntN(bodyMax)
	if crc32.Checksum([]byte(id), castagnoli)%largeOne == 0 {
		n = largeLeast + r.IntN(largeMost-largeLeast)
	}
	n = min(n, largeMost-len(id)-1-crc32.Size)
	b := append(make([]byte, 0, len(id)+1+n+8+crc32.Size), id...)
	b = append(b, 0)
	end := len(b) + n
	for len(b) < end {
		b = binary.BigEndian.AppendUint64(b, r.Uint64())
	}
	b = b[:end]
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// idOf reads the id out of a body, or when there is none out of the biz-id, and says what
// is wrong with the body.
func idOf(b []byte, bizID string) (string, error) {
	id, _, ok := strings.Cut(string(b), "\x00")
	switch {
	case !ok || len(b) < 4:
		return idOfBizID(bizID), fmt.Errorf("a body of %d bytes without an id", len(b))
	case string(body(id)) != string(b):
		return id, fmt.Errorf("a body of %d bytes that is not the one of its id", len(b))
	}
	return id, nil
}
