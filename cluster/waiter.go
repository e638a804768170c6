package cluster

import (
	"sync"

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

// outcome is what became of a command: Result and Effects, or Err. Both are there when
// the command asked for more work than fitted into its entry: then nothing happened.
type outcome struct {
	Result  *fsm.Result
	Effects *fsm.Effects
	Index   uint64
	Err     *wire.ErrorReply
}

func appliedOutcome(r *fsm.Result, eff *fsm.Effects, index uint64) outcome {
	o := outcome{Result: r, Effects: eff, Index: index}
	if r.Status == fsm.StatusBusy {
		o.Err = errBusy()
	}
	return o
}

// batch collects commands of a lane until an entry takes it.
type batch struct {
	commands fsm.Commands
	waiters  []waiter // one for each command, in order
	bytes    int
}

// batches keeps the memory of batches that are answered: they are as large as the
// next ones will be.
var batches = sync.Pool{New: func() any { return new(batch) }}

func newBatch() *batch { return batches.Get().(*batch) }

// len is how many bytes it adds to an entry. There may be none.
func (b *batch) len() int {
	if b == nil {
		return 0
	}
	return b.commands.Len()
}

// refuse answers all of it with an error.
func (b *batch) refuse(e *wire.ErrorReply) {
	if b == nil {
		return
	}
	for _, w := range b.waiters {
		w.done(outcome{Err: e})
	}
	b.free()
}

// free gives the batch's memory back. Nobody may use it any more.
func (b *batch) free() {
	b.commands.Reset()
	clear(b.waiters)
	b.waiters, b.bytes = b.waiters[:0], 0
	batches.Put(b)
}

// refusals: nothing was appended.

func errOverloaded(lane string) *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeOverloaded, Retriable: true,
		Text: "the leader has too many " + lane + " waiting for the log; retry later"}
}

// errBusy is for what asked for more work than fitted into its entry. Nothing happened.
func errBusy() *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeOverloaded, Retriable: true,
		Text: "more was asked for than is done at once; retry later"}
}

func errShuttingDown() *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeShuttingDown, Retriable: true, Text: "the node is shutting down"}
}

func errUnknown(why string) *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeOutcomeUnknown, Retriable: true, Text: "it may or may not have happened: " + why}
}
