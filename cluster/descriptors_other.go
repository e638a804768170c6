//go:build !linux

package cluster

// descriptorLimit is how many files this process may have open.
func descriptorLimit() (limit uint64, known bool) { return 0, false }
