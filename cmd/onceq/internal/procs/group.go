package procs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// ErrClosed is returned by Start after Close.
var ErrClosed = errors.New("process group is closed")

// Spec says what to start.
type Spec struct {
	Name   string // for messages
	Binary string
	Args   []string
	Env    []string // nil: this process's
	Log    *os.File // standard output and error; the caller closes it after Start
}

// Group starts children and ends them.
type Group struct {
	spawn chan spawn
	ended chan struct{} // the spawner has ended

	mu       sync.Mutex // guards what follows
	closed   bool
	children map[*Child]bool
	waiting  sync.WaitGroup // one for each child's waiter
}

type spawn struct {
	cmd   *exec.Cmd
	reply chan error
}

// NewGroup makes a group without children.
func NewGroup() *Group {
	g := &Group{spawn: make(chan spawn), ended: make(chan struct{}), children: map[*Child]bool{}}
	go g.spawner()
	return g
}

func (g *Group) spawner() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer close(g.ended)
	for s := range g.spawn {
		s.reply <- s.cmd.Start()
	}
}

// Start starts a child.
func (g *Group) Start(spec Spec) (*Child, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command(spec.Binary, spec.Args...)
	cmd.Env = spec.Env
	cmd.Stdin = read
	if spec.Log != nil {
		cmd.Stdout, cmd.Stderr = spec.Log, spec.Log
	}
	cmd.SysProcAttr = childAttr()
	c := &Child{Name: spec.Name, cmd: cmd, lifeline: write, done: make(chan struct{})}

	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		write.Close()
		return nil, ErrClosed
	}
	reply := make(chan error, 1)
	g.spawn <- spawn{cmd, reply}
	if err := <-reply; err != nil {
		write.Close()
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	g.children[c] = true
	g.waiting.Add(1)
	go func() {
		defer g.waiting.Done()
		c.err = cmd.Wait()
		c.lifeline.Close()
		close(c.done)
		g.mu.Lock()
		delete(g.children, c)
		g.mu.Unlock()
	}()
	return c, nil
}

// Close kills what still runs, waits for it and ends the group.
func (g *Group) Close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		<-g.ended
		return
	}
	g.closed = true
	for c := range g.children {
		c.Signal(syscall.SIGKILL)
	}
	g.mu.Unlock()
	g.waiting.Wait()
	close(g.spawn)
	<-g.ended
}

// Child is one child process.
type Child struct {
	Name     string
	cmd      *exec.Cmd
	lifeline *os.File // the child sees the end of its standard input when this closes
	done     chan struct{}
	err      error // set before done is closed
}

// Pid is the child's process id.
func (c *Child) Pid() int { return c.cmd.Process.Pid }

// Done is closed when the child has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Signal sends sig. A child that has ended is no error.
func (c *Child) Signal(sig syscall.Signal) error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", c.Name, err)
	}
	return nil
}

// Result says how the child ended, after Done.
func (c *Child) Result() string {
	if c.err == nil {
		return "exit status 0"
	}
	return c.err.Error()
}

// ExitCode is the child's exit code after Done, -1 when a signal ended it.
func (c *Child) ExitCode() int { return c.cmd.ProcessState.ExitCode() }
