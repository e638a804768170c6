package cluster

import (
	"onceq/fsm"
	"onceq/transport/wire"
)

// waiter is who wants to know what became of one command. done is called
// exactly once, on the goroutine that applies or on one of the proposer's; it
// must not block. It is given either the result, or the error when the command
// was refused before the log or its outcome is unknown.
type waiter struct {
	kind  fsm.Kind
	bytes int // what the command holds of its lane's memory
	done  func(o outcome)
}

// outcome is what became of a command: Result and Effects, or Err.
type outcome struct {
	Result  *fsm.Result
	Effects *fsm.Effects
	Index   uint64
	Err     *wire.ErrorReply
}

// entry collects commands until it is proposed.
type entry struct {
	w       *fsm.EntryWriter
	waiters []waiter // one for each command, in order
	number  uint64
	bytes   int
}

// refusals: nothing was appended.

func errOverloaded(lane string) *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeOverloaded, Retriable: true,
		Text: "the leader has too many " + lane + " waiting for the log; retry later"}
}

func errShuttingDown() *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeShuttingDown, Retriable: true, Text: "the node is shutting down"}
}

func errUnknown(why string) *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeOutcomeUnknown, Retriable: true, Text: "it may or may not have happened: " + why}
}
