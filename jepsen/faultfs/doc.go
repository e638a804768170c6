// Package faultfs is a faulty disk: a file system that passes everything through
// to a directory, remembers what was not made durable, and fails on command.
//
// What it knows. For each file that was written since its last fsync the content
// of the pages as they were then, and its length; for each directory the names
// that were made, removed or moved since that directory was fsynced. A power cut
// puts all of this back. It is stricter than most file systems on purpose: an
// fsync of a new file does not make its name durable, and names in one directory
// say nothing about names in another. What survives here survives anywhere.
//
//   - Cut forgets what was not fsynced, or tears it: then some of it survives, by
//     seed, in pieces of a page or of a sector, and the names up to some
//     moment. From a cut on every operation fails with EIO, until PowerOn mounts the
//     disk again; who used it should be ended in between.
//   - A Rule makes operations fail (EIO, ENOSPC), slow, or hang: of some kinds, on
//     some names, from the n-th on, so often. A failed fsync loses what it was for:
//     the pages stay readable until the power is cut, and no later fsync saves them,
//     which is what Linux does.
//
// What is authoritative: the backing directory. "data" in it is what the mount
// shows; "lost" holds names that were removed or replaced and not yet for good.
// Nothing survives the process: what was not durable at its end is kept.
//
// A process must not use a mount of its own through mmap, since a page fault
// stops the goroutines that would answer it. bbolt reads so: a node and its
// faulty disk are two processes. The binary (cmd/faultfs) takes commands on a unix
// socket, one a line:
//
//	cut [keep|tear SEED]     power off; keep loses nothing, like the end of a process
//	plan N [keep|tear SEED]  power off right before the N-th change from now on
//	planned                  the change before which the planned cut came, or nothing
//	on                       power on
//	fail OPS ERRNO [match GLOB] [skip N] [times N]
//	slow OPS DURATION [match GLOB] [skip N] [times N]
//	hang OPS [match GLOB] [skip N] [times N]
//	heal                     forget all rules; what hangs goes on
//	stats                    operations so far, and how often a rule applied
//	hit                      the newest operation that a rule applied to
//	where                    how many files, and which names, are not durable
//
// OPS is a list like "write,fsync", or "all". GLOB is matched against the path
// below the mount and each end of it: "*.sst", "wal/*", "groups/0/log/highwater".
// From a shell:
//
//	faultfs --backing /var/tmp/b --socket /var/tmp/s /mnt &
//	echo 'fail fsync EIO match *.wal times 1' | nc -U /var/tmp/s
//
// From a Go test of the root module: onceq/jepsen/faultdisk builds the binary,
// starts it and speaks to it.
package faultfs
