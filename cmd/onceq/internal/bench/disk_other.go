//go:build !linux

package bench

import "os"

// reserve gives a file its length.
func reserve(f *os.File, bytes int64) error { return f.Truncate(bytes) }

// syncData makes what was written durable, as the log does.
func syncData(f *os.File) error { return f.Sync() }
