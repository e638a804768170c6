// Package raftlog is what stands between hashicorp/raft and the disk: the log, the stable store (term and vote), the
// snapshots, and the two places of the transport where a damaged or repeated request must be stopped.
//
// What is authoritative: the log store and the stable store on disk. A Store remembers the newest entries as they were stored, some
// megabytes of them (recent.go), what a leader has on its way to the disk (parallel.go), the index and term of the newest local
// snapshot, the first storage error, and the first half of a vote that raft writes in two steps.
//
// What it adds to the libraries, each because a fault was seen or read in their source:
//
//   - A checksum in every entry (checksum.go). Neither raft-wal nor boltdb notices a flipped bit at rest, and raft's transport has
//     no checksum at all. It is made once, by the leader's StoreLogs, and travels with the entry. A follower verifies it in Guard,
//     before raft sees the request, because raft deletes a conflicting suffix before it stores what conflicts: a flipped bit in an
//     entry's term would cost the follower entries that it has acknowledged.
//   - A log without gaps, over every store (log.go). raft then empties the log when it installs a snapshot instead of leaving a hole
//     in it, which is what raft-wal needs and what makes the answer below safe.
//   - An answer for the entry that a snapshot ends with (header.go). Without it one lost reply after InstallSnapshot makes leader
//     and follower exchange that snapshot for ever, and the follower's state machine goes back each time.
//   - A leader's write beside those of its followers (parallel.go), where raft has one after the other.
//   - The first storage error is the last (store.go): raft-wal is wedged after it and boltdb "succeeds" on the retry after a failed
//     fsync, which is worse. So is an operation that does not end (watchdog.go): a leader whose disk hangs keeps its heartbeats.
//   - The second half of raft-wal's change to a new segment, when a crash or a full disk has interrupted it (rotate.go). The library
//     refuses every append from then on, after every restart too.
//   - A vote in one transaction, with a checksum (stable.go).
//   - A high-water file (highwater.go): where log and snapshot ended when this node last acknowledged something. A log that lost its
//     end reads like a log that never was longer; with the file such a node is refused instead of voting with less than it promised.
//   - Files beside a snapshot's stream (annex.go), so that bodies can be linked and not copied.
//   - Snapshots that are read back before raft truncates the log (snapshots.go), and never an older one over a newer.
//
// ../DEFENCES.md lists what the libraries leave to us, with the test for each.
//
// What callers owe it: shut raft down before Close; mount Guard under raft; ask Committed in Apply; check proposals with CheckEntry,
// so that nobody meets the limit in StoreLogs; end the process in Options.Fatal.
//
// Goroutines: one watchdog, one writer of the high-water file and one of what is on its way a Store, ended by Close; one sender for
// each snapshot with files that is read to its end, ended by the reader's Close; one forwarder a Guard, ended by the transport's Close,
// which raft calls, and one for each pipeline to a follower, ended by its Close. All of it works on in-memory stores in virtual time
// (testing/synctest).
//
// Trade-offs. The checksum is computed up to four times for an entry on a follower (Guard, StoreLogs, GetLog, Apply). CRC32C runs at
// several GB/s, an fsync costs more than all four, and each of them covers a different stretch of memory. A log store and a stable
// store in two files cost a second file descriptor and no fsync more: a vote never waits for the log.
package raftlog
