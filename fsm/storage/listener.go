package storage

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// listener hears of what Pebble meets in the background. Without it a damaged
// block ends the process inside Pebble, before anybody can say which file.
func (s *Pebble) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { s.fail(fmt.Errorf("bodies in %s: %w", s.o.Dir, err)) },
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.fail(fmt.Errorf("%w: %s: %w", ErrBadCheckpoint, i.Path, i.Details))
		},
		CompactionEnd: func(i pebble.CompactionInfo) {
			if i.Err == nil && len(i.Output.Tables) > 0 && i.Reason != "move" { // else no table was written
				s.compactions.Add(1)
			}
		},
		DiskSlow: func(i pebble.DiskSlowInfo) {
			s.o.Logger.Warn("the disk is slow", "path", i.Path, "operation", i.OpType.String(), "for", i.Duration)
		},
	}
}

// pebbleLog gives Pebble's log to ours.
type pebbleLog struct {
	s       *Pebble
	log     *slog.Logger
	opening *atomic.Bool // by the goroutine that would see a panic
}

func (l pebbleLog) Infof(format string, args ...any)  { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l pebbleLog) Errorf(format string, args ...any) { l.log.Error(fmt.Sprintf(format, args...)) }

// Fatalf must not return: Pebble's state cannot be relied on after it. While the
// database is being opened that is an error like others.
func (l pebbleLog) Fatalf(format string, args ...any) {
	err := fatal(format, args)
	if !l.opening.Load() {
		l.s.fail(fmt.Errorf("bodies in %s: %w", l.s.o.Dir, err))
	}
	panic(err)
}

// fatalError is what Pebble ends a process over: a text, in which the cause is
// told and not wrapped.
type fatalError struct {
	text  string
	cause error // nil: none
}

func (e *fatalError) Error() string { return e.text }
func (e *fatalError) Unwrap() error { return e.cause }

func fatal(format string, args []any) error {
	e := &fatalError{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			e.cause = cause
		}
	}
	return e
}

// openPebble opens a database. What Pebble does not like in its files it tells by
// errors, by Fatalf, or by a panic of its own: all of these are errors here.
func openPebble(dir string, o *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			db, err = nil, p
		default:
			db, err = nil, fmt.Errorf("%v", p)
		}
	}()
	return pebble.Open(dir, o)
}
