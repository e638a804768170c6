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

// EntryWriter collects commands for one entry.
type EntryWriter struct {
	buf   []byte
	count int
}

// NewEntry begins an entry under a proposal number.
func NewEntry(proposal uint64) *EntryWriter {
	w := &EntryWriter{buf: make([]byte, entryHeaderBytes, 512)}
	w.buf[0] = entryVersion
	binary.BigEndian.PutUint64(w.buf[4:], proposal)
	return w
}

// Add appends a command whose payload has passed Check.
func (w *EntryWriter) Add(kind Kind, payload []byte) {
	w.buf = append(w.buf, byte(kind))
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(payload)))
	w.buf = append(w.buf, payload...)
	w.count++
}

// Len returns the bytes of the entry so far.
func (w *EntryWriter) Len() int { return len(w.buf) }

// Count returns the number of commands so far.
func (w *EntryWriter) Count() int { return w.count }

// CommandBytes returns what a payload of n bytes adds to an entry.
func CommandBytes(n int) int { return commandHeaderSize + n }

// Finish stamps the entry and returns its bytes. The writer must not be used
// afterwards.
func (w *EntryWriter) Finish(stamp Time, wallUnixNano int64) []byte {
	binary.BigEndian.PutUint64(w.buf[12:], uint64(stamp))
	binary.BigEndian.PutUint64(w.buf[20:], uint64(wallUnixNano))
	binary.BigEndian.PutUint32(w.buf[28:], uint32(w.count))
	return w.buf
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
