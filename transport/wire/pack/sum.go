package pack

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Sum is xxhash64 over fields. Each field is written so that no two different
// lists of fields give the same bytes: integers as 8 bytes little endian, bytes
// and strings with their length before them. Checksums made with it are on the
// wire, in the log and in snapshots. The zero value is ready to use.
type Sum struct {
	d       xxhash.Digest
	started bool
	buf     [8]byte
}

// Reset starts again.
func (s *Sum) Reset() {
	s.d.Reset()
	s.started = true
}

// Uint adds an integer.
func (s *Sum) Uint(n uint64) {
	if !s.started {
		s.Reset()
	}
	binary.LittleEndian.PutUint64(s.buf[:], n)
	_, _ = s.d.Write(s.buf[:]) // never fails
}

// Field adds bytes.
func (s *Sum) Field(p []byte) {
	s.Uint(uint64(len(p)))
	_, _ = s.d.Write(p) // never fails
}

// FieldString adds a string; the same as Field of its bytes.
func (s *Sum) FieldString(v string) {
	s.Uint(uint64(len(v)))
	_, _ = s.d.WriteString(v) // never fails
}

// Sum64 is the checksum of the fields so far.
func (s *Sum) Sum64() uint64 {
	if !s.started {
		s.Reset()
	}
	return s.d.Sum64()
}
