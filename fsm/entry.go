package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The layout of an entry, big endian. It is in the log: append versions, never
// change one.
//
//	offset size
//	     0    1  version, 1
//	     1    3  zero
//	     4    8  proposal: number that the proposer finds its entry by
//	    12    8  stamp: cluster time
//	    20    8  wall clock of the proposer, unix ns; data for "published at"
//	    28    4  number of commands
//	    32       commands: kind (1), length (4), payload
//
// An entry without commands is a tick: it moves the clock and fires timers.
const (
	entryVersion      = 1
	entryHeaderBytes  = 32
	commandHeaderSize = 5
)

// ErrBadEntry is returned by Apply for an entry that does not decode or has a
// version this build does not know. The node must stop: what it would do
// without the entry is not what the others do with it.
var ErrBadEntry = errors.New("entry does not decode")

// Commands collects commands for an entry. The zero value is empty.
type Commands struct {
	buf   []byte
	count int
}

// Add appends a command whose payload has passed Check.
func (c *Commands) Add(kind Kind, payload []byte) {
	c.buf = append(c.buf, byte(kind))
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(len(payload)))
	c.buf = append(c.buf, payload...)
	c.count++
}

// Len returns the bytes of the commands so far.
func (c *Commands) Len() int { return len(c.buf) }

// Count returns the number of commands so far.
func (c *Commands) Count() int { return c.count }

// Reset empties it and keeps its memory.
func (c *Commands) Reset() { c.buf, c.count = c.buf[:0], 0 }

// CommandBytes returns what a payload of n bytes adds to an entry.
func CommandBytes(n int) int { return commandHeaderSize + n }

// NewEntry returns an entry under a proposal number: the commands of each part, in
// their order, in memory of its own that fits.
func NewEntry(proposal uint64, stamp Time, wallUnixNano int64, parts ...*Commands) []byte {
	n, count := entryHeaderBytes, 0
	for _, c := range parts {
		n, count = n+len(c.buf), count+c.count
	}
	entry := make([]byte, entryHeaderBytes, n)
	entry[0] = entryVersion
	binary.BigEndian.PutUint64(entry[4:], proposal)
	binary.BigEndian.PutUint64(entry[12:], uint64(stamp))
	binary.BigEndian.PutUint64(entry[20:], uint64(wallUnixNano))
	binary.BigEndian.PutUint32(entry[28:], uint32(count))
	for _, c := range parts {
		entry = append(entry, c.buf...)
	}
	return entry
}

// EntryProposal returns the proposal number of an entry.
func EntryProposal(entry []byte) (uint64, bool) {
	if len(entry) < entryHeaderBytes || entry[0] != entryVersion {
		return 0, false
	}
	return binary.BigEndian.Uint64(entry[4:]), true
}

// entryReader walks through the commands of an entry.
type entryReader struct {
	proposal uint64
	stamp    Time
	wall     int64
	count    int
	rest     []byte
}

func readEntry(entry []byte) (entryReader, error) {
	if len(entry) < entryHeaderBytes {
		return entryReader{}, fmt.Errorf("%w: %d bytes, a header has %d", ErrBadEntry, len(entry), entryHeaderBytes)
	}
	if entry[0] != entryVersion {
		return entryReader{}, fmt.Errorf("%w: version %d, this build knows %d", ErrBadEntry, entry[0], entryVersion)
	}
	r := entryReader{
		proposal: binary.BigEndian.Uint64(entry[4:]),
		stamp:    Time(binary.BigEndian.Uint64(entry[12:])),
		wall:     int64(binary.BigEndian.Uint64(entry[20:])),
		count:    int(binary.BigEndian.Uint32(entry[28:])),
		rest:     entry[entryHeaderBytes:],
	}
	if r.count > len(r.rest)/commandHeaderSize {
		return entryReader{}, fmt.Errorf("%w: %d commands in %d bytes", ErrBadEntry, r.count, len(r.rest))
	}
	return r, nil
}

func (r *entryReader) next() (Kind, []byte, error) {
	if len(r.rest) < commandHeaderSize {
		return 0, nil, fmt.Errorf("%w: ends inside a command header", ErrBadEntry)
	}
	kind := Kind(r.rest[0])
	n := int(binary.BigEndian.Uint32(r.rest[1:]))
	r.rest = r.rest[commandHeaderSize:]
	if n > len(r.rest) {
		return 0, nil, fmt.Errorf("%w: command of %d bytes, %d remain", ErrBadEntry, n, len(r.rest))
	}
	payload := r.rest[:n:n]
	r.rest = r.rest[n:]
	return kind, payload, nil
}
