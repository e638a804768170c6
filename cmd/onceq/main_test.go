package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/devcluster"
	"onceq/cmd/onceq/internal/exit"
)

// bound is how long anything that must happen may take. It is far above what is
// usual, and no test asserts less.
const bound = 60 * time.Second

// scratch holds the binary, the contexts and the data of these tests.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "onceq-test-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(scratch)
		for _, v := range os.Environ() {
			if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "ONCEQ_") {
				os.Unsetenv(name)
			}
		}
		os.Setenv("ONCEQ_CONTEXTS", filepath.Join(scratch, "contexts.json"))
		code := m.Run()
		if shared.dev != nil {
			shared.dev.interrupt()
			<-shared.dev.done
		}
		return code
	}())
}

// binary is the onceq binary, built once.
var binary = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(scratch, "onceq")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
})

func needBinary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// outcome is what a command line came to.
type outcome struct {
	code     int
	out, err string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d\n--- stdout\n%s--- stderr\n%s", o.code, o.out, o.err)
}

// want fails the test unless the code is code and both outputs together hold
// each of texts.
func (o outcome) want(t *testing.T, code int, texts ...string) outcome {
	t.Helper()
	if o.code != code {
		t.Fatalf("want exit code %d, got %s", code, o)
	}
	for _, s := range texts {
		if !strings.Contains(o.out+o.err, s) {
			t.Fatalf("want %q in %s", s, o)
		}
	}
	return o
}

// inProcess runs a command line in this process, without a terminal.
func inProcess(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var out, errOut bytes.Buffer
	con := &console.Console{In: strings.NewReader(stdin), Out: &out, Err: &errOut, Getenv: os.Getenv}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	code := run(ctx, args, con)
	if ctx.Err() != nil {
		t.Fatalf("onceq %s hangs: %s", strings.Join(args, " "), errOut.String())
	}
	return outcome{code, out.String(), errOut.String()}
}

// onceq runs a command line as a process.
func onceq(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, needBinary(t), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("onceq %s hangs: %s", strings.Join(args, " "), errOut.String())
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// process is a command line that runs beside the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	out  bytes.Buffer  // standard output; to be read after the end

	mu    sync.Mutex // guards lines and more
	lines []string   // of standard error
	more  chan struct{}
}

// start starts bin. Its standard error is kept, line by line.
func start(bin string, args ...string) (*process, error) { return startWith(nil, bin, args...) }

// startWithInput starts the binary with a standard input that the test writes.
func startWithInput(t *testing.T, args ...string) (*process, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := startWith(r, needBinary(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		p.cmd.Process.Kill()
		<-p.done
	})
	return p, w
}

func startWith(stdin *os.File, bin string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(bin, args...), done: make(chan struct{}), more: make(chan struct{})}
	if stdin != nil {
		p.cmd.Stdin = stdin
	}
	p.cmd.Stdout = &p.out
	r, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s := bufio.NewScanner(r)
		for s.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		io.Copy(io.Discard, r)
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) interrupt() { p.cmd.Process.Signal(syscall.SIGINT) }

// text is everything on standard error so far.
func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// await waits for a line that holds text.
func (p *process) await(text string) error {
	timeout := time.NewTimer(bound)
	defer timeout.Stop()
	for {
		p.mu.Lock()
		more := p.more
		for _, l := range p.lines {
			if strings.Contains(l, text) {
				p.mu.Unlock()
				return nil
			}
		}
		p.mu.Unlock()
		select {
		case <-more:
		case <-p.done:
			return fmt.Errorf("%q did not come before the end: %s", text, p.text())
		case <-timeout.C:
			return fmt.Errorf("%q did not come: %s", text, p.text())
		}
	}
}

// exitCode waits for the end.
func (p *process) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(2 * bound):
		p.cmd.Process.Kill()
		t.Fatalf("%v does not end: %s", p.cmd.Args, p.text())
		return 0
	}
}

// shared is the local cluster that most of these tests talk to, started by the
// first one that needs it.
var shared struct {
	once sync.Once
	dev  *process
	dir  string
	err  error
}

// needCluster makes sure that the shared cluster runs, every node of it, and
// that the commands find it.
func needCluster(t *testing.T) {
	t.Helper()
	bin := needBinary(t)
	shared.once.Do(func() {
		shared.dir = filepath.Join(scratch, "dev")
		if shared.dev, shared.err = start(bin, "dev", "--data", shared.dir); shared.err == nil {
			shared.err = shared.dev.await("ready in")
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Setenv("ONCEQ_DEV_DATA", shared.dir)
	for _, n := range devNodes(t) {
		switch n.State {
		case devcluster.Running:
		case devcluster.Paused:
			onceq(t, "", "dev", "resume", n.Name).want(t, 0)
		default:
			onceq(t, "", "dev", "start", n.Name).want(t, 0)
		}
	}
}

// devNodes are the nodes of the shared cluster.
func devNodes(t *testing.T) []devcluster.Info {
	t.Helper()
	var nodes []devcluster.Info
	o := onceq(t, "", "dev", "status", "-o", "json").want(t, 0)
	if err := json.Unmarshal([]byte(o.out), &nodes); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// statusOfAll is what the three nodes of the shared cluster say, when all of them do and
// one leads: each look is of a moment, in which one may be slow or none may lead.
func statusOfAll(t *testing.T) (st clusterStatus) {
	t.Helper()
	eventually(t, "all three nodes answer, and one leads", func() bool {
		st = clusterStatus{}
		o := onceq(t, "", "status", "-o", "json")
		return o.code == exit.OK && json.Unmarshal([]byte(o.out), &st) == nil && st.Leader != "" && len(st.Nodes) == 3 && st.Up == 3 && st.Voters == 3
	})
	return st
}

// queueShow reads a queue's counters.
func queueShow(t *testing.T, queue string) queueRow {
	t.Helper()
	var row queueRow
	o := onceq(t, "", "queue", "show", queue, "-o", "json").want(t, 0)
	if err := json.Unmarshal([]byte(o.out), &row); err != nil {
		t.Fatal(err)
	}
	return row
}

// alive says whether a process runs.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// eventually polls cond, for what no event tells of.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
