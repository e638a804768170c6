package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/procs"
)

// Config says how to run a local cluster.
type Config struct {
	// Binary is the onceq binary to run. Default: this one.
	Binary string
	// Env is the environment of the nodes. Default: this process's without what
	// is meant for onceq, since a setting for another node must not reach these.
	Env []string
	// Dir keeps everything: data, logs, the chosen ports. It is made if absent.
	Dir string
	// Nodes is how many there are; 0 means as many as Dir has, 3 for a new one.
	Nodes int
	// Port is the first node's port for clients when the user named it.
	Port int
	// AnyPorts chooses free ports at once and leaves the default ones alone.
	AnyPorts bool
	// ServerArgs are given to each node besides its names and addresses.
	ServerArgs []string
	// OnEnd is called when a node has ended by itself, with the end of its log.
	OnEnd func(n Info, log string)
}

// Cluster is a cluster of child processes.
type Cluster struct {
	cfg      Config
	lock     *os.File
	group    *procs.Group
	watchers sync.WaitGroup

	mu     sync.Mutex // guards closed and what is in the nodes
	nodes  []*Node    // the slice itself never changes
	closed bool
}

// Open takes the directory and chooses or reads the ports. No node runs yet.
func Open(cfg Config) (*Cluster, error) {
	if cfg.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		cfg.Binary = self
	}
	if cfg.Env == nil {
		cfg.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ONCEQ_") })
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	l, err := openLayout(cfg.Dir, cfg.Nodes, cfg.Port, cfg.AnyPorts)
	if err != nil {
		lock.Close()
		return nil, err
	}
	c := &Cluster{cfg: cfg, lock: lock, group: procs.NewGroup()}
	for i, p := range l.Nodes {
		name := fmt.Sprintf("n%d", i+1)
		c.nodes = append(c.nodes, &Node{Name: name, ports: p, state: Stopped,
			dir: filepath.Join(cfg.Dir, name), log: filepath.Join(cfg.Dir, name+".log")})
	}
	return c, nil
}

// Dir is the directory of the cluster.
func (c *Cluster) Dir() string { return c.cfg.Dir }

// StartAll starts every node.
func (c *Cluster) StartAll() error {
	for _, n := range c.nodes {
		if err := c.Start(n.Name); err != nil {
			return err
		}
	}
	return nil
}

// URL names every node for a client.
func (c *Cluster) URL() string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.address())
	}
	return "onceq://" + strings.Join(addrs, ",")
}

// Nodes shows every node.
func (c *Cluster) Nodes() []Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	var is []Info
	for _, n := range c.nodes {
		is = append(is, n.info())
	}
	return is
}

func (c *Cluster) names() string {
	var names []string
	for _, n := range c.nodes {
		names = append(names, n.Name)
	}
	return strings.Join(names, ", ")
}

// startPoll is how long to wait between two looks at a cluster that is coming up.
const startPoll = 50 * time.Millisecond

// WaitReady waits until every running node answers and one of them serves. It
// returns the names of the leader.
func (c *Cluster) WaitReady(ctx context.Context) (leader string, err error) {
	var last error
	for {
		leader, last = c.tryReady(ctx)
		if last == nil {
			return leader, nil
		}
		for _, n := range c.Nodes() {
			if n.State == Ended {
				return "", &exit.Error{Code: exit.Failure, Err: fmt.Errorf("%s ended while starting: %s", n.Name, n.Detail), Hint: lastLines(n.Log, 3)}
			}
		}
		select {
		case <-time.After(startPoll):
		case <-ctx.Done():
			return "", fmt.Errorf("the cluster is not ready: %w (%w)", last, context.Cause(ctx))
		}
	}
}

// tryTimeout bounds one look at a cluster that is coming up, so that a node
// that hangs does not use up the whole wait.
const tryTimeout = 3 * time.Second

func (c *Cluster) tryReady(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	cl, err := client.Dial(ctx, c.URL(), client.WithLabel("onceq local cluster"))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	reports, err := cl.Admin().Nodes(ctx)
	if err != nil {
		return "", err
	}
	leader, up := "", map[string]bool{}
	for _, r := range reports {
		if r.Err != nil {
			continue
		}
		up[r.Node] = true
		if r.Status.Serving {
			leader = r.Node
		}
	}
	for _, n := range c.Nodes() {
		if n.State == Running && !up[n.Name] {
			return "", fmt.Errorf("%s does not answer", n.Name)
		}
	}
	if leader == "" {
		return "", errors.New("no leader")
	}
	return leader, nil
}

// Leader asks the cluster who leads, until one does or ctx ends.
func (c *Cluster) Leader(ctx context.Context) (string, error) {
	cl, err := client.Dial(ctx, c.URL(), client.WithLabel("onceq local cluster"))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	return WaitLeader(ctx, cl)
}

// WaitLeader is LeaderOf, asked until a node leads or ctx ends: during an election
// none does, and a busy one may answer too late.
func WaitLeader(ctx context.Context, cl *client.Client) (string, error) {
	for {
		leader, err := LeaderOf(ctx, cl)
		if err == nil || errors.Is(err, client.ErrClosed) {
			return leader, err
		}
		select {
		case <-time.After(startPoll):
		case <-ctx.Done():
			return "", err
		}
	}
}

// LeaderOf asks every node and names the one that serves at the highest term.
func LeaderOf(ctx context.Context, cl *client.Client) (string, error) {
	reports, err := cl.Admin().Nodes(ctx)
	if err != nil {
		return "", err
	}
	leader, term := "", uint64(0)
	for _, r := range reports {
		if r.Err == nil && r.Status.Serving && r.Status.Term >= term {
			leader, term = r.Status.Node, r.Status.Term
		}
	}
	if leader == "" {
		return "", exit.Errorf(exit.Unavailable, "no node leads at the moment: it takes a majority of the members, and  onceq status  tells which are up")
	}
	return leader, nil
}

// Close ends every node in order, kills those that have not ended when ctx
// ends, and waits for all of them.
func (c *Cluster) Close(ctx context.Context) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.mu.Unlock()
	var stopping sync.WaitGroup
	for _, n := range c.Nodes() {
		if n.State == Running || n.State == Paused {
			stopping.Go(func() { c.Stop(ctx, n.Name) })
		}
	}
	stopping.Wait()
	c.group.Close()
	c.watchers.Wait()
	c.lock.Close()
}

// Usage is what the processes of the running nodes have used.
func (c *Cluster) Usage() (procs.Usage, error) {
	var sum procs.Usage
	for _, n := range c.Nodes() {
		if n.Pid == 0 {
			continue
		}
		u, err := procs.UsageOf(n.Pid)
		if err != nil {
			return sum, err
		}
		sum.CPU += u.CPU
		sum.Resident += u.Resident
	}
	return sum, nil
}
