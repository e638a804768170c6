package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"onceq/cmd/onceq/internal/contexts"
	"onceq/cmd/onceq/internal/devcluster"
	"onceq/cmd/onceq/internal/exit"
)

// aPort is a base port with free ones at 100 and 200 above it.
func aPort(t *testing.T) int {
	t.Helper()
	for range 500 {
		base, ok := 11_000+rand.IntN(20_000), true
		for i := range 3 {
			for _, p := range []int{base + 100*i, base + 100*i + 1} {
				l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
				if err != nil {
					ok = false
					continue
				}
				l.Close()
			}
		}
		if ok {
			return base
		}
	}
	t.Skip("no free ports")
	return 0
}

// ownDev starts a local cluster for one test, with contexts of its own.
func ownDev(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	bin := needBinary(t)
	t.Setenv("ONCEQ_CONTEXTS", filepath.Join(filepath.Dir(dir), "contexts.json"))
	t.Setenv("ONCEQ_DEV_DATA", dir)
	p, err := start(bin, append([]string{"dev"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	if err := p.await("ready in"); err != nil {
		t.Fatal(err)
	}
	return p
}

func pids(t *testing.T) (ps []int) {
	t.Helper()
	for _, n := range devNodes(t) {
		if n.State == devcluster.Running || n.State == devcluster.Paused {
			ps = append(ps, n.Pid)
		}
	}
	return ps
}

// Data and ports outlast the processes, the verbs reach them, and an interrupt
// ends all of them in order.
func TestDev_ALifeOfALocalCluster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := ownDev(t, dir)
	for _, text := range []string{"local cluster: 3 nodes", "n1 ", "LEADER 127.0.0.1:", `"dev" selected`, "not for production"} {
		if !strings.Contains(p.text(), text) {
			t.Fatalf("the banner lacks %q: %s", text, p.text())
		}
	}
	onceq(t, "", "pub", "hello", "hi").want(t, exit.OK, "hello/0")
	before := onceq(t, "", "context", "ls", "-o", "jsonl").want(t, exit.OK, `"name":"dev","selected":true`)

	onceq(t, "", "dev", "kill", "leader").want(t, exit.OK, "it was the leader")
	var killed string
	for _, n := range devNodes(t) {
		if n.State == devcluster.Killed {
			killed = n.Name
		}
	}
	onceq(t, "", "dev", "kill", killed).want(t, exit.Conflict, "does not run")
	other := "n1"
	if killed == other {
		other = "n2"
	}
	onceq(t, "", "dev", "pause", other).want(t, exit.OK, other+" paused", "no majority is left (1 of 3 nodes run)", "onceq dev ")
	if o := onceq(t, "", "dev", "resume", other).want(t, exit.OK); strings.Contains(o.err, "majority") {
		t.Fatal(o)
	}
	onceq(t, "", "dev", "start", killed).want(t, exit.OK)
	onceq(t, "", "dev", "stop", killed).want(t, exit.OK, "stopped")
	onceq(t, "", "dev", "start", killed).want(t, exit.OK)
	onceq(t, "", "dev", "pause", killed).want(t, exit.OK)
	onceq(t, "", "dev", "status").want(t, exit.OK, "paused")
	onceq(t, "", "dev", "resume", killed).want(t, exit.OK)
	onceq(t, "", "dev", "kill", "n9").want(t, exit.NotFound, "n1, n2, n3")
	onceq(t, "", "dev").want(t, exit.Conflict, "is running")

	// One that dies by itself is reported, and not started again.
	victim := devNodes(t)[0]
	if err := syscall.Kill(victim.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.await(victim.Name + " ended by itself: signal: killed"); err != nil {
		t.Fatal(err)
	}
	if n := devNodes(t)[0]; n.State != devcluster.Ended {
		t.Fatalf("%+v", n)
	}

	left := pids(t)
	p.interrupt()
	if code := p.exitCode(t); code != exit.OK {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	for _, pid := range left {
		if alive(pid) {
			t.Fatalf("process %d outlasts its parent", pid)
		}
	}
	onceq(t, "", "dev", "status").want(t, exit.Unavailable, "no local cluster runs")

	p = ownDev(t, dir)
	if after := onceq(t, "", "context", "ls", "-o", "jsonl"); after.out != before.out {
		t.Fatalf("the cluster moved: %s", after)
	}
	if o := onceq(t, "", "sub", "hello", "-n", "1").want(t, exit.OK); o.out != "hi\n" {
		t.Fatal(o)
	}
	p.interrupt()
	if code := p.exitCode(t); code != exit.OK {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
}

// kill -9 of the parent leaves no node behind, not even a paused one.
func TestDev_ParentIsKilled_NodesEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := ownDev(t, dir)
	left := pids(t)
	onceq(t, "", "dev", "pause", "n2").want(t, exit.OK)
	p.cmd.Process.Kill()
	<-p.done
	for _, pid := range left {
		eventually(t, fmt.Sprintf("process %d ends", pid), func() bool { return !alive(pid) })
	}
	p = ownDev(t, dir) // and what it left behind is no obstacle
	p.interrupt()
	p.exitCode(t)
}

func TestDev_Ephemeral_LeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := ownDev(t, dir, "--ephemeral")
	path, err := contexts.Path(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	f, err := contexts.Load(path)
	if err != nil || f.Contexts["dev"].Data == "" {
		t.Fatal(f, err)
	}
	data := f.Contexts["dev"].Data
	t.Setenv("ONCEQ_DEV_DATA", "")
	onceq(t, "", "dev", "status").want(t, exit.OK, data) // found by its context
	p.interrupt()
	if code := p.exitCode(t); code != exit.OK {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Fatalf("%s is still there: %v", data, err)
	}
}

func TestDev_NamedPort(t *testing.T) {
	base := aPort(t)
	dir := filepath.Join(t.TempDir(), "data")
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+100))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	onceq(t, "", "dev", "--data", dir, "--port", fmt.Sprint(base)).want(t, exit.Conflict, fmt.Sprintf("port %d is taken", base+100))
	l.Close()
	p := ownDev(t, dir, "--port", fmt.Sprint(base))
	if want := fmt.Sprintf(":%d", base+100); !strings.Contains(p.text(), want) {
		t.Fatalf("no %s in %s", want, p.text())
	}
	p.interrupt()
	p.exitCode(t)
}

func TestServer_BadStarts_SayWhy(t *testing.T) {
	needBinary(t)
	base := aPort(t)
	addr := func(p int) string { return fmt.Sprintf("127.0.0.1:%d", p) }
	args := func(name, dir string, extra ...string) []string {
		return append([]string{"server", "--name", name, "--data-dir", dir, "--bind", addr(base), "--gossip-bind", addr(base + 1), "--log-level", "error"}, extra...)
	}
	l, err := net.Listen("tcp", addr(base))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "d")
	onceq(t, "", args("n1", dir, "--bootstrap-expect", "1")...).want(t, exit.Conflict, addr(base), "address already in use")
	l.Close()
	g, err := net.Listen("tcp", addr(base+1))
	if err != nil {
		t.Fatal(err)
	}
	onceq(t, "", args("n1", dir, "--bootstrap-expect", "1")...).want(t, exit.Conflict, addr(base+1), "address already in use")
	g.Close()
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	onceq(t, "", args("n1", foreign)...).want(t, exit.Conflict, "not a data directory of onceq", "thesis.tex", "empty")
	onceq(t, "", args("bad name", filepath.Join(t.TempDir(), "d"))...).want(t, exit.Usage, "bad name")

	// A node that is alone, its directory, and those who want it.
	p, err := start(needBinary(t), args("n1", dir, "--bootstrap-expect", "1", "--log-level", "info")...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.cmd.Process.Kill(); <-p.done }()
	if err := p.await("listening"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ONCEQ_URL", addr(base))
	eventually(t, "it leads itself", func() bool { return onceq(t, "", "status").code == exit.OK })
	onceq(t, "", args("n1", dir, "--bind", addr(base+100), "--gossip-bind", addr(base+101))...).want(t, exit.Conflict, "is in use")
	onceq(t, "x\n", "pub", "q", "-l", "--create").want(t, exit.OK)
	onceq(t, "", "cluster", "transfer").want(t, exit.Conflict, "the only member")
	onceq(t, "", "cluster", "remove", "n1", "--yes").want(t, exit.Conflict, "the only member")
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != exit.OK {
		t.Fatalf("exit code %d after SIGTERM: %s", code, p.text())
	}
	if log := p.text(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "hand over") {
		t.Fatalf("an end in order: %s", log)
	}
	onceq(t, "", args("n2", dir)...).want(t, exit.Conflict, "another node")
}

// TestServer_NewAndKnowsNobody_SaysWhatToDo: it waits, and nobody may come.
func TestServer_NewAndKnowsNobody_SaysWhatToDo(t *testing.T) {
	base := aPort(t)
	p, err := start(needBinary(t), "server", "--name", "n1", "--data-dir", filepath.Join(t.TempDir(), "d"),
		"--bind", fmt.Sprintf("127.0.0.1:%d", base), "--gossip-bind", fmt.Sprintf("127.0.0.1:%d", base+1), "--log-level", "warn")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.cmd.Process.Kill(); <-p.done }()
	if err := p.await("--bootstrap-expect 1"); err != nil {
		t.Fatal(err)
	}
	p.interrupt()
	if code := p.exitCode(t); code != exit.OK {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
}

func TestServer_SignalWhileWaitingForOthers_EndsInOrder(t *testing.T) {
	base := aPort(t)
	p, err := start(needBinary(t), "server", "--name", "n1", "--data-dir", filepath.Join(t.TempDir(), "d"),
		"--bind", fmt.Sprintf("127.0.0.1:%d", base), "--gossip-bind", fmt.Sprintf("127.0.0.1:%d", base+1), "--bootstrap-expect", "3")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.cmd.Process.Kill(); <-p.done }()
	eventually(t, "it listens", func() bool {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", base), time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != exit.OK {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
}
