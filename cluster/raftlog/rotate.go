package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft-wal/metadb"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// raft-wal ends a full segment in two steps: the append that fills it writes the segment's index with it, and a goroutine then says in
// wal-meta.db that the segment is sealed and that there is a next one (wal.go, runRotate). Two things are missing there:
//
//   - An error of the second step is logged and nothing else: the next append is refused with "segment is sealed". See walLog.
//   - After a crash between the two nothing takes up the second step, although its comment says that recovery does (wal.go, Open;
//     segment/writer.go, recoverTail, which finds the index and takes the tail for sealed, also when the index was not committed). Every
//     append is refused then, after every restart. A disk that is full is the likeliest cause, and it is full on all nodes at once.

// finishRotation takes up the second step in a log that nobody has open.
func finishRotation(o Options, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, metadb.FileName)); errors.Is(err, os.ErrNotExist) {
		return nil // a new log
	}
	meta := &metadb.BoltMetaDB{}
	state, err := meta.Load(dir)
	if err == nil {
		err = finishTail(o, dir, meta, state)
	}
	return errors.Join(err, meta.Close())
}

func finishTail(o Options, dir string, meta *metadb.BoltMetaDB, state types.PersistentState) error {
	if len(state.Segments) == 0 {
		return nil
	}
	tail := &state.Segments[len(state.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	path := filepath.Join(dir, walsegment.FileName(*tail))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the library makes it
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := readSeal(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case s.index == 0:
		return nil
	case !s.committed:
		o.Logger.Info("the end of a segment was not written whole: it is taken back", "path", path, "offset", s.index)
		return unseal(f, s.index)
	}
	o.Logger.Info("finishing the change to a new segment, which a crash has interrupted", "path", path)
	tail.SealTime = time.Now()
	tail.MaxIndex = tail.BaseIndex + uint64(s.entries) - 1
	tail.IndexStart = uint64(s.index) + frameHeaderBytes
	state.Segments = append(state.Segments, types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: tail.MaxIndex + 1, MinIndex: tail.MaxIndex + 1,
		SizeLimit: uint32(o.SegmentBytes), Codec: tail.Codec, CreateTime: tail.SealTime,
	})
	state.NextSegmentID++
	return meta.CommitState(state)
}

// seal is what the frames of a tail say about its end.
type seal struct {
	index     int64 // where the frame of the index is; 0 when there is none
	committed bool  // there are entries, and the index and all before it are whole
	entries   int   // in front of the index
}

// readSeal reads the frames as the library does, up to the first that is none.
func readSeal(f io.ReaderAt) (s seal, err error) {
	head := make([]byte, frameHeaderBytes)
	from := int64(0) // what the next commit covers begins here: the first one covers the header too
	for at := int64(segmentHeaderBytes); ; {
		if n, err := f.ReadAt(head, at); n < frameHeaderBytes {
			if err == io.EOF {
				return s, nil
			}
			return s, err
		}
		kind, length := head[0], int64(binary.LittleEndian.Uint32(head[4:]))
		switch kind {
		case frameEntry:
			if s.index == 0 {
				s.entries++
			}
		case frameIndex:
			s.index = at
		case frameCommit:
			if s.index != 0 {
				ok, err := sumIs(f, from, at, uint32(length))
				s.committed = ok && s.entries > 0
				return s, err
			}
			length, from = 0, at+frameHeaderBytes
		default:
			return s, nil
		}
		at += frameHeaderBytes + (length+7)/8*8
	}
}

// sumIs compares a commit's checksum with what it covers.
func sumIs(f io.ReaderAt, from, to int64, want uint32) (bool, error) {
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, io.NewSectionReader(f, from, to-from))
	return n == to-from && sum.Sum32() == want, err
}

// unseal takes the index away, so that the library finds entries that were never committed, and goes on before them.
func unseal(f *os.File, index int64) error {
	if _, err := f.WriteAt(make([]byte, frameHeaderBytes), index); err != nil {
		return err
	}
	return f.Sync()
}

// walLog hears of errors that the library meets behind an append's back and says in its log alone: of a rotation, of a segment that
// could not be deleted or closed.
type walLog struct {
	hclog.Logger
	failed func(error)
}

func (l walLog) Error(msg string, args ...any) {
	l.Logger.Error(msg, args...)
	err := errors.New(msg)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err = fmt.Errorf("%s: %w", msg, cause)
		}
	}
	l.failed(err)
}
