package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakeUps is a waker. Its thread goes before all others of the machine but the
// kernel's own: what keeps it waiting is none of the load.
func wakeUps(ctx context.Context, period time.Duration, woken func(now time.Time, late time.Duration) (bool, error)) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its priority with it
		done <- func() error {
			if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
				return fmt.Errorf("%w: it takes a thread of real-time priority (root, or CAP_SYS_NICE): %w", ErrMachine, err)
			}
			for last := time.Now(); ctx.Err() == nil; {
				ts := unix.NsecToTimespec(int64(period))
				// Raw: behind a call that the runtime knows of, the thread would wait its
				// turn among this process's own. A signal ends it early, which harms nothing.
				syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
				now := time.Now()
				more, err := woken(now, now.Sub(last)-period)
				if err != nil || !more {
					return err
				}
				last = now
			}
			return nil
		}()
	}()
	return <-done
}

// readTicks reads the first line of /proc/stat: cpu user nice system idle iowait irq
// softirq steal, and what is in user and nice already.
func readTicks() (t ticks, err error) {
	const path, wanted = "/proc/stat", 8
	b, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 1+wanted || fields[0] != "cpu" {
		return t, fmt.Errorf("%s: cannot be read", path)
	}
	for i, f := range fields[1 : 1+wanted] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return t, fmt.Errorf("%s: %w", path, err)
		}
		t.all += n
		if i == wanted-1 {
			t.stolen = n
		}
	}
	return t, nil
}
