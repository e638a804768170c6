package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"onceq/cluster/clustertest"
	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/exit"
)

// TestBenchMachine_StoodStill_IsSeen: a watcher that is stopped for a while stands for a
// machine that is.
func TestBenchMachine_StoodStill_IsSeen(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a thread of real-time priority takes root")
	}
	p, in := startWithInput(t, "bench", "machine", "--lent", "--time", "24h", "-o", "json")
	pid := p.cmd.Process.Pid
	eventually(t, "a thread of real-time priority", func() bool { return realTime(t, pid) })
	stop := func(sig syscall.Signal, seen func(state string) bool) {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		eventually(t, sig.String(), func() bool { return seen(stateOf(t, pid)) })
	}
	// More than once: the first may be before it has begun to count.
	var stood time.Duration
	for range 3 {
		stop(syscall.SIGSTOP, func(s string) bool { return s == "T" })
		began := time.Now()
		time.Sleep(100 * time.Millisecond)
		stood = time.Since(began)
		stop(syscall.SIGCONT, func(s string) bool { return s != "T" })
	}
	in.Close()
	if code := p.exitCode(t); code != exit.OK {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	var rows []bench.MachineRow
	if err := json.Unmarshal(p.out.Bytes(), &rows); err != nil || len(rows) != 1 {
		t.Fatal(err, p.out.String())
	}
	if r := rows[0]; r.Max < float64(stood/time.Millisecond)/2 || r.P99 > r.Max || r.Seconds <= 0 || r.Stolen < 0 || r.Stolen > 1 {
		t.Errorf("it stood still for %v: %+v", stood, r)
	}
}

// realTime says whether a thread of a process has real-time priority.
func realTime(t *testing.T, pid int) bool {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
		if err != nil {
			continue // it has ended
		}
		const policy, fifo = 41 - 3, "1" // the 41st field, of which the third is the first behind the name
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > policy && f[policy] == fifo {
			return true
		}
	}
	return false
}

// stateOf is the state of a process, as /proc has it.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
}

// TestBench_AClusterThatIsNotItsOwn_SaysWhatItCannotTell, in place of leaving columns empty without a word.
func TestBench_AClusterThatIsNotItsOwn_SaysWhatItCannotTell(t *testing.T) {
	c := clustertest.New(t, 1)
	url := strings.TrimPrefix(c.URL(), "onceq://")
	o := inProcess(t, "", "bench", "pub", "--smoke", "--size", "16", "--load", "full", "--url", url).want(t, exit.OK, "the machine was not watched", "CAP_SYS_NICE")
	if o.out == "" || strings.Contains(o.out, "watched") {
		t.Errorf("on standard output: %q", o.out)
	}
}

// TestBench_WatchesTheMachine beside each load of its own cluster.
func TestBench_WatchesTheMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a thread of real-time priority takes root")
	}
	needBinary(t)
	o := onceq(t, "", "bench", "pub", "--smoke", "--size", "16", "-o", "json").want(t, exit.OK)
	var rows []bench.Row
	if err := json.Unmarshal([]byte(o.out), &rows); err != nil || len(rows) != 3 {
		t.Fatal(err, o)
	}
	for _, r := range rows {
		if m := r.Machine; m == nil || m.Seconds <= 0 || m.Max < m.P99 || m.P99 < m.P50 {
			t.Errorf("%s: %+v", r.Load, m)
		}
	}
	onceq(t, "", "bench", "pub", "--smoke", "--size", "16", "--load", "full").want(t, exit.OK, "STILL P99", "STOLEN")
}
