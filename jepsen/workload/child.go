package workload

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// childEnv makes this program, started again, a process of a workload.
const childEnv = "ONCEQ_JEPSEN_CHILD"

// childJob is what such a process is to be: one of these.
type childJob struct {
	Outbox *boxJob
	Client *clientJob
}

// Child runs the process of a workload if this process is to be one, and says so. A
// program that runs workloads calls it before anything else.
func Child() bool {
	text := os.Getenv(childEnv)
	if text == "" {
		return false
	}
	var job childJob
	err := json.Unmarshal([]byte(text), &job)
	switch {
	case err != nil:
	case job.Outbox != nil:
		err = runBox(*job.Outbox)
	case job.Client != nil:
		err = runClient(*job.Client)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// child is such a process, as its parent sees it: it is told lines, and says others,
// each of which is a T.
type child[T any] struct {
	cmd    *exec.Cmd
	said   chan T // closed at its end
	writer sync.WaitGroup
	errors strings.Builder

	mu     sync.Mutex // guards what follows
	lines  chan string
	closed bool // lines is
}

// startChild starts a process; up to ahead lines wait until it reads them.
func startChild[T any](job childJob, ahead int) (*child[T], error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	c := &child[T]{cmd: exec.Command(self), lines: make(chan string, ahead), said: make(chan T, 4096)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(env))
	// In a process group of its own it does not hear an interrupt from the terminal, and
	// one that stands still is sent SIGHUP and SIGCONT when we end before it.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.Stderr = &c.errors
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	c.writer.Go(func() {
		defer stdin.Close()
		for line := range c.lines {
			if _, err := io.WriteString(stdin, line+"\n"); err != nil {
				for range c.lines { // it has died: nobody takes the rest
				}
			}
		}
	})
	go func() {
		defer close(c.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var s T
			if json.Unmarshal(lines.Bytes(), &s) == nil {
				c.said <- s
			}
		}
		_, _ = io.Copy(io.Discard, out) // of a line too long: who writes it must not wait for ever
	}()
	return c, nil
}

// tell blocks only when more lines wait than was said. After noMore it does nothing.
func (c *child[T]) tell(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.lines <- line
	}
}

// noMore says that nothing more will be told.
func (c *child[T]) noMore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.lines)
	}
}

func (c *child[T]) kill() { _ = c.cmd.Process.Kill() }

// end waits for the process, whose words have all been heard, and says how it ended:
// "" when in order.
func (c *child[T]) end() string {
	c.noMore()
	err := c.cmd.Wait()
	c.writer.Wait()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error() + " " + c.errors.String())
}
