module onceq/jepsen/faultfs

go 1.26

// The kernel's FUSE protocol; v2.12.1 is maintained and was tried with bbolt's
// mmap, raft-wal's preallocation and Pebble's hard links.
require github.com/hanwen/go-fuse/v2 v2.12.1

require golang.org/x/sys v0.45.0
