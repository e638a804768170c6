// Package sequenced is the door between package client and client/outbox: a
// producer whose sequences are chosen by its caller, who has them on disk.
//
// A usual producer numbers its publishes itself and forgets them with its process.
// An outbox has to send the same publishes under the same sequences again after a
// crash, and the cluster must not forget an outcome before the outbox has written it
// down. So a Session differs from a usual producer in this:
//
//   - the caller gives each publish its sequence, in rising order;
//   - the floor is what the caller says: the lowest sequence without an outcome on
//     its disk;
//   - a refusal that may pass (a full queue, no queue) is no outcome: it is tried
//     again, at the head first, until it is stored;
//   - nothing moves to another session by itself: with its session it ends.
//
// The types of package client cannot be named here, since it imports this package.
package sequenced

import (
	"context"

	"onceq/transport/wire"
)

// Publish is one message or one atomic batch, encoded once and sent as it is,
// however often that takes.
type Publish struct {
	Encoded  []byte // the array of messages as it is on the wire
	Checksum uint64
	Count    int
	Order    int // publishes of equal order keep their places; see client's orderOf
}

// Stored says where a publish is.
type Stored struct {
	Queue     uint64 // the queue's number
	Lane      uint8
	Offset    uint64 // of the first message
	Duplicate bool   // the answer came from the record of an earlier copy
	Attempts  int    // copies sent by this process
}

// Session is an open named session. It ends when it is fenced, lost or closed.
type Session interface {
	ID() wire.SessionID
	// Next is a sequence that nobody can have used. Sequences may start here.
	Next() uint64
	// Publish sends p under sequence, which is above all that were given to Publish
	// before and not below the floor. resent says that a copy may have been sent by an
	// earlier process. told is called once with the outcome, unless that is so at once
	// before Publish returns; it must neither block nor call the Session. An error that
	// is client.ErrOutcomeUnknown leaves open whether p is stored; any other says that
	// it is not and never will be by this sequence.
	Publish(sequence uint64, p Publish, resent bool, told func(Stored, error))
	// KeepFloor says that sequence is the lowest without an outcome on the caller's
	// disk. It never goes down, and is first called before the first Publish.
	KeepFloor(sequence uint64)
	// Ended is closed when the session has ended and every publish was told.
	Ended() <-chan struct{}
	// Err is why, after that.
	Err() error
	// Close ends it. What is in flight is told as unknown; nothing is sealed, since the
	// next process asks again.
	Close()
}

// Set by package client; its types are given as any.
var (
	// Encode checks messages, a []client.Message, and makes them what is sent. bodyMax
	// is the most bytes of a body.
	Encode func(queue string, messages any, bodyMax int) (Publish, error)
	// Decode is the []client.Message again.
	Decode func(encoded []byte) (any, error)
	// BodyBytesMax is what the cluster of a *client.Client accepts.
	BodyBytesMax func(client any) int
	// Was says whether the cluster of a *client.Client has this id, or had it before a
	// restore.
	Was func(client any, cluster string) bool
	// Open opens the session called name for publishing to queue, through a
	// *client.Client. It waits for a leader until ctx ends.
	Open func(ctx context.Context, client any, queue, name string) (Session, error)
)
