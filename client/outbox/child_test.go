package outbox

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"onceq/client"
)

const childEnv = "ONCEQ_TEST_OUTBOX_CHILD"

// job is what a producer's process is to do: writers publish so many messages each,
// and it dies at the nth time that it comes to a step.
type job struct {
	URL, File string
	Round     int
	Each      int
	Step      string // "" for none
	Nth       int
}

const writers = 6

func (j job) id(writer, i int) string { return fmt.Sprintf("w%d-%03d%04d", writer, j.Round, i) }

// child is the producer's process. It says "ok" and the id of each message whose
// Publish has returned.
func child() {
	var j job
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &j); err != nil {
		childFailed(err)
	}
	var hits atomic.Int64
	step := func(o *options) {
		o.step = func(name string) {
			if name == j.Step && hits.Add(1) == int64(j.Nth) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // not a step further
			}
		}
	}
	b, err := Open(j.File, "orders", WithURL(j.URL), WithMaxInFlight(32), step)
	if err != nil {
		childFailed(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range j.Each {
				id := j.id(w, i)
				if _, err := b.Publish(ctx, client.Message{BizID: id, OrderingKey: fmt.Sprint("key", w)}); err != nil {
					childFailed(err)
				}
				// One write, so that a line is there whole or not at all.
				fmt.Printf("ok %s\n", id)
			}
		})
	}
	wg.Wait()
	if err := b.Flush(ctx); err != nil {
		childFailed(err)
	}
	if err := b.Close(); err != nil {
		childFailed(err)
	}
	fmt.Println("done")
}

func childFailed(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// process is a child that runs.
type process struct {
	t         *testing.T
	cmd       *exec.Cmd
	lines     *bufio.Scanner
	confirmed []string
	done      bool
}

func startChild(t *testing.T, j job) *process {
	t.Helper()
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(said)
	return p
}

// read takes what the child says until ok or its end.
func (p *process) read(ok func() bool) {
	for !ok() && p.lines.Scan() {
		if id, yes := strings.CutPrefix(p.lines.Text(), "ok "); yes {
			p.confirmed = append(p.confirmed, id)
		} else {
			p.done = p.done || p.lines.Text() == "done"
		}
	}
}

// killed reads to the end and says whether the child was killed.
func (p *process) killed() bool {
	p.t.Helper()
	p.read(func() bool { return false })
	err := p.cmd.Wait()
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() && status.Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil || !p.done {
		p.t.Fatalf("the child ended with %v, done %v", err, p.done)
	}
	return false
}
