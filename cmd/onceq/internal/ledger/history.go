// Package ledger balances the books of a run: every publish against every
// delivery of it, and both against what the machine counted. It knows nothing
// of the faults that were injected; a finding is a broken promise, whatever
// caused it.
package ledger

import (
	"fmt"
	"time"

	"onceq/transport/wire"
)

// ID is the number that a message carries in its body: which of a producer's
// messages it is.
type ID struct {
	Producer uint32
	Number   uint64
}

func (id ID) String() string { return fmt.Sprintf("p%d/%d", id.Producer, id.Number) }

// Place is where a message is stored: its lane and offset in the one queue of
// the run.
type Place struct {
	Lane   uint8
	Offset uint64
}

func (p Place) String() string {
	if p.Lane == 0 {
		return fmt.Sprintf("offset %d", p.Offset)
	}
	return fmt.Sprintf("lane %d offset %d", p.Lane, p.Offset)
}

// Result is how a publish ended for its producer.
type Result uint8

// The results of a publish.
const (
	Open      Result = iota // never heard of again
	Confirmed               // answered: stored at Place
	Refused                 // a definite error: not stored
	Sealed                  // was unknown, and is settled: never stored
	Unknown                 // may be stored or not
)

// Publish is one message as its producer saw it.
type Publish struct {
	ID        ID
	Result    Result
	Place     Place // when Confirmed
	Duplicate bool  // confirmed by the record of an earlier copy
	Copies    int   // sent
}

// Settled is how a delivery ended for its consumer.
type Settled uint8

// The ends of a delivery.
const (
	Unsettled Settled = iota
	Acked             // confirmed by the cluster
	Nacked            // on purpose, confirmed by the cluster
	Lost              // the cluster said that the lease is lost
	Unsure            // no definite answer
)

// Delivery is one handing-over to a consumer, in the order in which the
// consumers saw them.
type Delivery struct {
	ID       ID
	Place    Place
	Attempt  int
	Consumer int
	Intact   bool // the body is the one that was published
	Settled  Settled
}

// Digest is what one node says of its machine.
type Digest struct {
	Node   string
	Index  uint64
	Digest uint64
}

// History is everything that was seen in a run.
type History struct {
	Publishes  []Publish
	Deliveries []Delivery
	// Counts are the machine's own, after the run.
	Counts wire.QueueCounts
	// Nodes are the digests at DigestIndex, where the leader's was Digest.
	Nodes       []Digest
	NodesWanted int
	DigestIndex uint64
	Digest      uint64
	// Unfinished says why the run ended before everything was consumed; "" when
	// it did not.
	Unfinished string
	// Stalled is the longest time for which the process of the consumers did
	// not run. Beyond StallExcuses it looked dead to the cluster, and leases
	// that the cluster took from it in that time prove nothing.
	Stalled time.Duration
}

// StallExcuses is well below the ten seconds after which a consumer that is
// gone loses its leases.
const StallExcuses = 5 * time.Second
