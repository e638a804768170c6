// Package raftlog is being built; this file holds its API until each part has its own.
package raftlog

import (
	"log/slog"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	KindWAL    = "wal"
	KindBolt   = "boltdb"
	KindMemory = "memory"

	// EntryBytesMax is the largest entry (Data) that the log takes.
	EntryBytesMax = 8 << 20
)

type Options struct {
	Dir           string
	Kind          string
	Logger        *slog.Logger
	Fatal         func(error)
	AppendTimeout time.Duration
	SegmentBytes  int
}

type Store struct {
	raft.LogStore
	raft.StableStore
}

func Open(o Options) (*Store, error)                                    { return &Store{}, nil }
func Wrap(log raft.LogStore, stable raft.StableStore, o Options) *Store { return &Store{log, stable} }
func (s *Store) IsMonotonic() bool                                      { return true }
func (s *Store) SetSnapshot(index, term uint64)                         {}
func (s *Store) Close() error                                           { return nil }

// Guard wraps the transport: entries that come from peers are verified before raft sees them.
func (s *Store) Guard(t raft.Transport) raft.Transport { return t }

// OpenSnapshots opens file snapshots tied to this store (SetSnapshot, Fatal, logger of the store).
func (s *Store) OpenSnapshots(dir string, retain int) (raft.SnapshotStore, error) { return nil, nil }

// WrapSnapshots ties any snapshot store (in-memory ones) to this store.
func (s *Store) WrapSnapshots(inner raft.SnapshotStore) (raft.SnapshotStore, error) {
	return inner, nil
}

func OpenSnapshots(dir string, retain int, onNewest func(index, term uint64), logger *slog.Logger) (raft.SnapshotStore, error) {
	return nil, nil
}

func VerifyEntry(l *raft.Log) error { return nil }
func CheckEntry(data []byte) error  { return nil }

type RepeatedInstall struct {
	Peer        raft.ServerID
	Index, Term uint64
	Installs    int
}

// WatchInstalls calls onRepeat, which must not block, at the second and each later InstallSnapshot with one index to one peer.
func WatchInstalls(t raft.Transport, onRepeat func(RepeatedInstall)) raft.Transport { return t }

type Outcome uint8

const (
	OutcomeUnknown         Outcome = iota // may be, or become, committed
	OutcomeCommitted                      // no error
	OutcomeNothingAppended                // this copy is not and never will be in the log
)

func Classify(err error) Outcome { return OutcomeUnknown }

func HCLog(l *slog.Logger) hclog.Logger { return hclog.NewNullLogger() }

// Flow is what CheckConfig cannot see in raft.Config.
type Flow struct {
	RPCsInFlight int // NetworkTransportConfig.MaxRPCsInFlight; 0: the library's default
	EntryBytes   int // largest entry that is proposed; 0: 4 MiB
}

func CheckConfig(c *raft.Config, f Flow) error { return nil }
