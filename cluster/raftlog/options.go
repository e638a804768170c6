package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// The kinds of log store. Term and vote are in boltdb with each of the first two.
const (
	KindWAL    = "wal"    // hashicorp/raft-wal
	KindBolt   = "boltdb" // hashicorp/raft-boltdb
	KindMemory = "memory" // given to Wrap; nothing is on disk
)

const (
	// EntryBytesMax is the largest entry, data and checksum, that StoreLogs takes. raft-wal has no such limit of its own: it stores
	// and commits an entry of 65 MiB and then calls the log corrupt for ever.
	EntryBytesMax = 8 << 20

	// AppendTimeoutDefault is how long a write may take before the process is ended, and a second more for each MiB of it.
	AppendTimeoutDefault = 3 * time.Second

	// SegmentBytesDefault is the size of one raft-wal segment, which is preallocated. It is the unit in which truncation frees disk
	// space: smaller ones give it back sooner and pay a rotation (two fsyncs and a file) more often. It holds a few of the
	// largest entries.
	SegmentBytesDefault = 32 << 20

	segmentBytesMin = 64 << 10
	segmentBytesMax = 1 << 30
)

// Options configures a Store.
type Options struct {
	// Dir holds the log and the stable store. It is made when it does not exist.
	Dir string

	// Owner is the server id of the node. The high-water file is bound to it, and it tells this node from the other voters.
	Owner string

	// Known says that this node has had a log in Dir before. Then an absent high-water file is a loss (ErrLogLost).
	Known bool

	// Annex reads the directories that belong to snapshots; nobody may make one without it.
	Annex Annex

	// Kind is KindWAL (default) or KindBolt. One directory keeps the kind that it was made with: the other would look like an
	// empty log.
	Kind string

	// Logger gets what the libraries say and what is refused here. Default: slog.Default().
	Logger *slog.Logger

	// Fatal is called once, with the first storage error, corrupt entry or hung write. In production it ends the process and never
	// returns: nothing that the file system says after a failed write can be trusted. In tests it may record and return; the Store then
	// refuses every further write. It must not wait for the Store to close. Default: log and exit.
	Fatal func(error)

	// SnapshotDamaged is called when the newest snapshot cannot be read and raft wants to send it: whoever has the state is to write
	// another. again: one was written over damage of an annex, and its annex is damaged too. It must not wait. Default: nobody is told.
	SnapshotDamaged func(err error, again bool)

	// AppendTimeout is how long one write (append, truncation, vote) may take, and an append a second more for each MiB of it.
	// Default: AppendTimeoutDefault. It is counted in samples that the watchdog took itself, so a stopped process does not end
	// itself when it goes on.
	AppendTimeout time.Duration

	// Parallel lets raft send this node's own commands to the followers while they are written here, in place of before. What is applied then
	// has to ask Committed first, and Guard has to be under raft.
	Parallel bool

	// SegmentBytes is the size of a raft-wal segment. Default: SegmentBytesDefault.
	SegmentBytes int
}

func (o Options) withDefaults(kind string) Options {
	if o.Kind == "" {
		o.Kind = kind
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Fatal == nil {
		logger := o.Logger
		o.Fatal = func(err error) {
			logger.Error("storage error: this process ends", "error", err)
			os.Exit(1)
		}
	}
	if o.AppendTimeout == 0 {
		o.AppendTimeout = AppendTimeoutDefault
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = SegmentBytesDefault
	}
	return o
}

func (o Options) validate() error {
	if o.Dir == "" {
		return errors.New("no directory for the raft log")
	}
	if o.Kind != KindWAL && o.Kind != KindBolt {
		return fmt.Errorf("unknown log store %q: want %q or %q", o.Kind, KindWAL, KindBolt)
	}
	if o.AppendTimeout < samplePeriod {
		return fmt.Errorf("append timeout %v is below one sample of the watchdog (%v)", o.AppendTimeout, samplePeriod)
	}
	if o.SegmentBytes < segmentBytesMin || o.SegmentBytes > segmentBytesMax {
		return fmt.Errorf("segment size %d is not within %d and %d bytes", o.SegmentBytes, segmentBytesMin, segmentBytesMax)
	}
	return nil
}
