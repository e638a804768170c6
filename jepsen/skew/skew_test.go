package skew_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"onceq/jepsen/skew"
)

// childEnv makes this binary a process that tells the time when it is asked.
const childEnv = "ONCEQ_SKEW_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		tell()
		return
	}
	os.Exit(m.Run())
}

// tell prints the wall clock and the monotonic time since the start for each
// line that comes in.
func tell() {
	began := time.Now()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(time.Now().Unix(), time.Since(began).Milliseconds())
	}
}

type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newChild(t *testing.T) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), childEnv+"=yes")
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.in.Close()
		if err := c.cmd.Wait(); err != nil {
			t.Errorf("the child: %v", err)
		}
	})
	return c
}

// ask returns the child's wall clock, and its monotonic time since it began.
func (c *child) ask() (wall time.Time, since time.Duration) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	var seconds, ms int64
	if _, err := fmt.Sscan(line, &seconds, &ms); err != nil {
		c.t.Fatalf("%q: %v", line, err)
	}
	return time.Unix(seconds, 0), time.Duration(ms) * time.Millisecond
}

// stopped runs f while the child stands still.
func (c *child) stopped(f func()) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	stat := fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid)
	for {
		b, err := os.ReadFile(stat)
		if err != nil {
			c.t.Fatal(err)
		}
		if _, rest, _ := strings.Cut(string(b), ") "); rest[0] == 'T' {
			break
		}
		time.Sleep(time.Millisecond)
	}
	f()
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		c.t.Fatal(err)
	}
}

func TestClock_MovesTheWallClockOfOneProcessAndNoOtherClock(t *testing.T) {
	t.Parallel()
	if err := skew.Possible(); err != nil {
		t.Skip(err)
	}
	c := newChild(t)
	c.ask()
	var k *skew.Clock
	c.stopped(func() {
		var err error
		if k, err = skew.Attach(c.cmd.Process.Pid); err != nil {
			t.Error(err)
		}
	})
	if k == nil {
		t.FailNow()
	}
	defer k.Close()
	last := time.Duration(0)
	// What a slow machine adds is far below an hour.
	for _, offset := range []time.Duration{0, time.Hour, -24 * time.Hour, 10 * 365 * 24 * time.Hour, 0} {
		if err := k.Set(offset); err != nil {
			t.Fatal(err)
		}
		wall, since := c.ask()
		if d := time.Until(wall) - offset; d > 10*time.Minute || d < -10*time.Minute {
			t.Errorf("moved by %v the clock is off by %v more", offset, d)
		}
		if since < last || since-last > 10*time.Minute {
			t.Errorf("the monotonic clock went from %v to %v", last, since)
		}
		last = since
	}
}

func TestAttach_AProcessThatIsNotThere(t *testing.T) {
	t.Parallel()
	if _, err := skew.Attach(1 << 30); err == nil {
		t.Error("the clock of no process is changed")
	}
}
