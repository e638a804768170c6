package raftlog

import (
	"errors"

	"github.com/hashicorp/raft"
)

// Outcome is what an error of raft proves about the entry that it was returned for.
type Outcome uint8

const (
	// OutcomeUnknown: the entry may be in the log, or may come to be, and may be committed later. Only the session can tell.
	OutcomeUnknown Outcome = iota

	// OutcomeCommitted: there was no error.
	OutcomeCommitted

	// OutcomeNothingAppended: this copy is in no log and never will be.
	OutcomeNothingAppended
)

func (o Outcome) String() string {
	switch o {
	case OutcomeCommitted:
		return "committed"
	case OutcomeNothingAppended:
		return "nothing appended"
	default:
		return "unknown"
	}
}

// classified is one line of the table.
type classified struct {
	err     error
	name    string // as the library spells it
	outcome Outcome
	why     string
}

// outcomes judges every exported error of the library. A test reads the library's source and fails when it has one more.
var outcomes = []classified{
	{raft.ErrNotLeader, "ErrNotLeader", OutcomeNothingAppended, "answered before dispatch, by a node that does not lead"},
	{raft.ErrLeadershipTransferInProgress, "ErrLeadershipTransferInProgress", OutcomeNothingAppended, "answered before dispatch, while a transfer runs"},
	{raft.ErrEnqueueTimeout, "ErrEnqueueTimeout", OutcomeNothingAppended, "the entry never got into raft's channel"},
	{raft.ErrLeadershipLost, "ErrLeadershipLost", OutcomeUnknown, "dispatched; the next leader may have it"},
	{raft.ErrAbortedByRestore, "ErrAbortedByRestore", OutcomeUnknown, "dispatched; followers may have it"},
	{raft.ErrRaftShutdown, "ErrRaftShutdown", OutcomeUnknown, "only when returned at once does it prove that nothing was appended; the caller cannot tell from the error"},
	{raft.ErrLogNotFound, "ErrLogNotFound", OutcomeUnknown, "a store error, met while replicating or applying"},
	{raft.ErrPipelineReplicationNotSupported, "ErrPipelineReplicationNotSupported", OutcomeUnknown, "between nodes; says nothing about an entry"},
	{raft.ErrTransportShutdown, "ErrTransportShutdown", OutcomeUnknown, "between nodes; the request may have arrived"},
	{raft.ErrPipelineShutdown, "ErrPipelineShutdown", OutcomeUnknown, "between nodes; the request may have arrived"},
	{raft.ErrLeader, "ErrLeader", OutcomeNothingAppended, "an operation that a leader refuses"},
	{raft.ErrNotVoter, "ErrNotVoter", OutcomeNothingAppended, "a bootstrap or an election that was refused"},
	{raft.ErrNothingNewToSnapshot, "ErrNothingNewToSnapshot", OutcomeNothingAppended, "a snapshot that was not taken"},
	{raft.ErrUnsupportedProtocol, "ErrUnsupportedProtocol", OutcomeNothingAppended, "an operation refused before anything"},
	{raft.ErrCantBootstrap, "ErrCantBootstrap", OutcomeNothingAppended, "a bootstrap that found state"},
}

// Classify tells what an error from a future of raft proves. What is not in the table is a store error or a text: unknown. Note that
// with BatchApplyCh a future in the channel at shutdown is never answered at all: wait for it together with the node's own end.
func Classify(err error) Outcome {
	if err == nil {
		return OutcomeCommitted
	}
	for _, c := range outcomes {
		if errors.Is(err, c.err) {
			return c.outcome
		}
	}
	if errors.Is(err, ErrEntryTooLarge) {
		return OutcomeNothingAppended // StoreLogs refuses the batch before it writes, and raft replicates from the store
	}
	return OutcomeUnknown
}
