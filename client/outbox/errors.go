package outbox

import (
	"errors"
	"fmt"

	"onceq/client"
)

// The sentinels, for errors.Is.
var (
	// ErrFull: the outbox has reached WithEntriesMax or WithBytesMax and
	// WithFailWhenFull was given. Nothing was written.
	ErrFull = errors.New("outbox: full")
	// ErrInUse: another process has the file open.
	ErrInUse = errors.New("outbox: another process has the file open")
	// ErrForeign: the file is something else than an outbox.
	ErrForeign = errors.New("outbox: not an outbox file")
	// ErrCorrupt: the file is damaged.
	ErrCorrupt = errors.New("outbox: the file is damaged")
	// ErrMismatch: the file belongs to another queue, session name or cluster.
	ErrMismatch = errors.New("outbox: the file belongs to something else")
	// ErrDisk: the file could not be written. What was being published may be in it or
	// not; it is after a restart, or never was. The outbox takes nothing more.
	ErrDisk = errors.New("outbox: cannot write")
	// ErrNoEntry: there is no such entry, or it is not held.
	ErrNoEntry = errors.New("outbox: no such entry")
	// ErrLeft: the entry has left the outbox and how is not remembered any more.
	ErrLeft = errors.New("outbox: the entry has left: it is stored, or was discarded by command")
	// ErrDiscarded is the result of an entry that was discarded.
	ErrDiscarded = errors.New("outbox: discarded by command")
	// ErrRisk: a decision about an entry has a risk that was not named.
	ErrRisk = errors.New("outbox: this has a risk that was not accepted")
	// ErrClosed: the Outbox was closed. It is client.ErrClosed.
	ErrClosed = client.ErrClosed
)

func corrupt(path string, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s: keep a copy of it, and publish again what is known to be missing", ErrCorrupt, path, fmt.Sprintf(format, args...))
}
