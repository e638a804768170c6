// Command onceq-compare runs onceq and its peers in turn, in one run on one
// machine, under the same load, and prints what each did and the ratios.
//
// It is a module of its own, so that the clients and servers of others stay out
// of onceq's dependencies. NATS JetStream is built from its Go module, onceq from
// this tree; RabbitMQ is used when the distribution's package is installed.
//
// The system bare is none of the peers: it is raft, its log and fsync without a queue, the
// limit that there is on a machine (package bare).
//
// Each system runs three nodes on loopback with their data on one disk. Messages
// are seeded random bytes. What a server spends is read from /proc: CPU seconds
// of its processes, and the bytes that they caused to be written to the block
// layer. A run goes through all systems before it begins the next repetition, so
// that a machine that becomes slower meets all of them; the table shows medians.
package main
