//go:build unix && !linux

package procs

import (
	"errors"
	"time"
)

// Usage is what a process has used since it started.
type Usage struct {
	CPU      time.Duration
	Resident uint64
}

// UsageOf is known on Linux only.
func UsageOf(pid int) (Usage, error) { return Usage{}, errors.ErrUnsupported }

// DeviceWritten is known on Linux only.
func DeviceWritten(path string) (uint64, error) { return 0, errors.ErrUnsupported }
