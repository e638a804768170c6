package procs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process has used since it started.
type Usage struct {
	CPU      time.Duration // user and system
	Resident uint64        // bytes of memory now
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
	return u, nil
}

// sector is the unit of a block device's statistics, whatever its real sectors.
const sector = 512

// DeviceWritten is how many bytes have been written to the device that holds
// path, by anybody. The write_bytes of /proc/PID/io would be by process, but
// count a whole large folio of the page cache each time a few bytes of it are
// made dirty: a log that syncs a hundred bytes at a time was charged megabytes
// for each, a hundred times what reached the device.
func DeviceWritten(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	name := fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, errors.ErrUnsupported // no device of its own: overlay, memory, network
	}
	f := strings.Fields(string(b))
	if len(f) < 7 {
		return 0, fmt.Errorf("%s: cannot be read", name)
	}
	n, err := strconv.ParseUint(f[6], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n * sector, nil
}
