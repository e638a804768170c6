package storage

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// syncFS tells of a directory that could not be made durable. Pebble ends the
// process over it by a panic somewhere in the background (vfs/atomicfs/marker.go,
// Move), before anybody could say what has happened to which directory.
type syncFS struct {
	vfs.FS
	failed func(error)
}

func (s *syncFS) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return syncDir{f, name, s.failed}, nil
}

type syncDir struct {
	vfs.File
	name   string
	failed func(error)
}

func (d syncDir) Sync() error {
	err := d.File.Sync()
	if err != nil {
		d.failed(fmt.Errorf("make the names in %s durable: %w", d.name, err))
	}
	return err
}
