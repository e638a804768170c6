package storage

import (
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
)

// listener hears of what Pebble meets in the background. Without it a damaged
// block ends the process inside Pebble, before anybody can say which file.
func (s *Pebble) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { s.fail(fmt.Errorf("bodies in %s: %w", s.o.Dir, err)) },
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.fail(fmt.Errorf("bodies: %s is damaged: %w", i.Path, i.Details))
		},
		DiskSlow: func(i pebble.DiskSlowInfo) {
			s.o.Logger.Warn("the disk is slow", "path", i.Path, "operation", i.OpType.String(), "for", i.Duration)
		},
	}
}

// pebbleLog gives Pebble's log to ours.
type pebbleLog struct {
	s   *Pebble
	log *slog.Logger
}

func (l pebbleLog) Infof(format string, args ...any)  { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l pebbleLog) Errorf(format string, args ...any) { l.log.Error(fmt.Sprintf(format, args...)) }

// Fatalf must not return: Pebble's state cannot be relied on after it.
func (l pebbleLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.s.fail(fmt.Errorf("bodies in %s: %w", l.s.o.Dir, err))
	panic(err)
}
