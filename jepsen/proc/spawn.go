package proc

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
)

// spawner starts children on one thread that lives as long as it does: the kernel
// kills a child when the thread that started it ends (parent death signal), and
// the Go runtime may end any other.
type spawner struct {
	requests chan spawn
	ended    chan struct{}
	once     sync.Once
}

type spawn struct {
	cmd    *exec.Cmd
	inside func(start func() error) error
	reply  chan error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawn), ended: make(chan struct{})}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(s.ended)
		for r := range s.requests {
			r.reply <- r.inside(r.cmd.Start)
		}
	}()
	return s
}

// child is a process that was started.
type child struct {
	cmd      *exec.Cmd
	lifeline *os.File // a child started with --end-with-parent ends when this closes
	done     chan struct{}
}

// start starts a process whose output goes to log. inside calls what it is given,
// in the surroundings that the process is to have.
func (s *spawner) start(binary string, args []string, log *os.File, inside func(start func() error) error) (*child, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command(binary, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, log, log
	cmd.SysProcAttr = childAttr()
	r := spawn{cmd, inside, make(chan error, 1)}
	s.requests <- r
	if err := <-r.reply; err != nil {
		_ = write.Close()
		return nil, err
	}
	c := &child{cmd: cmd, lifeline: write, done: make(chan struct{})}
	go func() { // Cluster.Close waits for done
		_ = cmd.Wait() // how it ended is in ProcessState
		_ = c.lifeline.Close()
		close(c.done)
	}()
	return c, nil
}

// close ends the spawner. No child may run any more.
func (s *spawner) close() {
	s.once.Do(func() { close(s.requests) })
	<-s.ended
}
