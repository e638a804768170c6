//go:build !linux

package raftlog

import "os"

// syncData makes the bytes of a file durable.
func syncData(f *os.File) error { return f.Sync() }

// dropPages would take bytes of a file out of the page cache.
func dropPages(f *os.File, from, n int64) {}
