package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"onceq/cluster/clustertest"
	"onceq/cmd/onceq/internal/bench"
	"onceq/cmd/onceq/internal/exit"
)

// A fourth node joins a running cluster, votes once it has caught up, is removed,
// and the cluster goes on.
func TestCluster_FourthNodeJoinsAndIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	ownDev(t, dir)
	onceq(t, "a\nb\n", "pub", "hello", "-l").want(t, exit.OK)
	base := aPort(t)
	args := []string{"server", "--name", "n4", "--data-dir", filepath.Join(t.TempDir(), "n4"),
		"--bind", fmt.Sprintf("127.0.0.1:%d", base), "--gossip-bind", fmt.Sprintf("127.0.0.1:%d", base+1), "--log-level", "warn"}
	for _, n := range devNodes(t) {
		args = append(args, "--join", n.Address)
	}
	p, err := start(needBinary(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.cmd.Process.Kill(); <-p.done }()
	id := "" // of the node that votes
	votes := func(node string) bool {
		o := onceq(t, "", "cluster", "members", "-o", "jsonl")
		for l := range strings.Lines(o.out) {
			var m memberRow
			if json.Unmarshal([]byte(l), &m) == nil && m.Node == node && m.Voter {
				id = m.ServerID
				return true
			}
		}
		return false
	}
	eventually(t, "n4 votes", func() bool { return votes("n4") })
	eventually(t, "four are up", func() bool { return strings.Contains(onceq(t, "", "status").out, "4/4 up, can lose 1") })
	onceq(t, "", "cluster", "add", "n4").want(t, exit.OK, "votes") // already: the same answer
	onceq(t, "", "cluster", "remove", id, "--yes").want(t, exit.OK, "removed")
	eventually(t, "n4 is no member", func() bool { return !votes("n4") })
	if o := onceq(t, "", "sub", "hello", "--until-empty").want(t, exit.OK); o.out != "a\nb\n" {
		t.Fatal(o)
	}
}

// A server id names a node as its name does: where it leads then, that is told.
func TestClusterTransfer_ByServerID_TellsWhoLeads(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	url := strings.TrimPrefix(c.URL(), "onceq://")
	eventually(t, "a transfer is not given up, and leadership has moved", func() bool {
		var to memberRow
		for l := range strings.Lines(inProcess(t, "", "cluster", "members", "-o", "jsonl", "--url", url).want(t, exit.OK).out) {
			var m memberRow
			if err := json.Unmarshal([]byte(l), &m); err != nil {
				t.Fatal(err)
			}
			if !m.Leader {
				to = m
			}
		}
		o := inProcess(t, "", "cluster", "transfer", to.ServerID, "--url", url)
		if o.code == exit.Conflict {
			return false
		}
		o.want(t, exit.OK, to.Node+" leads")
		return true
	})
}

func TestBench_Smoke(t *testing.T) {
	needBinary(t)
	for _, workload := range []string{"pub", "e2e"} {
		o := onceq(t, "", "bench", workload, "--smoke", "-o", "json").want(t, exit.OK)
		var rows []bench.Row
		if err := json.Unmarshal([]byte(o.out), &rows); err != nil {
			t.Fatal(err, o)
		}
		if len(rows) != 6 {
			t.Fatalf("%d rows: %s", len(rows), o)
		}
		for _, r := range rows {
			if r.Workload != workload || r.Messages == 0 || r.PerSecond <= 0 || r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Max || !r.Clean() {
				t.Errorf("%+v", r)
			}
		}
	}
}

// A cluster whose nodes die cannot be measured: the command says so and ends, with no node left.
func TestBench_ANodeEndsByItself_EndsTheCommand(t *testing.T) {
	p, err := start(needBinary(t), "bench", "pub", "--time", "10m", "--load", "single")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.interrupt)
	if err := p.await("bench pub, 3 processes"); err != nil {
		t.Fatal(err)
	}
	var nodes []int // and no others, as who watches the machine
	for _, pid := range childrenOf(t, p.cmd.Process.Pid) {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(b, []byte("\x00server\x00")) {
			nodes = append(nodes, pid)
		}
	}
	if len(nodes) != 3 {
		t.Fatalf("%d nodes: %v", len(nodes), nodes)
	}
	if err := syscall.Kill(nodes[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := p.exitCode(t); code != exit.Failure || !strings.Contains(p.text(), "ended by itself: signal: killed") {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	for _, pid := range nodes {
		if alive(pid) {
			t.Errorf("node %d outlasts the command", pid)
		}
	}
}

// childrenOf lists the processes that one has started.
func childrenOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var pid, ppid int
		var state string
		fmt.Sscan(string(b), &pid)
		fmt.Sscan(string(b[bytes.LastIndexByte(b, ')')+1:]), &state, &ppid)
		if ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A backlog that is larger than the memory for it, restarts, and draining it.
func TestBenchBacklog_Smoke(t *testing.T) {
	needBinary(t)
	o := onceq(t, "", "bench", "backlog", "--smoke", "-o", "json").want(t, exit.OK)
	var rows []bench.BacklogRow
	if err := json.Unmarshal([]byte(o.out), &rows); err != nil {
		t.Fatal(err, o)
	}
	if len(rows) != 5 {
		t.Fatalf("%d rows: %s", len(rows), o)
	}
	for _, r := range rows {
		if r.Seconds <= 0 || r.Resident == 0 || r.Stored == 0 || r.Messages > 0 && r.PerSecond <= 0 {
			t.Errorf("%+v", r)
		}
	}
	onceq(t, "", "bench", "backlog", "--messages", "50000000", "--size", "1000000").want(t, exit.Unavailable, "free")
	onceq(t, "", "bench", "backlog", "--messages", "5", "--messages", "4").want(t, exit.Usage, "ascending")
}

// TestBenchBacklog_MemoryIsThatOfTheBudget: 600 MiB wait, while they come in, after a
// restart and while they are taken out, in a node that has 16 MiB for them, and 256 for
// everything else.
func TestBenchBacklog_MemoryIsThatOfTheBudget(t *testing.T) {
	needBinary(t)
	const budget, rest = 16 << 20, 256 << 20
	o := onceq(t, "", "bench", "backlog", "--nodes", "1", "--messages", "150000", "--size", "4096", "--drain", "20000",
		"--body-memory", "16MiB", "-o", "json").want(t, exit.OK)
	var rows []bench.BacklogRow
	if err := json.Unmarshal([]byte(o.out), &rows); err != nil {
		t.Fatal(err, o)
	}
	stored := uint64(0)
	for _, r := range rows {
		if stored = max(stored, r.Stored); r.Resident > budget+rest {
			t.Errorf("%d MiB resident, %d are allowed: %+v", r.Resident>>20, (budget+rest)>>20, r)
		}
	}
	if stored < 500<<20 {
		t.Errorf("only %d MiB were on disk: the test shows nothing", stored>>20)
	}
}

func TestBenchGrowth_Smoke(t *testing.T) {
	needBinary(t)
	o := onceq(t, "", "bench", "growth", "--smoke", "-o", "json").want(t, exit.OK)
	var rows []bench.GrowthRow
	if err := json.Unmarshal([]byte(o.out), &rows); err != nil {
		t.Fatal(err, o)
	}
	if len(rows) != 2*len(bench.Growths) {
		t.Fatalf("%d rows: %s", len(rows), o)
	}
	for i, r := range rows {
		if r.Of != bench.Growths[i/2] || r.Messages == 0 || r.PerSecond <= 0 || r.P50 <= 0 || r.Ratio <= 0 || i%2 == 0 && r.Ratio != 1 {
			t.Errorf("%+v", r)
		}
	}
	onceq(t, "", "bench", "growth", "--queues", "5", "--queues", "4").want(t, exit.Usage, "ascending")
}

// Each event happens, but for what needs more than a smoke has: time, or strace.
func TestBenchTails_Smoke(t *testing.T) {
	needBinary(t)
	o := onceq(t, "", "bench", "tails", "--smoke", "-o", "json").want(t, exit.OK)
	var rows []bench.TailRow
	if err := json.Unmarshal([]byte(o.out), &rows); err != nil {
		t.Fatal(err, o)
	}
	if len(rows) != len(bench.Tails) {
		t.Fatalf("%d rows: %s", len(rows), o)
	}
	for i, r := range rows {
		measured := r.Event != bench.TailSlowDisk
		if r.Event != bench.Tails[i] || (r.Messages > 0) != measured || (r.Ratio > 0) != measured || r.P50 > r.P999 || r.P999 > r.Max || !r.Clean() {
			t.Errorf("%+v", r)
		}
	}
}

// The leader goes and comes back; where the time went is read from the logs. A leader
// that hands over need not be found out about.
func TestBenchFailover_PartsAreTold(t *testing.T) {
	needBinary(t)
	for fault, found := range map[string]bool{bench.FaultKill: true, bench.FaultPause: true, bench.FaultStop: false, bench.FaultTransfer: false} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			o := onceq(t, "", "bench", "failover", "--fault", fault, "--runs", "1", "-o", "json").want(t, exit.OK)
			var rows []bench.FailoverRow
			if err := json.Unmarshal([]byte(o.out), &rows); err != nil {
				t.Fatal(err, o)
			}
			if len(rows) != 1 {
				t.Fatal(o)
			}
			r := rows[0] // its last part is told only when the others were found
			if r.Fault != fault || r.Leader == "" || r.Next == "" || r.Leader == r.Next || r.Gap <= 0 || r.Retransmit <= 0 || found && !r.Detected {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestBench_Profile_OneFileForEachProcess(t *testing.T) {
	needBinary(t)
	dir := filepath.Join(t.TempDir(), "profiles")
	onceq(t, "", "bench", "pub", "--smoke", "--size", "16", "--load", "full", "--profile", dir).want(t, exit.OK, "full speed")
	for _, name := range []string{"bench", "n1", "n2", "n3"} {
		f, err := os.Open(filepath.Join(dir, name+".pprof"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gzip.NewReader(f); err != nil {
			t.Errorf("%s: %v: it was not written to its end", name, err)
		}
		f.Close()
	}
}

func TestBench_NamedCluster_LeavesNoQueueBehind(t *testing.T) {
	needCluster(t)
	onceq(t, "", "bench", "pub", "--smoke", "--size", "16", "--context", "dev").want(t, exit.OK, "full speed")
	if o := onceq(t, "", "queue", "ls").want(t, exit.OK); strings.Contains(o.out, "bench-") {
		t.Fatal(o)
	}
}

// Interrupting a stream tells how far it came: what it says is confirmed is stored.
func TestPubLines_Interrupted_TellsHowFarItCame(t *testing.T) {
	needCluster(t)
	const q = "endless"
	onceq(t, "", "queue", "create", q).want(t, exit.OK)
	p, in := startWithInput(t, "pub", q, "-l", "-o", "json")
	stop := make(chan struct{})
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := fmt.Fprintf(in, "line %d\n", i); err != nil {
				return
			}
		}
	}()
	eventually(t, "some lines are stored", func() bool { return queueShow(t, q).Stored > 1000 })
	p.interrupt()
	<-p.done
	close(stop)
	in.Close()
	<-wrote
	if code := p.cmd.ProcessState.ExitCode(); code != exit.Interrupted {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	var s summary
	if err := json.Unmarshal(p.out.Bytes(), &s); err != nil {
		t.Fatal(err, p.out.String())
	}
	if row := queueShow(t, q); s.Published == 0 || s.Published != row.Stored || s.Failed+s.Unknown != 0 {
		t.Fatalf("%+v, and %d are stored", s, row.Stored)
	}
}
