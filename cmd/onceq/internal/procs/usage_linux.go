package procs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used since it started.
type Usage struct {
	CPU          time.Duration // user and system
	BytesWritten uint64        // handed to the disk, as the kernel counts it
	Resident     uint64        // bytes of memory now
}

// clockTick is the unit of /proc/PID/stat, which Linux fixes for user space.
const clockTick = time.Second / 100

// UsageOf reads what process pid has used.
func UsageOf(pid int) (Usage, error) {
	var u Usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The second field is the name in parentheses and may hold anything.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 22 {
		return u, fmt.Errorf("/proc/%d/stat: cannot be read", pid)
	}
	user, err1 := strconv.ParseUint(fields[11], 10, 64)
	system, err2 := strconv.ParseUint(fields[12], 10, 64)
	pages, err3 := strconv.ParseUint(fields[21], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return u, fmt.Errorf("/proc/%d/stat: cannot be read", pid)
	}
	u.CPU = time.Duration(user+system) * clockTick
	u.Resident = pages * uint64(os.Getpagesize())
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(io)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			u.BytesWritten, err = strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			if err != nil {
				return u, fmt.Errorf("/proc/%d/io: %w", pid, err)
			}
		}
	}
	return u, nil
}
