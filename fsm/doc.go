// Package fsm is the queue machine that raft replicates: a plain function
// (state, command) -> (state, results, deliveries). It has no clock, network,
// goroutine or randomness and does no I/O; what cannot be computed from the
// snapshot and the log does not belong here.
//
// # What is authoritative
//
// Machine holds four tables and a clock:
//
//   - sessions: per producer the floor and the outcomes at or above it. This is
//     the table of inner-msg-ids: because it is replicated with everything else,
//     a new leader knows exactly what the old one had stored.
//   - queues: per queue and priority lane the range of offsets that was never
//     delivered (head to tail), and a record for each message that needs more
//     than its place: an ordering key, a delay or a time to live of its own, or
//     a failed attempt behind it. What is gone from the middle of the range is
//     told by ranges of its own (gone.go).
//   - consumers: per consumer its leases and the outcomes of its deliveries,
//     numbered 1, 2, 3 by the machine. It is the session scheme turned around.
//     One that attaches is handed messages, a puller asks for them (receive.go).
//   - timers: one for each session, consumer and queue that waits for a moment.
//   - now: cluster time, which moves only by the stamps in entries.
//
// Bodies live behind BodyStore and are never read by Apply: each decision comes
// from the tables alone, so it cannot depend on what a node has in its cache.
//
// # The states of a message
//
//	publish -> ready -> leased -> gone (acked)
//	    |        ^         |
//	    |        +---------+ lease ran out, consumer gone or left
//	    +----> delayed <---+ nacked: a delay, or the queue's backoff
//	                       +-> dead letter: ready in another queue, or parked
//	any of them -> gone (expired, deleted, moved, purged)
//
// Of an ordering key only the oldest message is ready, leased or delayed; the
// others are ready and blocked behind it. At each index the queue's Stored count
// is the sum of all of them.
//
// # An entry
//
// An entry is applied in four steps: the clock moves to the stamp if that is
// later; all commands run in order; due timers fire, up to a budget; ready
// messages are assigned to consumers with credit, queue by queue. The order
// matters: an ack that reached the log in the same entry as the end of its
// lease wins, since nobody else has the message, and a message that comes back
// in an entry is handed out before a younger one of the same entry.
//
// # Restores
//
// A backup comes in through the log like everything else and takes the place of
// all tables in one command (restore.go), after Apply has built them with the
// chunks in which they came (assembly.go). With it another incarnation begins.
// Sessions from before are kept, closed for good: a copy of a publish that has a
// record is answered from it, any other is refused, since what happened between
// the backup and the restore nobody knows. Leases went back, consumers are gone.
//
// # What callers owe it
//
// One goroutine at a time calls Apply, Snapshot, Restore and Digest; reads may
// run beside each other but not beside those, and each visits a bounded number of
// rows, or says that it does not (look.go). The leader runs Check on each
// payload before it joins an entry, so nothing undecodable enters the log; in
// Apply a bad command is a deterministic refusal all the same, because a panic
// there would end every node, again at each start. Apply returns an error only
// for what must stop a node.
//
// # Trade-offs
//
// Leases in replicated state cost a table, and buy that a failover is no reason
// to redeliver and that attempt numbers do not lie. Assignment inside Apply
// makes them as cheap as a leader's private table would be: publish and ack are
// the only commands a message costs. A record for each message would make every
// feature simple and a backlog cost memory; a range with records for exceptions
// costs the head a look-up while there are any. Sessions instead of a window of recent ids
// cost the client a registration and a counter, and buy that the table is as
// large as what is in flight and forgets nothing (Lee et al., "Implementing
// Linearizability at Large Scale and Low Latency", SOSP 2015; Ongaro,
// "Consensus: Bridging Theory and Practice", 6.3). A snapshot's rows are copied
// between entries before it is taken, and again when they change, instead of at
// their first change after it: Apply's code then needs no word about snapshots
// beyond the one that the digest needs, and pays twice for rows that change.
package fsm
