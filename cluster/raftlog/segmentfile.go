package raftlog

import (
	"os"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
)

// What was appended and is durable leaves the system's page cache in steps of segmentDropBytes, all but the page of the end, in which
// the next append goes on. Whoever reads it soon finds it in memory (see recent). Otherwise a log of a gigabyte would take pages from
// what consumers are about to read, and each append would be written to pages that nobody has touched for long: they are in no cache
// of the processor, and a virtual machine may have given them back to its host, which then clears them first. Those took a third of
// the processor time of a node that was published to at full speed.
const (
	segmentDropBytes = 1 << 20
	cachePageBytes   = 64 << 10 // a page of the page cache, or more
)

// segmentFS makes the files of raft-wal's segments.
type segmentFS struct{ *walfs.FS }

func (s segmentFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := s.FS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	return &segmentFile{File: &f.(*walfs.File).File, nameless: dir}, nil
}

func (s segmentFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := s.FS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return &segmentFile{File: w.(*os.File)}, nil
}

// segmentFile is the segment that is appended to. raft-wal writes it from one goroutine, each time behind all that is valid in it.
type segmentFile struct {
	*os.File
	nameless string // the directory, until the file's name in it is durable
	end      int64  // behind the newest append
	dropped  int64  // up to here the page cache was emptied
}

func (f *segmentFile) WriteAt(b []byte, at int64) (int, error) {
	f.end = at + int64(len(b))
	return f.File.WriteAt(b, at)
}

// Sync makes what was appended durable, the first time with the file's name.
func (f *segmentFile) Sync() error {
	if err := syncData(f.File); err != nil {
		return err
	}
	if f.nameless != "" {
		if err := syncDir(f.nameless); err != nil {
			return err
		}
		f.nameless = ""
	}
	if end := f.end &^ (cachePageBytes - 1); end-f.dropped >= segmentDropBytes {
		dropPages(f.File, f.dropped, end-f.dropped)
		f.dropped = end
	}
	return nil
}
