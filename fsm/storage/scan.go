package storage

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Scan is a checkpoint that is read through, in a directory of its own: the
// files may go where they came from, and nothing there is changed.
type Scan struct {
	dir   string
	db    *pebble.DB
	cache *pebble.Cache
}

// OpenScan links the files of a checkpoint into dir, which must not exist.
func OpenScan(checkpoint, dir string, logger *slog.Logger) (*Scan, error) {
	return openScan(dir, logger, func() error { return linkFiles(vfs.Default, checkpoint, dir) })
}

// ReceiveScan writes a checkpoint that comes as a stream into dir, which must not
// exist.
func ReceiveScan(r io.Reader, dir string, logger *slog.Logger) (*Scan, error) {
	return openScan(dir, logger, func() error { return receiveFiles(vfs.Default, r, dir) })
}

func openScan(dir string, logger *slog.Logger, fill func() error) (*Scan, error) {
	s := &Scan{dir: dir}
	fs := vfs.Default
	err := fs.MkdirAll(dir, 0o700)
	if err == nil {
		err = fill()
	}
	if err == nil {
		s.cache = pebble.NewCache(8 << 20)
		s.db, err = pebble.Open(dir, &pebble.Options{
			FS: fs, Cache: s.cache, ReadOnly: true, DisableWAL: true, MaxOpenFiles: scanTables, FormatMajorVersion: formatVersion,
			// Damage is told by the iterator.
			EventListener: &pebble.EventListener{BackgroundError: func(error) {}, DataCorruption: func(pebble.DataCorruptionInfo) {}},
			Logger:        scanLog{logger},
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read bodies in %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// Each visits all bodies, in the order of their places. message is valid until
// visit returns.
func (s *Scan) Each(visit func(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte) error) error {
	iter, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	for ok := iter.First(); ok && err == nil; ok = iter.Next() {
		var id laneID
		var offset uint64
		var value, message []byte
		var at int64
		if id, offset, err = parseKey(iter.Key()); err == nil {
			value, err = iter.ValueAndErr()
		}
		if err == nil {
			at, message, err = parseValue(value)
		}
		if err == nil {
			err = visit(id.queue, id.lane, offset, at, message)
		}
	}
	return errors.Join(err, iter.Error(), iter.Close())
}

// Close removes the directory.
func (s *Scan) Close() error {
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	if s.cache != nil {
		s.cache.Unref()
	}
	return errors.Join(err, vfs.Default.RemoveAll(s.dir))
}

// scanLog gives Pebble's log to ours.
type scanLog struct{ log *slog.Logger }

func (l scanLog) Infof(format string, args ...any)  { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l scanLog) Errorf(format string, args ...any) { l.log.Error(fmt.Sprintf(format, args...)) }

// Fatalf must not return.
func (l scanLog) Fatalf(format string, args ...any) { panic(fmt.Errorf(format, args...)) }
