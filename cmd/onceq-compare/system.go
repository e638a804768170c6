package main

import (
	"context"
	"time"
)

// system is something that can be measured.
type system interface {
	// Name is how tables call it.
	Name() string
	// Version says what is measured, with the settings that matter.
	Version() string
	// Durable says whether a publish is on a majority's disks, by fsync, before it
	// is confirmed.
	Durable() bool
	// Peer says whether it is a queue that onceq is compared with.
	Peer() bool
	// Does says whether it does a piece of work.
	Does(w work) bool
	// Start starts three nodes with their data in dir, and returns once a queue can
	// be made.
	Start(ctx context.Context, dir string) (cluster, error)
}

// nodes is how many nodes a cluster has.
const nodes = 3

// cluster is three running nodes of a system.
type cluster interface {
	// Create makes an empty durable queue on three replicas. leases is how many
	// messages its consumers may hold together; 0: nobody consumes.
	Create(ctx context.Context, queue string, leases int) error
	// Delete removes a queue with what is in it.
	Delete(ctx context.Context, queue string) error
	// Leader is the number of the node that leads the queue.
	Leader(ctx context.Context, queue string) (int, error)
	// Producer connects to the queue's leader, and to another node when that one is
	// gone.
	Producer(ctx context.Context, queue string, inFlight int) (producer, error)
	// Consumer does so too.
	Consumer(ctx context.Context, queue string, prefetch int) (consumer, error)
	// Pids are the nodes' process ids, by number; 0 for one that is down.
	Pids() []int
	// Kill ends a node with SIGKILL.
	Kill(node int) error
	// Close ends all nodes and waits for them.
	Close()
}

// producer publishes to one queue. It is for one goroutine.
type producer interface {
	// Publish begins to publish a message. id tells it from all others, for systems
	// that let the publisher name a message; copies of a message have its id.
	Publish(id string, body []byte) (confirmation, error)
	Close()
}

// confirmation is a publish that may still be open.
type confirmation interface {
	// Wait returns when the publish is confirmed, refused, or timeout is over. No
	// timeout: 0.
	Wait(timeout time.Duration) error
}

// consumer takes messages of one queue.
type consumer interface {
	// Run calls handle for each message and then acks it, until ctx ends. A handler
	// may be called by one goroutine only.
	Run(ctx context.Context, handle func(body []byte)) error
}
