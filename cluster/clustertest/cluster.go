// Package clustertest runs clusters in one process, on loopback, for tests.
package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/cluster"
)

// Bound is how long anything that must happen may take. It is far above what
// is usual, and no test asserts less.
const Bound = 60 * time.Second

// Cluster is a number of nodes on loopback, each with a directory of its own.
type Cluster struct {
	t     testing.TB
	dir   string
	nodes []*Node
	links *links
	logs  *logs
}

// Node is one of them. Node.Node is nil while it is down.
type Node struct {
	*cluster.Node
	Index   int
	NodeID  string
	Address string
	Dir     string
	config  cluster.Config
}

// Option changes the configuration of every node.
type Option func(c *cluster.Config)

// Steady is for tests in which the leader must not change: on a machine with more to do
// than it can, a node may hear nothing for longer than the time-out of the others.
func Steady(c *cluster.Config) {
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = SteadyTimeout, SteadyTimeout, SteadyTimeout
}

// SteadyTimeout is how long a follower of a Steady cluster hears nothing before it
// stands for election.
const SteadyTimeout = 5 * time.Second

// New starts n nodes that form a cluster, and closes them when the test ends.
// A node that dies of itself fails the test.
func New(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	// The directory first: it is removed after the nodes have ended.
	c := &Cluster{t: t, dir: t.TempDir(), links: newLinks(), logs: &logs{}}
	t.Cleanup(c.close)
	listeners := make([]net.Listener, n)
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
	}
	for i := range n {
		c.add(i, listeners[i], n, opts)
	}
	for i := range n {
		for j := range n {
			if i != j {
				c.nodes[i].config.Join = append(c.nodes[i].config.Join, c.nodes[j].Address)
			}
		}
	}
	c.startAll(c.nodes, listeners)
	return c
}

func (c *Cluster) add(i int, l net.Listener, expect int, opts []Option) *Node {
	name := fmt.Sprintf("n%d", i+1)
	node := &Node{Index: i, NodeID: name, Address: l.Addr().String(), Dir: filepath.Join(c.dir, name)}
	handler := slog.NewTextHandler(c.logs, &slog.HandlerOptions{Level: slog.LevelDebug})
	node.config = cluster.Config{
		Name: name, DataDir: node.Dir, BootstrapExpect: expect, GossipFast: true,
		// A test is not about the disk that it happens to run on, how full that is and how
		// long it takes.
		DiskReserve: 1, AppendTimeout: Bound,
		Dial: c.links.dialer(node.Address),
		// Well above what a loaded machine takes from a node at once: a leader
		// that changes without a cause is not what a test is about.
		HeartbeatTimeout: time.Second, ElectionTimeout: time.Second, LeaderLeaseTimeout: time.Second,
		Logger:     slog.New(handler),
		RaftLogger: slog.New(handler).With("raft", name),
		Fatal:      func(err error) { c.t.Errorf("node %s died: %v", name, err) },
	}
	for _, o := range opts {
		o(&node.config)
	}
	c.nodes = append(c.nodes, node)
	return node
}

// startAll starts nodes together: to form a cluster they need each other.
func (c *Cluster) startAll(nodes []*Node, listeners []net.Listener) {
	c.t.Helper()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { errs[i] = c.start(node, listeners[i]) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *Cluster) start(node *Node, l net.Listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), Bound)
	defer cancel()
	cfg := node.config
	cfg.Listener = l
	n, err := cluster.Start(ctx, cfg)
	if err != nil {
		return err
	}
	node.Node = n
	return nil
}

func (c *Cluster) close() {
	var wg sync.WaitGroup
	for _, n := range c.nodes {
		if n.Node != nil {
			wg.Go(n.Node.Kill)
		}
	}
	wg.Wait()
	if c.t.Failed() {
		c.t.Logf("the nodes' logs:\n%s", c.logs.String())
	}
}

// Node returns the i-th node.
func (c *Cluster) Node(i int) *Node { return c.nodes[i] }

// Up returns the nodes that run.
func (c *Cluster) Up() []*Node {
	var up []*Node
	for _, n := range c.nodes {
		if n.Node != nil {
			up = append(up, n)
		}
	}
	return up
}

// Addresses returns the addresses of all nodes, up or down.
func (c *Cluster) Addresses() []string {
	var as []string
	for _, n := range c.nodes {
		as = append(as, n.Address)
	}
	return as
}

// URL is what a client dials.
func (c *Cluster) URL() string { return "onceq://" + strings.Join(c.Addresses(), ",") }

// Kill ends a node as a crash would.
func (c *Cluster) Kill(n *Node) {
	if n.Node != nil {
		n.Node.Kill()
		n.Node = nil
	}
}

// Stop ends a node in order.
func (c *Cluster) Stop(n *Node) {
	c.t.Helper()
	if n.Node == nil {
		return
	}
	if err := n.Node.Close(); err != nil {
		c.t.Errorf("close %s: %v", n.NodeID, err)
	}
	n.Node = nil
}

// Restart starts nodes that are down, at their old addresses.
func (c *Cluster) Restart(nodes ...*Node) {
	c.t.Helper()
	listeners := make([]net.Listener, len(nodes))
	for i, n := range nodes {
		l, err := net.Listen("tcp", n.Address)
		if err != nil {
			c.t.Fatal(err)
		}
		listeners[i] = l
	}
	c.startAll(nodes, listeners)
}

// RestartAll kills every node and starts all again.
func (c *Cluster) RestartAll() {
	c.t.Helper()
	var wg sync.WaitGroup
	for _, n := range c.nodes {
		wg.Go(func() { c.Kill(n) })
	}
	wg.Wait()
	c.Restart(c.nodes...)
}

// Wipe removes everything a node that is down has stored. It comes back as a
// new member.
func (c *Cluster) Wipe(n *Node) {
	c.t.Helper()
	if err := os.RemoveAll(n.Dir); err != nil {
		c.t.Fatal(err)
	}
}

// Join starts one more node, which joins the cluster.
func (c *Cluster) Join(opts ...Option) *Node {
	c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	known := c.Addresses()
	n := c.add(len(c.nodes), l, 0, opts)
	n.config.Join = known
	if err := c.start(n, l); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// Isolate cuts a node off from the other nodes; clients still reach it.
func (c *Cluster) Isolate(n *Node) { c.links.isolate(n.Address) }

// Heal ends all isolation.
func (c *Cluster) Heal() { c.links.heal() }

// logs keeps the end of what the nodes log.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const logBytesMax = 1 << 20

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > logBytesMax {
		l.buf.Next(logBytesMax / 2)
	}
	return l.buf.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Configure changes the configuration with which nodes are started again.
func (c *Cluster) Configure(o Option) {
	for _, n := range c.nodes {
		o(&n.config)
	}
}

// Hold stops each connection between nodes that leads to n once it has carried so
// many bytes, until release: what is small gets through, a snapshot does not.
func (c *Cluster) Hold(n *Node, after int) (release func()) {
	release = c.links.hold(n.Address, after)
	c.t.Cleanup(release)
	return release
}
