package devcluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/procs"
)

// State is what this process knows of a node's process.
type State string

// The states.
const (
	Running State = "running"
	Paused  State = "paused"
	Killed  State = "killed"  // by us, SIGKILL
	Stopped State = "stopped" // by us, in order
	Ended   State = "ended"   // by itself
)

// Node is one node of a local cluster. Its fields are guarded by the cluster's mutex.
type Node struct {
	Name  string
	ports Ports
	dir   string
	log   string

	state  State
	child  *procs.Child
	detail string // how it ended
}

// Info is what can be shown of a node.
type Info struct {
	Name    string `json:"node"`
	State   State  `json:"state"`
	Pid     int    `json:"pid,omitempty"`
	Address string `json:"address"`
	Log     string `json:"log"`
	Detail  string `json:"detail,omitempty"`
}

func (n *Node) info() Info {
	i := Info{Name: n.Name, State: n.state, Address: n.address(), Log: n.log, Detail: n.detail}
	if n.state == Running || n.state == Paused {
		i.Pid = n.child.Pid()
	}
	return i
}

func (n *Node) address() string { return net.JoinHostPort(loopback, strconv.Itoa(n.ports.Client)) }
func (n *Node) gossipAddress() string {
	return net.JoinHostPort(loopback, strconv.Itoa(n.ports.Gossip))
}

// Start starts a node that does not run.
func (c *Cluster) Start(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err != nil {
		return err
	}
	if n.state == Running || n.state == Paused {
		return exit.Errorf(exit.Conflict, "%s is %s", n.Name, n.state)
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	child, err := c.group.Start(procs.Spec{Name: n.Name, Binary: c.cfg.Binary, Args: c.serverArgs(n), Env: c.cfg.Env, Log: log})
	if err != nil {
		return err
	}
	n.child, n.state, n.detail = child, Running, ""
	c.watchers.Add(1)
	go c.watch(n, child)
	return nil
}

func (c *Cluster) serverArgs(n *Node) []string {
	args := []string{"server", "--name", n.Name, "--data-dir", n.dir,
		"--bind", n.address(), "--gossip-bind", n.gossipAddress(),
		"--bootstrap-expect", strconv.Itoa(len(c.nodes)), "--gossip-fast", "--end-with-parent",
		// On a disk that others fill as well; 10 % of a large one is out of proportion.
		"--disk-reserve", "256MiB"}
	for _, other := range c.nodes {
		if other != n {
			args = append(args, "--join", other.address())
		}
	}
	return append(args, c.cfg.ServerArgs...)
}

// watch notices a node that ends by itself.
func (c *Cluster) watch(n *Node, child *procs.Child) {
	defer c.watchers.Done()
	<-child.Done()
	c.mu.Lock()
	byItself := n.child == child && (n.state == Running || n.state == Paused)
	if byItself {
		n.state, n.detail = Ended, child.Result()
	}
	info := n.info()
	c.mu.Unlock()
	if byItself && c.cfg.OnEnd != nil {
		c.cfg.OnEnd(info, lastLines(info.Log, 3))
	}
}

// lastLines is the end of a log, for a message about a node that ended.
func lastLines(path string, n int) string {
	const tail = 4096
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > tail {
		f.Seek(-tail, 2)
	}
	b := make([]byte, tail)
	k, _ := f.Read(b)
	lines := bytes.Split(bytes.TrimSpace(b[:k]), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}

// Kill ends a node with SIGKILL and waits until it is gone.
func (c *Cluster) Kill(name string) error {
	return c.end(context.Background(), name, Killed, syscall.SIGKILL)
}

// Stop ends a node in order and waits until it is gone; when ctx ends first it
// is killed.
func (c *Cluster) Stop(ctx context.Context, name string) error {
	return c.end(ctx, name, Stopped, syscall.SIGTERM)
}

func (c *Cluster) end(ctx context.Context, name string, state State, sig syscall.Signal) error {
	c.mu.Lock()
	n, err := c.find(name)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	if n.state != Running && n.state != Paused {
		c.mu.Unlock()
		return exit.Errorf(exit.Conflict, "%s does not run: it is %s", n.Name, n.state)
	}
	child, paused := n.child, n.state == Paused
	n.state, n.detail = state, ""
	c.mu.Unlock()
	if err := child.Signal(sig); err != nil {
		return err
	}
	if paused && sig != syscall.SIGKILL {
		child.Signal(syscall.SIGCONT) // a stopped process acts on nothing else
	}
	select {
	case <-child.Done():
		return nil
	case <-ctx.Done():
		child.Signal(syscall.SIGKILL)
		<-child.Done()
		return fmt.Errorf("%s did not end in time and was killed: %w", name, ctx.Err())
	}
}

// Pause stops a node's process where it is (SIGSTOP).
func (c *Cluster) Pause(name string) error {
	return c.turn(name, Running, Paused, syscall.SIGSTOP)
}

// Resume lets a paused node go on.
func (c *Cluster) Resume(name string) error {
	return c.turn(name, Paused, Running, syscall.SIGCONT)
}

func (c *Cluster) turn(name string, from, to State, sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.find(name)
	if err != nil {
		return err
	}
	if n.state != from {
		return exit.Errorf(exit.Conflict, "%s is %s, not %s", n.Name, n.state, from)
	}
	if err := n.child.Signal(sig); err != nil {
		return err
	}
	n.state = to
	return nil
}

func (c *Cluster) find(name string) (*Node, error) {
	for _, n := range c.nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return nil, exit.Errorf(exit.NotFound, "no node %q: there are %s", name, c.names())
}
