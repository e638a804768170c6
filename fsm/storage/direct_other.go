//go:build !linux

package storage

import "github.com/cockroachdb/pebble/v2/vfs"

// setDirect says that writes do not go past the page cache: only Linux has O_DIRECT.
func setDirect(vfs.File, bool) bool { return false }
