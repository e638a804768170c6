package raftlog

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

const (
	// flowBytesMax bounds what raft may have in flight to one peer.
	flowBytesMax = 64 << 20

	// entryBytesDefault is the largest entry that the cluster proposes.
	entryBytesDefault = 4 << 20

	// trailingFactor is how many times the entries in flight to a follower must stay in the log behind a snapshot. A follower that
	// compacts past what its leader sends next is sent a snapshot although it is ahead of it.
	trailingFactor = 4
)

// ErrConfig is wrapped by everything that CheckConfig refuses.
var ErrConfig = errors.New("raft configuration refused")

// Flow is the part of the traffic between nodes that raft.Config does not hold.
type Flow struct {
	// RPCsInFlight is NetworkTransportConfig.MaxRPCsInFlight. 0: the library's default.
	RPCsInFlight int

	// EntryBytes is the largest entry that this cluster proposes. 0: 4 MiB.
	EntryBytes int
}

// CheckConfig refuses a configuration that the library accepts and that breaks under load. Both bounds are products of settings that
// look harmless one by one: the library's default of 64 entries an append, 2 requests in flight and entries of 4 MiB is half
// a gigabyte of memory for each slow follower.
func CheckConfig(c *raft.Config, f Flow) error {
	if f.RPCsInFlight == 0 {
		f.RPCsInFlight = raft.DefaultMaxRPCsInFlight
	}
	if f.EntryBytes == 0 {
		f.EntryBytes = entryBytesDefault
	}
	if f.RPCsInFlight < 1 || f.EntryBytes < 1 || c.MaxAppendEntries < 1 {
		return fmt.Errorf("%w: requests in flight %d, entry bytes %d and MaxAppendEntries %d must be positive", ErrConfig, f.RPCsInFlight, f.EntryBytes, c.MaxAppendEntries)
	}
	if f.EntryBytes+checksumBytes > EntryBytesMax {
		return fmt.Errorf("%w: entries of %d bytes, the log takes %d", ErrConfig, f.EntryBytes, EntryBytesMax-checksumBytes)
	}
	if flow := uint64(c.MaxAppendEntries) * uint64(f.RPCsInFlight) * uint64(f.EntryBytes); flow > flowBytesMax {
		return fmt.Errorf("%w: MaxAppendEntries %d x %d requests in flight x entries of %d bytes is %d bytes to each peer, limit %d",
			ErrConfig, c.MaxAppendEntries, f.RPCsInFlight, f.EntryBytes, flow, flowBytesMax)
	}
	if trailing := trailingFactor * uint64(c.MaxAppendEntries) * uint64(f.RPCsInFlight+1); c.TrailingLogs < trailing {
		return fmt.Errorf("%w: TrailingLogs %d, want at least %d (%d x MaxAppendEntries %d x (%d requests in flight + 1))",
			ErrConfig, c.TrailingLogs, trailing, trailingFactor, c.MaxAppendEntries, f.RPCsInFlight)
	}
	return nil
}
