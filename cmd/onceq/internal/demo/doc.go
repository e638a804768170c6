// Package demo is the main job in one go: a cluster of child processes,
// producers that publish numbered messages, consumers that ack them, and a
// nemesis that kills the leader with SIGKILL on the way. Everything that
// producers and consumers see goes into a ledger.History, which package ledger
// audits at the end; nothing in here decides whether a run was good.
//
// Goroutines: one for each producer and one that collects its outcomes, one
// for each consumer (and the client's handlers), the nemesis, the stall
// detector and the progress line. Run waits for all of them.
package demo
