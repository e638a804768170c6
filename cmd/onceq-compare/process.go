package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var errTimeout = errors.New("no answer in time")

// startBound is how long a cluster may take to start.
const startBound = 60 * time.Second

// process is a server that this run started. It ends with this run.
type process struct {
	cmd  *exec.Cmd
	once sync.Once
	gone chan struct{}
}

// startProcess starts a program with its output in a file.
func startProcess(log string, env []string, name string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{cmd: exec.Command(name, args...), gone: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = append(os.Environ(), env...)
	// A group of its own: an interrupt at the terminal is for this program, which
	// then ends the group, whatever a script in it has started.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// kill ends it and what it started, and waits.
func (p *process) kill() {
	p.once.Do(func() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
	<-p.gone
}

func pidsOf(procs []*process) (pids []int) {
	for _, p := range procs {
		pid := p.cmd.Process.Pid
		select {
		case <-p.gone:
			pid = 0
		default:
		}
		pids = append(pids, pid)
	}
	return pids
}

// until tries again until try succeeds; its last error is told when it never does.
func until(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready after %s: %w", what, startBound, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// usage is what processes have used since they started.
type usage struct {
	cpu     time.Duration // user and system
	written float64       // bytes that the device of their data took, of whoever wrote there
	rss     float64       // bytes, now
}

func (u usage) since(before usage) usage {
	return usage{u.cpu - before.cpu, u.written - before.written, u.rss}
}

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, which Linux fixes.
const clockTick = 10 * time.Millisecond

// usageOf sums over processes, with what was written to the device that holds
// dir; a process that is gone counts nothing.
//
// The device is asked, not the processes: what /proc/PID/io says counts whole
// folios for each small write since ext4 has large ones (Linux 6.16), tens of
// times of what is written by a log that is synced often.
func usageOf(pids []int, dir string) (u usage) {
	u.written = deviceWritten(dir)
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if pid == 0 || err != nil {
			continue
		}
		// Behind the name, which is in brackets and may hold anything.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		number := func(s string) float64 { n, _ := strconv.ParseFloat(s, 64); return n }
		u.cpu += time.Duration(number(f[11])+number(f[12])) * clockTick
		u.rss += number(f[21]) * float64(os.Getpagesize())
	}
	return u
}

// sectorBytes is the unit of /proc/diskstats, whatever the device's own is.
const sectorBytes = 512

// deviceWritten is what the device of a folder has taken; 0 when it is not known.
func deviceWritten(dir string) float64 {
	var st syscall.Stat_t
	if dir == "" || syscall.Stat(dir, &st) != nil {
		return 0
	}
	stats, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(stats)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[0] == strconv.Itoa(int(unix.Major(st.Dev))) && f[1] == strconv.Itoa(int(unix.Minor(st.Dev))) {
			n, _ := strconv.ParseFloat(f[9], 64)
			return n * sectorBytes
		}
	}
	return 0
}
