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
	// short[:n] comes after what d has: most fields are shorter than what the
	// digest likes to be given at once.
	n     int
	short [128]byte
}

// Reset starts again.
func (s *Sum) Reset() {
	s.d.Reset()
	s.started = true
	s.n = 0
}

// Uint adds an integer.
func (s *Sum) Uint(n uint64) {
	if len(s.short)-s.n < 8 {
		s.flush()
	}
	binary.LittleEndian.PutUint64(s.short[s.n:], n)
	s.n += 8
}

// Field adds bytes.
func (s *Sum) Field(p []byte) {
	s.Uint(uint64(len(p)))
	if len(p) <= len(s.short)-s.n {
		s.n += copy(s.short[s.n:], p)
		return
	}
	s.flush()
	_, _ = s.d.Write(p) // never fails
}

// FieldString adds a string; the same as Field of its bytes.
func (s *Sum) FieldString(v string) {
	s.Uint(uint64(len(v)))
	if len(v) <= len(s.short)-s.n {
		s.n += copy(s.short[s.n:], v)
		return
	}
	s.flush()
	_, _ = s.d.WriteString(v) // never fails
}

// Sum64 is the checksum of the fields so far.
func (s *Sum) Sum64() uint64 {
	s.flush()
	return s.d.Sum64()
}

func (s *Sum) flush() {
	if !s.started {
		s.d.Reset()
		s.started = true
	}
	_, _ = s.d.Write(s.short[:s.n]) // never fails
	s.n = 0
}
