// Package cluster runs the nodes of a cluster. It is the only package that
// imports hashicorp/raft: it turns requests of clients into commands of the log,
// applies what is committed to the queue machine (package fsm), and hands out
// answers and deliveries over the connections (package transport).
//
// # What is authoritative
//
// The log, and the machine that follows from it. Everything else here is the
// private state of one node and is thrown away with a leadership: lanes of
// waiting commands, who waits for which entry, which consumer is registered on
// which connection, the measure of cluster time.
//
// # The states of a node
//
//	forming   -> following   it belongs to a cluster: formed it, joined it, or knew it
//	following -> preparing   raft says that it leads; it proposes a term entry
//	preparing -> serving     its own term entry is applied here
//	serving   -> draining    it hands over, or is told to end
//	any       -> following   raft says so, or another's term entry is applied here
//
// A client's command waits while the node prepares, and is proposed while it
// serves; in all other states it is refused, and nothing was appended. A look-up
// is answered only while the node serves, after a majority has confirmed its
// leadership. A delivery is sent only over a live connection on which that very
// attachment is registered.
//
// # The path of a command
//
//	connection's reader   fsm.Check, then into the open batch of its lane
//	proposer's worker     makes an entry of a batch of each lane, stamps it, hands it
//	                      to raft, waits for the future
//	raft                  disk, replication, commit
//	raft's FSM goroutine  group.Apply: machine, answers in the order of the
//	                      commands, then deliveries, then what timers took
//	connection's writer   reads the bodies of deliveries when the socket takes them
//
// Each waiter is answered exactly once: by Apply, or by what the future's error
// proves (raftlog.Classify). "Unknown" is said as unknown; the session makes the
// retry safe.
//
// # Goroutines
//
// Long-lived ones, what each owns, and who talks to it:
//
//	raft's own            the log, membership, elections; calls group.Apply,
//	                      Snapshot and Restore on its FSM goroutine, which is the
//	                      only writer of the machine (group.mu)
//	leadership.run        whether this node leads; reads raft's NotifyCh, which
//	                      blocks raft until it is read, so it never waits for raft
//	proposer workers      one for each entry that may be in flight; each owns the
//	                      one that it made until that is answered. A turn goes round,
//	                      so entries keep their order
//	ticker.run            samples the clock each 100 ms while the node serves, asks
//	                      for ticks, proposes detaches again, answers receives that
//	                      have waited long enough
//	reader.run            look-ups that wait for a confirmed leadership; each has
//	                      the machine for a bounded number of rows
//	a redrive's step      (short-lived, a few at once) reads messages and their bodies,
//	                      and proposes what matches by place
//	steward.run           promotes joined nodes, removes the old selves of wiped ones
//	auditor.run           has the replicas compare their states, at an interval
//	topology.run          tells clients who leads and where the nodes are; reads
//	                      raft's observations and is woken by gossip
//	succession.run        looks whether a leader whose streams ended is gone, and
//	                      stands for election at once if a majority says so
//	cureInstalls          a newer snapshot when a follower was sent one twice, or when
//	                      the newest is damaged; hands over when the next is too
//	snapshotter.run       takes every snapshot: when the log has grown by enough bytes
//	                      or entries; copies the tables before, a piece at a time
//	disk.run              looks at the free space each second, tells the others; makes and
//	                      gives up the ballast, and has snapshots taken on one that is (nearly) full
//	scrub                 reads the log and the newest snapshot's files in the
//	                      background, a few MiB a second
//	mux.Serve, server.Serve   accept; each connection has a reader, which calls the
//	                      handler and must not wait, and a writer
//	streams, gossip       package member
//	log watchdog, high-water writer   package raftlog
//	body writer           package fsm/storage, with bodies on disk: the only one that
//	                      takes bodies out of memory and carries deletes to disk
//
// Short-lived: the proposal of the term entry, requests that change the
// membership (at most membershipRequestsMax). Whoever starts one is a method of
// Node, and Node.Close waits for all of them.
//
// # Locks
//
// leadership.mu before everything that it calls: proposer.mu, hub.mu, receives.mu,
// ticker.mu, clock.mu, none of which is held while another is taken, except hub.mu before
// registration.mu. group.mu is held for Apply, Snapshot, Restore and reads of
// the machine, and nothing else is taken under it but a connection's own lock.
// No lock is held while anything waits.
//
// # Ending
//
// In order: requests are refused, what is in flight ends (a second at most), a
// last stamp so that no cluster time is lost, the leadership is handed over,
// clients are told, gossip is told, and then everything closes as below. A crash
// is only the closing. Nothing is applied any more once raft is told to shut
// down: it may drop a batch on its way to Apply and deliver the next. Peer
// streams are cut before raft is waited for, since it waits for its exchanges
// with peers. Futures that it leaves without an answer are ended by us and told
// as unknown. Connections of clients close after that, with their last answers;
// the log and the lock on the directory last, when nobody can write any more.
// raft's configuration keeps a node that ends.
//
// # Trade-offs
//
// raft's applyCh is unbuffered. Buffered (BatchApplyCh) it would collect entries
// while the disk is busy; our lanes do that themselves and make one entry out of
// many commands, which is cheaper than many entries, and keep a definite answer
// for everything that has not been handed over.
//
// Settles and publishes wait in lanes of their own, so neither waits for the
// other's memory, and share entries: at 2,000 messages a second that are acked, with
// load and nodes on two cores, a message takes 0.20 entries in place of 0.29, and a
// third less time from end to end in the median. The price is one more copy, and that
// an ack may wait for the write of a publish beside it.
//
// A small entry waits for the one under way. With a distant follower that can be a
// round more than an entry of its own at once would take; under load, when entries
// are large, they overlap.
//
// A leader writes its own commands while they go to the followers, and an entry is
// committed when a majority of disks has it, with the leader's or without
// (raftlog/parallel.go). So a slow disk is in nobody's way as long as a majority of the
// others has none, be it the leader's: "onceq bench tails" has a median of 8 ms in place
// of 75 when each fsync of the leader takes 20 ms more, and of 3 ms without. So there is
// no reason to hand over, and some not to: a node sees the others' disks only through
// its own, and nodes that share a host, an array or a noisy neighbour are slow together.
// Then leadership would go round, and each turn detaches every consumer. "onceq status"
// tells how long each node's appends take, and "onceq cluster transfer" moves the
// leadership; what goes through a leader at full speed is still bound by what its disk
// writes. A disk that does not answer at all is another matter: the log's watchdog ends
// the node, the others elect. The price of writing beside is an entry more in flight: a
// leader's memory has what its disk lacks, at most 8 MiB.
//
// Deliveries wait at the sender as leases, not as bytes: a slow consumer costs
// the leader a few dozen bytes a message, bounded by the consumer's credit. The
// price is that a body is looked up when the socket takes it.
package cluster
