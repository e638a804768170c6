package raftlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrFileDamaged is wrapped by the error for a file that a library cannot make sense of.
var ErrFileDamaged = errors.New("is damaged")

// damaged makes an error of a panic, for as long as until the function that it returns is called: bbolt panics over pages that do not
// hang together, and its memory map faults where the file was cut short.
func damaged(path string, err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = fmt.Errorf("%s %w: %v", path, ErrFileDamaged, p)
		}
	}
}

// checkBolt walks through a boltdb file before the library does. It opens one by reading all pages in a goroutine of its own (bbolt
// db.go, freepages), where a page that is damaged or that was cut off ends the process by a panic or a fault that nobody can catch,
// and that does not say which file it was.
func checkBolt(path string) error {
	err := walkBolt(path)
	if err == nil || errors.Is(err, bolterrors.ErrTimeout) { // another process has it: to wait once is enough
		return err
	}
	// bbolt calls a file invalid that it cannot read (db.go, getPageSize), and a page that cannot be read is a fault of the memory map.
	// Whoever took that for damage would wipe a node whose disk has to be looked at.
	if unreadable := readThrough(path); unreadable != nil {
		return unreadable
	}
	return walkBolt(path) // it can be read now, and was perhaps not before
}

func readThrough(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}

func walkBolt(path string) (err error) {
	if st, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || err == nil && st.Size() == 0 {
		return nil // the library makes it; that it was there once is for the high-water file to say
	}
	defer damaged(path, &err)()
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	err = db.View(func(tx *bbolt.Tx) error { return checkBoltPages(path, tx, db.Info().PageSize) })
	return errors.Join(err, db.Close())
}
