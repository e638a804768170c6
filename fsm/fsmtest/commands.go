// Package fsmtest helps to test the queue machine: builders for entries, and
// Model, a slow and obvious queue to run against the real one. Tests alone
// import it.
package fsmtest

import (
	"cmp"

	"onceq/fsm"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// Incarnation and Group are those of every machine in these tests.
const (
	Incarnation = 0x0ce9
	Group       = 1
)

// Command is one command in both forms: decoded for the model, encoded for the
// machine.
type Command struct {
	Kind    fsm.Kind
	Payload []byte
	// Request is the wire struct that Payload encodes, or a Term, Detach,
	// HoldGrace, Raise or DigestCommand.
	Request any
}

// Term, Detach, HoldGrace, Raise and DigestCommand are the commands that leaders make.
type (
	Term struct {
		Node        string
		Nonce       fsm.Nonce
		Incarnation uint64 // 0: the usual one
	}
	Detach struct {
		Consumer fsm.ConsumerID
		N        uint64
	}
	HoldGrace     struct{}
	Raise         struct{ Version uint32 }
	DigestCommand struct{}
)

type appender interface{ Append(*pack.Writer) }

func encode(m appender) []byte {
	var w pack.Writer
	m.Append(&w)
	return w.Bytes()
}

// New encodes a request. It panics for a type that is no command.
func New(request any) Command {
	c := Command{Request: request}
	switch r := request.(type) {
	case Term:
		c.Kind, c.Payload = fsm.KindTerm, fsm.TermPayload(r.Node, r.Nonce, cmp.Or(r.Incarnation, Incarnation))
	case Detach:
		c.Kind, c.Payload = fsm.KindDetach, fsm.DetachPayload(r.Consumer, r.N)
	case Raise:
		c.Kind, c.Payload = fsm.KindRaise, fsm.RaisePayload(r.Version)
	case HoldGrace:
		c.Kind, c.Payload = fsm.KindHoldGrace, fsm.HoldGracePayload()
	case DigestCommand:
		c.Kind, c.Payload = fsm.KindDigest, fsm.DigestPayload()
	case wire.OpenSession:
		c.Kind, c.Payload = fsm.KindOpenSession, encode(r)
	case wire.CloseSession:
		c.Kind, c.Payload = fsm.KindCloseSession, encode(r)
	case wire.PublishFrame:
		c.Kind, c.Payload = fsm.KindPublish, encode(r)
	case wire.Seal:
		c.Kind, c.Payload = fsm.KindSeal, encode(r)
	case wire.Attach:
		c.Kind, c.Payload = fsm.KindAttach, encode(r)
	case wire.Leave:
		c.Kind, c.Payload = fsm.KindLeave, encode(r)
	case wire.Settle:
		c.Kind, c.Payload = fsm.KindSettle, encode(r)
	case wire.QueueCreate:
		c.Kind, c.Payload = fsm.KindQueueCreate, encode(r)
	case wire.QueueDelete:
		c.Kind, c.Payload = fsm.KindQueueDelete, encode(r)
	case wire.QueuePurge:
		c.Kind, c.Payload = fsm.KindQueuePurge, encode(r)
	case wire.QueueUpdate:
		c.Kind, c.Payload = fsm.KindQueueUpdate, encode(r)
	case wire.QueuePause:
		c.Kind, c.Payload = fsm.KindQueuePause, encode(r)
	case wire.Edit:
		c.Kind, c.Payload = fsm.KindEdit, encode(r)
	case wire.Receive:
		c.Kind, c.Payload = fsm.KindReceive, encode(r)
	case wire.Release:
		c.Kind, c.Payload = fsm.KindRelease, encode(r)
	case wire.RestoreBegin:
		c.Kind, c.Payload = fsm.KindRestoreBegin, encode(r)
	case wire.RestoreChunk:
		c.Kind, c.Payload = fsm.KindRestoreChunk, encode(r)
	case wire.RestoreEnd:
		c.Kind, c.Payload = fsm.KindRestoreEnd, encode(r)
	case wire.AckPublish:
		c.Kind, c.Payload = fsm.KindAckPublish, encode(r)
	default:
		panic("fsmtest: not a command")
	}
	return c
}

// Entry encodes an entry of commands.
func Entry(proposal uint64, stamp fsm.Time, wall int64, cs ...Command) []byte {
	var commands fsm.Commands
	for _, c := range cs {
		commands.Add(c.Kind, c.Payload)
	}
	return fsm.NewEntry(proposal, stamp, wall, &commands)
}

// Frame returns a publish frame with one publish, its checksum set.
func Frame(session, epoch, floor, sequence, after uint64, queue string, bodies ...string) wire.PublishFrame {
	ms := make([]wire.Message, len(bodies))
	for i, b := range bodies {
		ms[i].Body = []byte(b)
	}
	return wire.PublishFrame{
		Incarnation: Incarnation, Group: Group, Session: session, Epoch: epoch, Floor: floor, Queue: queue,
		Publishes: []wire.Publish{{Sequence: sequence, After: after, Checksum: wire.PublishChecksum(queue, ms), Messages: ms}},
	}
}
