//go:build !linux

package proc

import "errors"

var errLimits = errors.New("a running process can be limited on Linux only")

// LimitsPossible says why a running process cannot be limited here.
func LimitsPossible() error { return errLimits }

// Limit fails: see LimitsPossible.
func (c *Cluster) Limit(string, Limit, uint64) (lift func() error, err error) { return nil, errLimits }

// OpenFiles fails: see LimitsPossible.
func OpenFiles(int) (int, error) { return 0, errLimits }

// Memory fails: see LimitsPossible.
func Memory(int) (uint64, error) { return 0, errLimits }

// Resident fails: see LimitsPossible.
func Resident(int) (now, peak uint64, err error) { return 0, 0, errLimits }
