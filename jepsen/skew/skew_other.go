//go:build !(linux && amd64)

package skew

import (
	"errors"
	"time"
)

var errPlace = errors.New("clocks are moved on Linux on amd64 only")

// Possible says why no clock can be moved here.
func Possible() error { return errPlace }

// Clock is the changed wall clock of a process.
type Clock struct{}

// Attach changes a process.
func Attach(int) (*Clock, error) { return nil, errPlace }

// Set moves the wall clock.
func (*Clock) Set(time.Duration) error { return errPlace }

// Close lets go of the process.
func (*Clock) Close() error { return nil }
