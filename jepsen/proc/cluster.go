package proc

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"onceq/jepsen/hosts"
)

// State is what the harness knows of a node's process.
type State string

// The states.
const (
	Running State = "running"
	Paused  State = "paused"
	Down    State = "down" // killed or stopped by us, or not started yet
)

// Config says what to run.
type Config struct {
	Binary string
	// Judge is the build that Tool runs; "": Binary. One that is broken on purpose may
	// be blind to what it does.
	Judge string
	// First is what the nodes that are members from the start run until Replace; "":
	// Binary.
	First string
	Dir   string // data and logs; kept
	Nodes int
	Args  []string // more arguments of onceq server
	// Hosts, if it is there, gives each node a network namespace of its own; else
	// all are on loopback. It has to outlive the cluster.
	Hosts *hosts.Net
	// DataDir is where a node keeps its data; nil: below Dir, under its name.
	DataDir func(node string) string
	// Spare is one more node, which is no member until it is started. It is not
	// among Names.
	Spare bool
	// OnEnd is told of a node that ended by itself. It is called without locks held.
	OnEnd func(End)
	// OnStart is told of each start of a node, and how often it was started by now. It must
	// not block. It may be nil.
	OnStart func(node string, life int)
	// OnResume is told for how long a node stood still that goes on. It must not
	// block. It may be nil.
	OnResume func(node string, from, to time.Time)
}

// End is how a node ended by itself.
type End struct {
	Node, How string
	Log       string // its end
	Expected  bool   // see Cluster.Expect
}

// Cluster is a set of nodes. It is safe for concurrent use.
type Cluster struct {
	cfg     Config
	spawner *spawner
	key     string // file with the cluster key, which nodes on hosts of their own need
	watches sync.WaitGroup

	mu     sync.Mutex // guards what follows
	nodes  []*node
	closed bool
}

type node struct {
	name           string
	number         int    // from 0
	client, gossip string // addresses
	binary         string
	dir, log       string
	spare          bool
	state          State
	expected       bool
	paused         time.Time // since when, if it is
	lives          int
	child          *child
}

// New lays out a cluster; nothing is started yet.
func New(cfg Config) (*Cluster, error) {
	places, err := places(cfg)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, key: filepath.Join(cfg.Dir, "cluster.key")}
	if err := os.WriteFile(c.key, []byte(newKey()+"\n"), 0o600); err != nil {
		return nil, err
	}
	for i, p := range places {
		name := "n" + strconv.Itoa(i+1)
		n := &node{
			name: name, number: i, client: p.client, gossip: p.gossip,
			dir:   filepath.Join(cfg.Dir, name),
			log:   filepath.Join(cfg.Dir, name+".log"),
			spare: i == cfg.Nodes,
			state: Down, binary: cfg.Binary,
		}
		if cfg.First != "" && !n.spare {
			n.binary = cfg.First
		}
		if cfg.DataDir != nil {
			n.dir = cfg.DataDir(name)
		}
		if err := os.MkdirAll(n.dir, 0o755); err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	c.spawner = newSpawner()
	return c, nil
}

// newKey is a cluster key.
func newKey() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	return hex.EncodeToString(key[:])
}

// Names are the nodes' names, in order.
func (c *Cluster) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, n := range c.nodes {
		if !n.spare {
			names = append(names, n.name)
		}
	}
	return names
}

// Spare is the name of the spare node, "" when there is none.
func (c *Cluster) Spare() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.nodes[len(c.nodes)-1]; n.spare {
		return n.name
	}
	return ""
}

// DataDir is where a node keeps its data.
func (c *Cluster) DataDir(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.find(name); n != nil {
		return n.dir
	}
	return ""
}

// Expect says whether a node may end by itself from now on, since something was
// done to it that it must not survive.
func (c *Cluster) Expect(name string, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.find(name); n != nil {
		n.expected = on
	}
}

// Address is where a node listens for clients.
func (c *Cluster) Address(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.find(name); n != nil {
		return n.client
	}
	return ""
}

// Log is the path of a node's log.
func (c *Cluster) Log(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.find(name); n != nil {
		return n.log
	}
	return ""
}

// State is what is known of a node, and how often it was started.
func (c *Cluster) State(name string) (State, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.find(name)
	if n == nil {
		return Down, 0
	}
	return n.state, n.lives
}

func (c *Cluster) find(name string) *node {
	i := slices.IndexFunc(c.nodes, func(n *node) bool { return n.name == name })
	if i < 0 {
		return nil
	}
	return c.nodes[i]
}

// Replace says what a node runs from its next start on, and returns whether that is
// something else than before.
func (c *Cluster) Replace(name, binary string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.find(name)
	if n == nil || n.binary == binary {
		return false
	}
	n.binary = binary
	return true
}

var errNoNode = errors.New("no such node")

// Start starts a node that is down.
func (c *Cluster) Start(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.find(name)
	switch {
	case n == nil:
		return fmt.Errorf("start %s: %w", name, errNoNode)
	case c.closed:
		return fmt.Errorf("start %s: the cluster is closed", name)
	case n.state != Down:
		return fmt.Errorf("start %s: it is %s", name, n.state)
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, startMark+"%d at %s\n", n.lives+1, time.Now().Format(time.RFC3339Nano))
	args := []string{"server", "--name", n.name, "--data-dir", n.dir, "--bind", n.client, "--gossip-bind", n.gossip,
		"--end-with-parent", "--gossip-fast"}
	if !n.spare {
		args = append(args, "--bootstrap-expect", strconv.Itoa(c.cfg.Nodes))
	}
	for _, other := range c.nodes {
		if other != n && !other.spare {
			args = append(args, "--join", other.client)
		}
	}
	inside := func(f func() error) error { return f() }
	if h := c.cfg.Hosts; h != nil {
		args = append(args, "--insecure-network", "--cluster-key", c.key)
		inside = func(f func() error) error { return h.Inside(n.number, f) }
	}
	child, err := c.spawner.start(n.binary, append(args, c.cfg.Args...), log, inside)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	n.child, n.state = child, Running
	n.lives++
	if c.cfg.OnStart != nil {
		c.cfg.OnStart(name, n.lives)
	}
	c.watches.Go(func() { c.watch(n, child) })
	return nil
}

// watch notices a node that ends by itself.
func (c *Cluster) watch(n *node, ch *child) {
	<-ch.done
	c.mu.Lock()
	byItself, expected := n.child == ch && n.state != Down, n.expected
	if byItself {
		n.state = Down
	}
	c.mu.Unlock()
	if byItself && c.cfg.OnEnd != nil {
		c.cfg.OnEnd(End{n.name, ch.cmd.ProcessState.String(), lastWords(n.log, 5), expected})
	}
}

// Kill ends a node with SIGKILL and waits until it is gone. A node that is down
// is no error.
func (c *Cluster) Kill(name string) error { return c.end(name, syscall.SIGKILL) }

// Stop ends a node in order and waits until it is gone.
func (c *Cluster) Stop(name string) error { return c.end(name, syscall.SIGTERM) }

// stopTimeout bounds how long a node may take to end in order.
const stopTimeout = 30 * time.Second

func (c *Cluster) end(name string, sig syscall.Signal) error {
	c.mu.Lock()
	n := c.find(name)
	if n == nil || n.state == Down {
		c.mu.Unlock()
		if n == nil {
			return fmt.Errorf("end %s: %w", name, errNoNode)
		}
		return nil
	}
	ch, paused := n.child, n.state == Paused
	n.state = Down
	c.mu.Unlock()
	err := ch.cmd.Process.Signal(sig)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", name, err)
	}
	if paused {
		_ = ch.cmd.Process.Signal(syscall.SIGCONT)
	}
	select {
	case <-ch.done:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = ch.cmd.Process.Kill()
	<-ch.done
	return fmt.Errorf("end %s: it did not end within %v of %v and was killed", name, stopTimeout, sig)
}

// Pause stops a node's process where it stands.
func (c *Cluster) Pause(name string) error { return c.signal(name, Running, Paused, syscall.SIGSTOP) }

// Resume lets a paused node go on.
func (c *Cluster) Resume(name string) error { return c.signal(name, Paused, Running, syscall.SIGCONT) }

func (c *Cluster) signal(name string, from, to State, sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.find(name)
	switch {
	case n == nil:
		return fmt.Errorf("signal %s: %w", name, errNoNode)
	case n.state != from:
		return fmt.Errorf("signal %s: it is %s", name, n.state)
	}
	if err := n.child.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	n.state = to
	if to == Paused {
		n.paused = time.Now()
	} else if c.cfg.OnResume != nil {
		c.cfg.OnResume(name, n.paused, time.Now())
	}
	return nil
}

// Pid is the process id of a node that runs or is paused, 0 otherwise.
func (c *Cluster) Pid(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.find(name); n != nil && n.state != Down {
		return n.child.cmd.Process.Pid
	}
	return 0
}

// Close kills all nodes and waits for them. It may be called more than once.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closed = true
	var children []*child
	for _, n := range c.nodes {
		if n.state != Down {
			n.state = Down
			_ = n.child.cmd.Process.Kill()
		}
		if n.child != nil {
			children = append(children, n.child)
		}
	}
	c.mu.Unlock()
	for _, ch := range children {
		<-ch.done
	}
	c.watches.Wait()
	c.spawner.close()
}

// lastWords is what a node has said at the end of its newest life: the last lines of its
// log, and before them those that say that it fell over, which a trace of its goroutines
// follows.
func lastWords(path string, n int) string {
	const tail = 1 << 20
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, min(tail, st.Size()))
	k, _ := f.ReadAt(b, st.Size()-int64(len(b)))
	text := string(b[:k])
	if at := strings.LastIndex(text, startMark); at >= 0 {
		text = text[at:]
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	from := max(0, len(lines)-n)
	var words []string
	for _, line := range lines[:from] {
		if len(words) < n && (strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "[signal ") || strings.Contains(line, "WARNING: DATA RACE")) {
			words = append(words, line)
		}
	}
	return strings.Join(append(words, lines[from:]...), "\n")
}

// startMark begins the line in a node's log that a start writes.
const startMark = "--- start "
