// Package bare is the least that does what a queue does on this machine: three nodes of
// hashicorp/raft with raft-wal, each in a process of its own, that make messages durable
// on a majority by fsync before they are confirmed, push them to consumers, and remove
// what is acked.
//
// It is no queue. Nobody is told apart, so a retransmitted message would be stored twice;
// there are no leases, timers, limits, snapshots, and no failover: a node that is no
// longer leader ends its clients' connections. What it does is the part that no queue of
// this design can leave out, and how fast it is shows what disk, system, raft and log
// allow at most, in the same run as what is measured against it.
//
// # The wire
//
// Frames of a length (4 bytes, big-endian, of what follows), a kind (1 byte) and what
// the kind says. A node greets with one byte, whether it leads. Messages are in blocks,
// each behind its length (4 bytes); queues are numbers.
//
//	publish    queue (4), blocks of messages
//	subscribe  queue (4), prefetch (4)
//	ack        queue (4), offsets (8 each)
//	delete     queue (4); confirmed as one publish
//	confirmed  how many more publishes of the connection are on a majority's disks (4)
//	deliver    for each message its offset (8) and a block of it
package bare
