package raftlog

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// What is read here of raft-wal's segment files, which are named by their first index: a header, and then frames of
// type u8 | 0 u24 | length u32 LE | payload padded to 8 bytes. Entries are frames of type 1, the index of a full segment is one of
// type 2; those of type 3 are commits and have a checksum where the length is.
const (
	segmentHeaderBytes = 32
	frameHeaderBytes   = 8
	frameEntry         = 1
	frameIndex         = 2
	frameCommit        = 3
)

// place names the file of an entry, and its offset if that can be told. It is for messages: what it cannot find it leaves out.
func (s *Store) place(index uint64) string {
	switch s.kind {
	case KindBolt:
		return filepath.Join(s.dir, BoltFile)
	case KindWAL:
		return placeInWAL(filepath.Join(s.dir, walDir), index)
	}
	return ""
}

func placeInWAL(dir string, index uint64) string {
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		return dir
	}
	best, base := "", uint64(0)
	for _, n := range names {
		var first, id uint64
		if _, err := fmt.Sscanf(filepath.Base(n), "%020d-%016x.wal", &first, &id); err == nil && first <= index && first >= base {
			best, base = n, first
		}
	}
	if best == "" {
		return dir
	}
	if offset, ok := frameOffset(best, index-base); ok {
		return fmt.Sprintf("%s, offset %d", best, offset)
	}
	return best
}

// frameOffset finds the frame of the n-th entry of a segment.
func frameOffset(path string, n uint64) (int64, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	head := make([]byte, frameHeaderBytes)
	for at := int64(segmentHeaderBytes); ; {
		if _, err := io.ReadFull(io.NewSectionReader(f, at, frameHeaderBytes), head); err != nil || head[0] == 0 || head[0] > frameCommit {
			return 0, false
		}
		length := int64(binary.LittleEndian.Uint32(head[4:]))
		if head[0] == frameCommit {
			length = 0
		}
		if head[0] == frameEntry {
			if n == 0 {
				return at, true
			}
			n--
		}
		at += frameHeaderBytes + (length+7)/8*8
	}
}
