//go:build !linux

package cluster

import "errors"

// allocate makes a file take so many bytes of its file system.
func allocate(string, int64) error { return errors.ErrUnsupported }
