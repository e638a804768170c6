package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// LimitsPossible says why a running process cannot be limited here, nil if it can.
func LimitsPossible() error { return nil }

var resources = map[Limit]int{LimitFiles: unix.RLIMIT_NOFILE, LimitMemory: unix.RLIMIT_DATA}

// Limit sets what a node that runs can have of something. lift puts back what it could
// have before; a node that has ended meanwhile needs none and is no error.
func (c *Cluster) Limit(name string, l Limit, most uint64) (lift func() error, err error) {
	pid := c.Pid(name)
	if pid == 0 {
		return nil, fmt.Errorf("limit %s: it is down", name)
	}
	// The soft limit alone: it can be raised again without being root.
	var before unix.Rlimit
	if err := unix.Prlimit(pid, resources[l], nil, &before); err != nil {
		return nil, fmt.Errorf("limit %s: %w", name, err)
	}
	if err := unix.Prlimit(pid, resources[l], &unix.Rlimit{Cur: most, Max: before.Max}, nil); err != nil {
		return nil, fmt.Errorf("limit %s: %w", name, err)
	}
	return func() error {
		if c.Pid(name) != pid {
			return nil
		}
		if err := unix.Prlimit(pid, resources[l], &before, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("lift the limit of %s: %w", name, err)
		}
		return nil
	}, nil
}

// OpenFiles is how many descriptors a process has.
func OpenFiles(pid int) (int, error) {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(all), err
}

// Memory is how many bytes of memory of its own a process has, as LimitMemory counts.
func Memory(pid int) (uint64, error) { return statusBytes(pid, "VmData:") }

// Resident is how many bytes of a process are in memory, and how many have been at most.
func Resident(pid int) (now, peak uint64, err error) {
	now, err = statusBytes(pid, "VmRSS:")
	if err == nil {
		peak, err = statusBytes(pid, "VmHWM:")
	}
	return now, peak, err
}

func statusBytes(pid int, what string) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == what {
			kib, err := strconv.ParseUint(string(f[1]), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d says nothing of its memory", pid)
}
