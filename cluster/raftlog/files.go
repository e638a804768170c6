package raftlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"go.etcd.io/bbolt"
)

// What is in the directory of a Store.
const (
	stableFile = "stable.db" // boltdb: term, vote
	BoltFile   = "log.db"    // boltdb: the log, with KindBolt
	walDir     = "wal"       // raft-wal: the log, with KindWAL

	halfMade = ".new" // behind the name of a boltdb file that is being made
)

// lockWait is how long to wait for another process that has the files open.
const lockWait = 2 * time.Second

// openFiles opens or makes the two stores. closers are in closing order. failed hears of errors that the log does not return.
func openFiles(o Options, failed func(error)) (log raft.LogStore, stable raft.StableStore, closers []io.Closer, err error) {
	if err := refuseOtherKind(o); err != nil {
		return nil, nil, nil, err
	}
	if err := makeDir(o.Dir); err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			for _, c := range closers {
				_ = c.Close()
			}
		}
	}()
	// The stable store comes first: its file lock keeps a second process out of the log too.
	votes, err := openBolt(filepath.Join(o.Dir, stableFile))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open stable store: %w", err)
	}
	closers = []io.Closer{votes}
	if o.Kind == KindBolt {
		b, err := openBolt(filepath.Join(o.Dir, BoltFile))
		if err != nil {
			return nil, nil, closers, err
		}
		log, closers = b, []io.Closer{b, votes}
	} else {
		w, err := openWAL(o, failed)
		if err != nil {
			return nil, nil, closers, err
		}
		log, closers = w, []io.Closer{w, votes}
	}
	// boltdb fsyncs its file, not the directory that names it: without this a power loss could take a vote with the whole file.
	return log, votes, closers, syncDir(o.Dir)
}

// refuseOtherKind keeps a node from starting with an empty log beside its full one.
func refuseOtherKind(o Options) error {
	other, name := KindWAL, walDir
	if o.Kind == KindWAL {
		other, name = KindBolt, BoltFile
	}
	if _, err := os.Stat(filepath.Join(o.Dir, name)); err == nil {
		return fmt.Errorf("this log was made by %q and cannot be opened as %q: start the node with %[1]q, or empty its directory and let it join again", other, o.Kind)
	} else if !os.IsNotExist(err) {
		return err
	}
	return nil
}

// openBolt opens a boltdb file. Each commit is fsynced. The free list is not written with each commit (it is rebuilt at start) and
// is a map, since a long log makes it long and an array is searched whole.
func openBolt(path string) (s *raftboltdb.BoltStore, err error) {
	defer damaged(path, &err)()
	if err := makeBolt(path); err != nil {
		return nil, err
	}
	if err := checkBolt(path); err != nil {
		return nil, err
	}
	return raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        lockWait,
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
}

// makeBolt makes a boltdb file where there is none yet. The library writes its first pages under the name that they keep: of these
// some may be there after a power cut and others not, and a node that never held anything would be taken for a damaged one, for
// ever. Here the file gets its name when it is whole, as raft-wal has it for its own (metadb).
func makeBolt(path string) error {
	if st, err := os.Stat(path); err == nil && st.Size() > 0 {
		return nil
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	half := path + halfMade
	if err := os.Remove(half); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(half, 0o600, &bbolt.Options{Timeout: lockWait}) // it fsyncs
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := os.Rename(half, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func openWAL(o Options, failed func(error)) (w *wal.WAL, err error) {
	dir := filepath.Join(o.Dir, walDir)
	defer damaged(dir, &err)()
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if err := checkBolt(filepath.Join(dir, metadb.FileName)); err != nil {
		return nil, err
	}
	if err := finishRotation(o, dir); err != nil {
		return nil, err
	}
	segments := walsegment.NewFiler(dir, segmentFS{walfs.New()})
	w, err = wal.Open(dir, wal.WithSegmentFiler(segments), wal.WithSegmentSize(o.SegmentBytes), wal.WithLogger(walLog{HCLog(o.Logger).Named("wal"), failed}))
	if err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		_ = w.Close()
		return nil, err
	}
	return w, nil
}

// makeDir makes the directory and makes its name durable.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
