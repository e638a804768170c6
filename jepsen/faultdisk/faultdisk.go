// Package faultdisk puts a data directory on a faulty disk (onceq/jepsen/faultfs):
// one that forgets or tears what was not fsynced when its power is cut, and whose
// operations fail, slow down or hang on command. The disk is a process of its own,
// so that a node in this process may read it through mmap; it ends with this
// process, however that ends. It takes root, /dev/fuse and the sources.
package faultdisk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"onceq/jepsen/proc"
)

// Build builds the disk's binary from the module that this process was started
// in.
func Build(ctx context.Context, out string) error {
	root, err := proc.Root(ctx)
	if err != nil {
		return fmt.Errorf("the faulty disk: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "./cmd/faultfs")
	cmd.Dir = filepath.Join(root, "jepsen", "faultfs")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the faulty disk: %w\n%s", err, bytes.TrimSpace(said))
	}
	return nil
}

// answerTimeout bounds one command. A cut of a busy disk takes milliseconds.
const answerTimeout = 30 * time.Second

// ErrRefused is wrapped by the error for a command that the disk has refused.
var ErrRefused = errors.New("the disk refuses")

// Disk is a mounted disk. It is safe for concurrent use.
type Disk struct {
	// Dir is where it is mounted.
	Dir string

	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // closed when the process is gone
	said  *bytes.Buffer // what it said; to be read when it has ended
	err   error         // how it ended

	mu    sync.Mutex // held over one command; guards below
	conn  net.Conn
	lines *bufio.Reader
}

// Start mounts a disk. dir keeps its content (backing), its socket and its
// mountpoint (mnt); an unix socket's path is short, so dir should be.
func Start(bin, dir string) (*Disk, error) {
	d := &Disk{Dir: filepath.Join(dir, "mnt"), ended: make(chan struct{}), said: &bytes.Buffer{}}
	backing, socket := filepath.Join(dir, "backing"), filepath.Join(dir, "socket")
	for _, path := range []string{backing, d.Dir} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
	}
	d.cmd = exec.Command(bin, "--backing", backing, "--socket", socket, "--end-with-stdin", d.Dir)
	d.cmd.Stderr = d.said
	d.cmd.SysProcAttr = ownGroup()
	stdin, err := d.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	d.stdin = stdin
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the faulty disk: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	go func() { // Close waits for ended
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	if strings.TrimSpace(line) != "mounted" {
		stdin.Close()
		<-d.ended
		return nil, fmt.Errorf("start the faulty disk: %w: %s", errors.Join(err, d.err), bytes.TrimSpace(d.said.Bytes()))
	}
	if d.conn, err = net.Dial("unix", socket); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.lines = bufio.NewReader(d.conn)
	return d, nil
}

// Do gives the disk one of the commands that onceq/jepsen/faultfs lists, such as
// "fail fsync EIO match *.wal times 1", and returns what it has to say.
func (d *Disk) Do(command string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return "", fmt.Errorf("disk: %s: %w", command, err)
	}
	if _, err := fmt.Fprintln(d.conn, command); err != nil {
		return "", fmt.Errorf("disk: %s: %w", command, err)
	}
	line, err := d.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("disk: %s: %w", command, err)
	}
	verdict, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if verdict != "ok" {
		return "", fmt.Errorf("%w: %s: %s", ErrRefused, command, text)
	}
	return text, nil
}

func (d *Disk) do(command string) error {
	_, err := d.Do(command)
	return err
}

// CutPower cuts the power: what was not fsynced is forgotten, and everything fails
// until PowerOn. Who uses the disk should be ended in between.
func (d *Disk) CutPower() error { return d.do("cut") }

// TearPower is CutPower, but some of what was not fsynced survives, by seed.
func (d *Disk) TearPower(seed uint64) error { return d.do(fmt.Sprintf("cut tear %d", seed)) }

// CutBefore plans a power cut right before the n-th operation from now on that
// changes something. loss is "", "keep" (the cut loses nothing, like the end of a
// process), or "tear SEED".
func (d *Disk) CutBefore(n int, loss string) error { return d.do(fmt.Sprintf("plan %d %s", n, loss)) }

// CutAt is the operation before which the planned cut came, "" when it has not
// come.
func (d *Disk) CutAt() (string, error) { return d.Do("planned") }

// PowerOn mounts the disk again.
func (d *Disk) PowerOn() error { return d.do("on") }

// Heal forgets all rules.
func (d *Disk) Heal() error { return d.do("heal") }

// Close unmounts the disk, whose users must have ended, and ends its process.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close()
	}
	d.stdin.Close()
	select {
	case <-d.ended:
	case <-time.After(answerTimeout):
		_ = d.cmd.Process.Kill()
		<-d.ended
		return fmt.Errorf("disk at %s: somebody still uses it", d.Dir)
	}
	if d.err != nil {
		return fmt.Errorf("disk at %s: %w: %s", d.Dir, d.err, bytes.TrimSpace(d.said.Bytes()))
	}
	return nil
}
