package procs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// When asParent is set, this test binary is a parent that starts two children,
// prints their ids and waits to be killed.
const asParent = "ONCEQ_PROCS_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(asParent) != "" {
		g := NewGroup()
		for range 2 {
			// sleep does not read its standard input: only the kernel can end it.
			c, err := g.Start(Spec{Name: "sleep", Binary: "/bin/sleep", Args: []string{"1000"}})
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Println(c.Pid())
		}
		select {}
	}
	os.Exit(m.Run())
}

func TestGroup_Close_EndsEveryChild(t *testing.T) {
	g := NewGroup()
	var cs []*Child
	for range 3 {
		c, err := g.Start(Spec{Name: "sleep", Binary: "/bin/sleep", Args: []string{"1000"}})
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	g.Close()
	g.Close() // twice is fine
	for _, c := range cs {
		select {
		case <-c.Done():
		default:
			t.Fatal("a child outlasts Close")
		}
		if err := c.Signal(syscall.SIGTERM); err != nil {
			t.Fatal("a signal to a child that has ended:", err)
		}
	}
	if _, err := g.Start(Spec{Name: "x", Binary: "/bin/true"}); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestGroup_Result(t *testing.T) {
	g := NewGroup()
	defer g.Close()
	c, err := g.Start(Spec{Name: "sh", Binary: "/bin/sh", Args: []string{"-c", "exit 7"}})
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if c.ExitCode() != 7 || !strings.Contains(c.Result(), "7") {
		t.Fatal(c.ExitCode(), c.Result())
	}
	if _, err := g.Start(Spec{Name: "nothing", Binary: "/nonexistent"}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Fatal(err)
	}
}

// The child's standard input lasts as long as the group, and ends with it.
func TestGroup_LifelineEndsWithTheGroup(t *testing.T) {
	g := NewGroup()
	c, err := g.Start(Spec{Name: "cat", Binary: "/bin/cat"})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	c.lifeline.Close() // what the kernel does when this process ends
	select {
	case <-c.Done():
	case <-time.After(60 * time.Second):
		t.Fatal("the child did not notice")
	}
}

// Children end with their parent when it is killed with SIGKILL, also one that
// is stopped.
func TestGroup_ParentIsKilled_ChildrenEnd(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), asParent+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	defer func() {
		if !killed {
			parent.Process.Kill()
		}
		parent.Wait()
	}()
	var pids []int
	for s := bufio.NewScanner(out); len(pids) < 2 && s.Scan(); {
		pid, err := strconv.Atoi(s.Text())
		if err != nil {
			t.Fatal(s.Text())
		}
		pids = append(pids, pid)
	}
	if len(pids) != 2 {
		t.Fatal("the parent did not start its children")
	}
	if err := syscall.Kill(pids[1], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	parent.Process.Kill()
	killed = true
	deadline := time.Now().Add(60 * time.Second)
	for _, pid := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("child %d outlasts its parent", pid)
			}
			time.Sleep(5 * time.Millisecond) // no event tells of a grandchild's end
		}
	}
}

// alive says whether a process runs; one that waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestUsageOf_ThisProcess(t *testing.T) {
	before, err := UsageOf(os.Getpid())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("known on Linux only")
	}
	if err != nil {
		t.Fatal(err)
	}
	for x := 0; ; x++ { // until a tick of CPU is used
		u, err := UsageOf(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if u.CPU > before.CPU {
			if u.Resident == 0 {
				t.Fatal("no memory is used")
			}
			return
		}
	}
}
