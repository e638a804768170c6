package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// The checksum of an entry, in raft.Log.Extensions (on disk and on the wire between peers):
//
//	+---------+---------------------------------------------------------------------------+
//	| version | CRC32C, big endian, over index u64 BE | term u64 BE | type u8 | data        |
//	| 1 byte  | 4 bytes                                                                   |
//	+---------+---------------------------------------------------------------------------+
//
// AppendedAt is not covered: raft uses it for one gauge only and a store may round it.
const (
	checksumV1     = 0x01
	checksumHeader = 0x00 // the whole extension of a header-only entry, see header.go
	checksumBytes  = 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNoChecksum is wrapped by the error for an entry that carries no checksum where it must.
var ErrNoChecksum = errors.New("entry has no checksum")

// ErrChecksum is wrapped by the error for an entry whose checksum does not fit its content.
var ErrChecksum = errors.New("entry checksum mismatch")

// ErrEntryTooLarge is wrapped by the error for an entry above EntryBytesMax. Nothing was written.
var ErrEntryTooLarge = errors.New("entry too large")

// CorruptError says where an entry was found damaged. It is fatal: the node must be readmitted with a new log.
type CorruptError struct {
	Index uint64
	Store string // kind of store
	Dir   string // directory of its files; empty in memory
	Place string // file and offset as far as they are known
	Err   error
}

func (e *CorruptError) Error() string {
	where := e.Store
	switch {
	case e.Place != "":
		where += " at " + e.Place
	case e.Dir != "":
		where += " at " + e.Dir
	}
	return fmt.Sprintf("raft log entry %d in %s: %v", e.Index, where, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// VerifyEntry checks the entry against the checksum that it carries. Apply calls it once more, for what lies between the store and
// the state machine.
func VerifyEntry(l *raft.Log) error {
	ext := l.Extensions
	if len(ext) == 0 {
		return ErrNoChecksum
	}
	if len(ext) != checksumBytes || ext[0] != checksumV1 {
		return fmt.Errorf("%w: unknown checksum % x", ErrChecksum, ext[:min(len(ext), 2*checksumBytes)])
	}
	want, got := binary.BigEndian.Uint32(ext[1:]), checksum(l)
	if want != got {
		return fmt.Errorf("%w: %08x recorded, %08x computed over term %d, %v, %d bytes", ErrChecksum, want, got, l.Term, l.Type, len(l.Data))
	}
	return nil
}

// CheckEntry tells whether an entry with this data may be proposed. The proposer calls it: in StoreLogs an entry that is too
// large costs the leader its office.
func CheckEntry(data []byte) error {
	return checkEntryBytes(len(data) + checksumBytes)
}

func checkEntryBytes(n int) error {
	if n > EntryBytesMax {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrEntryTooLarge, n, EntryBytesMax)
	}
	return nil
}

// sealEntry writes the checksum into an entry that has none.
func sealEntry(l *raft.Log) {
	ext := make([]byte, checksumBytes)
	ext[0] = checksumV1
	binary.BigEndian.PutUint32(ext[1:], checksum(l))
	l.Extensions = ext
}

func checksum(l *raft.Log) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return crc32.Update(crc32.Update(0, castagnoli, head[:]), castagnoli, l.Data)
}
