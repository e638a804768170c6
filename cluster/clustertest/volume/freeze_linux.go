package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Freeze stops a process, as its machine does when the power goes, and waits until
// none of its threads runs: each is stopped, or in the kernel, and stopped before it
// comes back from there.
//
// It has to be done before CutPower. An fsync that is under way in that moment may
// return without an error afterwards though its data is gone: the journal's
// transaction has ended, by being given up, and ext4 takes that for a commit. With
// the power nobody could act on it; a process that goes on confirms what it lost.
func Freeze(p *os.Process) error {
	if err := p.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	tasks := fmt.Sprintf("/proc/%d/task", p.Pid)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Microsecond) {
		running, err := runningTask(tasks)
		if running == "" || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("thread %s does not stop", running)
		}
	}
}

// runningTask returns a thread that may still run in the process, "" for none.
func runningTask(tasks string) (string, error) {
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		stat, err := os.ReadFile(filepath.Join(tasks, e.Name(), "stat"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return "", err
		}
		// The name before it is in parentheses and may hold anything.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
		if len(rest) == 0 || !strings.ContainsRune("TtDZX", rune(rest[0])) {
			return e.Name(), nil
		}
	}
	return "", nil
}
