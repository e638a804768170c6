package cluster

import "golang.org/x/sys/unix"

// descriptorLimit is how many files this process may have open, connections included. Go has
// raised it as far as it may by now.
func descriptorLimit() (limit uint64, known bool) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	return l.Cur, true
}
