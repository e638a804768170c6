package proc

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"onceq/jepsen/proc/proctest"
)

// waitMax bounds "it happens".
const waitMax = 60 * time.Second

// fake is a binary that sleeps, or ends when its arguments have the word "end".
func fake(t *testing.T) string {
	t.Helper()
	return proctest.Program(t, "echo started $$\ncase \"$*\" in *please-end*) echo cannot go on; exit 3;; esac\nread line\nexit 4")
}

func TestCluster_StartsKillsPausesAndCountsLives(t *testing.T) {
	t.Parallel()
	ended, stood := make(chan string, 10), make(chan string, 10)
	stoodFor := time.Duration(0)
	c, err := New(Config{Binary: fake(t), Dir: t.TempDir(), Nodes: 2, OnEnd: func(e End) { ended <- e.Node + ": " + e.How },
		OnResume: func(node string, from, to time.Time) { stood <- node; stoodFor = to.Sub(from) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, n := range c.Names() {
		if err := c.Start(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Start("n1"); err == nil {
		t.Error("a running node is started again")
	}
	if err := c.Pause("n1"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "n1 stands still", func() bool { return processState(t, c.Pid("n1")) == "T" })
	if err := c.Resume("n1"); err != nil {
		t.Fatal(err)
	}
	if n := <-stood; n != "n1" || stoodFor <= 0 {
		t.Errorf("%s stood still for %v", n, stoodFor)
	}
	waitFor(t, "n1 goes on", func() bool { return processState(t, c.Pid("n1")) != "T" })
	if err := c.Pause("n1"); err != nil {
		t.Fatal(err)
	}
	pid := c.Pid("n1")
	if err := c.Kill("n1"); err != nil { // also while it is paused
		t.Fatal(err)
	}
	if _, err := os.Stat(procPath(pid)); err == nil {
		t.Error("n1 is there after Kill")
	}
	if err := c.Start("n1"); err != nil {
		t.Fatal(err)
	}
	if s, lives := c.State("n1"); s != Running || lives != 2 {
		t.Errorf("n1 is %s in life %d", s, lives)
	}
	c.Close()
	c.Close()
	if err := c.Start("n1"); err == nil {
		t.Error("a node starts after Close")
	}
	select {
	case e := <-ended:
		t.Errorf("a node that was ended is reported: %s", e)
	default:
	}
}

func TestCluster_ReportsANodeThatEndsByItself(t *testing.T) {
	t.Parallel()
	ended := make(chan End, 10)
	c, err := New(Config{Binary: fake(t), Dir: t.TempDir(), Nodes: 1, Args: []string{"please-end"},
		OnEnd: func(e End) { ended <- e }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, expected := range []bool{false, true} {
		c.Expect("n1", expected)
		if err := c.Start("n1"); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-ended:
			if e.Node != "n1" || !strings.Contains(e.How, "3") || !strings.Contains(e.Log, "cannot go on") || e.Expected != expected {
				t.Errorf("reported %+v", e)
			}
		case <-time.After(waitMax):
			t.Fatal("the end of the node is not reported")
		}
	}
	if s, _ := c.State("n1"); s != Down {
		t.Errorf("the node is %s", s)
	}
}

// The line that says why a process fell over has a trace behind it.
func TestLastWords_SayThatANodeFellOver(t *testing.T) {
	t.Parallel()
	trace := strings.Repeat("main.main()\n\t/onceq/main.go:7 +0x1d\n", 40)
	for text, want := range map[string]string{
		startMark + "1 at x\nready\npanic: a row of no table\n\ngoroutine 1 [running]:\n" + trace:                  "panic: a row of no table",
		startMark + "1 at x\nfatal error: concurrent map writes\n\n" + trace:                                       "fatal error: concurrent map writes",
		startMark + "1 at x\nfatal error: fault\n[signal SIGBUS: bus error code=0x2 addr=0x7f pc=0x4]\n\n" + trace: "fatal error: fault\n[signal SIGBUS: bus error code",
		startMark + "1 at x\n==================\nWARNING: DATA RACE\n" + trace:                                     "WARNING: DATA RACE",
		startMark + "1 at x\npanic: long ago\n" + trace + startMark + "2 at y\nready\nerror the disk has failed\n": "error the disk has failed",
		startMark + "1 at x\n" + trace + "error \"the replicas of the log do not agree\"\n":                        "the replicas of the log do not agree",
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := lastWords(path, 5)
		if !strings.Contains(got, want) || strings.Contains(got, "long ago") || strings.Count(got, "\n") > 9 {
			t.Errorf("of %q only %q is told", text, got)
		}
	}
}

func TestCluster_ASpareIsNoMember(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := New(Config{Binary: fake(t), Dir: dir, Nodes: 2, Spare: true, DataDir: func(n string) string { return filepath.Join(dir, "data", n) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if got := strings.Join(append(c.Names(), c.Spare()), " "); got != "n1 n2 n3" {
		t.Errorf("the cluster is %s", got)
	}
	if got := c.DataDir("n3"); got != filepath.Join(dir, "data", "n3") {
		t.Errorf("n3 keeps its data in %s", got)
	}
	if err := c.Start("n3"); err != nil {
		t.Fatal(err)
	}
	none, err := New(Config{Binary: fake(t), Dir: t.TempDir(), Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(none.Close)
	if none.Spare() != "" {
		t.Errorf("there is a spare %s", none.Spare())
	}
}

func TestTool_GivesOutputAndExitCode(t *testing.T) {
	t.Parallel()
	c, err := New(Config{Binary: fake(t), Dir: t.TempDir(), Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	out, code, err := c.Tool(t.Context(), "node", "please-end")
	if code != 3 || err != nil || !strings.Contains(out, "cannot go on") {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
}

func TestBuild_MakesTheBinaryAndSaysWhyItCannot(t *testing.T) {
	t.Parallel()
	root, err := Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "cmd", "onceq", "main.go")); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(overlay, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := Build{Out: filepath.Join(t.TempDir(), "onceq"), Flags: []string{"-overlay", overlay}}
	if err := b.Run(context.Background(), root); err == nil || !strings.Contains(err.Error(), "overlay") {
		t.Errorf("a broken overlay gives %v", err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(waitMax)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %v: %s", waitMax, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func procPath(pid int) string { return fmt.Sprintf("/proc/%d", pid) }

// processState is the letter of the process's state: T when it is stopped.
func processState(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(procPath(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:1]
}

func TestCluster_LimitIsOfTheRunningProcessAndIsLifted(t *testing.T) {
	t.Parallel()
	c, err := New(Config{Binary: fake(t), Dir: t.TempDir(), Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.Limit("n1", LimitFiles, 7); err == nil {
		t.Error("a node that is down is limited")
	}
	if err := c.Start("n1"); err != nil {
		t.Fatal(err)
	}
	// A shell that is still beginning ends when it gets no memory. This one waits for a line.
	waitFor(t, "n1 waits", func() bool {
		log, _ := os.ReadFile(c.Log("n1"))
		return bytes.Contains(log, []byte("started")) && processState(t, c.Pid("n1")) == "S"
	})
	limits := func() string {
		b, err := os.ReadFile(procPath(c.Pid("n1")) + "/limits")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := limits()
	for limit, line := range map[Limit]string{LimitFiles: "Max open files            7 ", LimitMemory: "Max data size             7 "} {
		lift, err := c.Limit("n1", limit, 7)
		if err != nil {
			t.Fatal(err)
		}
		if now := limits(); !strings.Contains(now, line) {
			t.Errorf("%s: the limits are\n%s", limit, now)
		}
		if err := lift(); err != nil || limits() != before {
			t.Errorf("%s: after the limit was lifted (%v) the limits are\n%s", limit, err, limits())
		}
	}
	lift, err := c.Limit("n1", LimitFiles, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill("n1"); err != nil {
		t.Fatal(err)
	}
	if err := lift(); err != nil {
		t.Errorf("the limit of a node that is gone: %v", err)
	}
}

func TestCluster_FirstBuildUntilReplaced(t *testing.T) {
	t.Parallel()
	ended := make(chan End, 1)
	newer := fake(t)
	c, err := New(Config{Binary: newer, First: "/nothing", Dir: t.TempDir(), Nodes: 1, Spare: true, OnEnd: func(e End) { ended <- e }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Start("n1"); err == nil {
		t.Error("it did not begin with the first build")
	}
	if err := c.Start(c.Spare()); err != nil {
		t.Errorf("the spare node: %v", err)
	}
	if !c.Replace("n1", newer) || c.Replace("n1", newer) {
		t.Error("a node gets another build once")
	}
	if err := c.Start("n1"); err != nil {
		t.Errorf("after it was replaced: %v", err)
	}
}
