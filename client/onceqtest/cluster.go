package onceqtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
)

// bound is how long anything that must happen may take. It is far above what is
// usual: a test is not about how fast a machine is.
const bound = time.Minute

// nodesMax keeps a slip of the pen from starting a thousand nodes.
const nodesMax = 9

// Cluster is a cluster that ends with its test. Its methods are called from the
// test's goroutine.
type Cluster struct {
	t     testing.TB
	nodes []*node
	cuts  *cuts
	logs  *logs
}

// node is one of them; running is nil while it is down.
type node struct {
	config  cluster.Config
	address string
	running *cluster.Node
}

// Start starts a cluster of n nodes and waits until it has a leader. They are
// numbered from 0.
func Start(t testing.TB, n int) *Cluster {
	t.Helper()
	if n < 1 || n > nodesMax {
		t.Fatalf("onceqtest: a cluster of %d nodes: 1 to %d are accepted", n, nodesMax)
	}
	c := &Cluster{t: t, cuts: newCuts(), logs: &logs{}}
	dir := t.TempDir()
	t.Cleanup(c.close)
	listeners := make([]net.Listener, n)
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			for _, l := range listeners[:i] {
				l.Close()
			}
			t.Fatalf("onceqtest: %v", err)
		}
		listeners[i] = l
	}
	for i, l := range listeners {
		name, address := fmt.Sprintf("n%d", i), l.Addr().String()
		log := slog.New(slog.NewTextHandler(c.logs, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", name)
		c.nodes = append(c.nodes, &node{address: address, config: cluster.Config{
			Name: name, DataDir: filepath.Join(dir, name), BootstrapExpect: n, GossipFast: true,
			// A test is not about the disk that it happens to run on.
			DiskReserve: 1,
			// Above what a loaded machine takes from a node at once: a leader that
			// changes without a cause is not what a test is about.
			HeartbeatTimeout: time.Second, ElectionTimeout: time.Second, LeaderLeaseTimeout: time.Second,
			Dial:   c.cuts.dialer(address),
			Logger: log,
			Fatal:  func(err error) { t.Errorf("onceqtest: node %s died: %v", name, err) },
		}})
	}
	for i, node := range c.nodes {
		for j, other := range c.nodes {
			if i != j {
				node.config.Join = append(node.config.Join, other.address)
			}
		}
	}
	c.start(c.nodes, listeners)
	c.WaitLeader()
	return c
}

// start starts nodes together: to form a cluster they need each other.
func (c *Cluster) start(nodes []*node, listeners []net.Listener) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		cfg := n.config
		cfg.Listener = listeners[i]
		wg.Go(func() { n.running, errs[i] = cluster.Start(ctx, cfg) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			nodes[i].running = nil
			c.t.Fatalf("onceqtest: start node %s: %v", nodes[i].config.Name, err)
		}
	}
}

func (c *Cluster) close() {
	var wg sync.WaitGroup
	for _, n := range c.nodes {
		if n.running != nil {
			wg.Go(n.running.Kill)
		}
	}
	wg.Wait()
	if c.t.Failed() {
		c.t.Logf("onceqtest: the end of what the nodes logged:\n%s", c.logs.String())
	}
}

// URL is what a program dials.
func (c *Cluster) URL() string {
	var as []string
	for _, n := range c.nodes {
		as = append(as, n.address)
	}
	return "onceq://" + strings.Join(as, ",")
}

// Client dials the cluster. The client is closed when the test ends, before the
// cluster; to close it earlier does no harm.
func (c *Cluster) Client(opts ...client.Option) *client.Client {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	cl, err := client.Dial(ctx, c.URL(), opts...)
	if err != nil {
		c.t.Fatalf("onceqtest: %v", err)
	}
	c.t.Cleanup(func() { cl.Close() })
	return cl
}

// Leader is the number of the node that leads, -1 when there is none now.
func (c *Cluster) Leader() int {
	leader, term := -1, uint64(0)
	for i, n := range c.nodes {
		if n.running == nil {
			continue
		}
		// One that is cut off may believe in itself for a while: the newest term wins.
		if s := n.running.Status(); s.Serving && s.Term > term {
			leader, term = i, s.Term
		}
	}
	return leader
}

// WaitLeader waits until a node leads and returns its number.
func (c *Cluster) WaitLeader() int {
	c.t.Helper()
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		if i := c.Leader(); i >= 0 {
			return i
		}
		select {
		case <-look.C:
		case <-deadline.C:
			c.t.Fatalf("onceqtest: no leader within %v", bound)
		}
	}
}

// KillLeader waits for a leader, kills it, and returns its number.
func (c *Cluster) KillLeader() int {
	c.t.Helper()
	i := c.WaitLeader()
	c.Kill(i)
	return i
}

// Kill ends node i without a word to anybody. What it has on disk stays.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	if n := c.node(i); n.running != nil {
		n.running.Kill()
		n.running = nil
	}
}

// Restart starts nodes that are down, at their old addresses and with their old
// data: those named, or all that are down. When it returns they run; they may still
// be catching up.
func (c *Cluster) Restart(nodes ...int) {
	c.t.Helper()
	if len(nodes) == 0 {
		for i := range c.nodes {
			nodes = append(nodes, i)
		}
	}
	var down []*node
	var listeners []net.Listener
	for _, i := range nodes {
		n := c.node(i)
		if n.running != nil {
			continue
		}
		l, err := net.Listen("tcp", n.address)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			c.t.Fatalf("onceqtest: restart node %d: %v", i, err)
		}
		down, listeners = append(down, n), append(listeners, l)
	}
	c.start(down, listeners)
}

// Advance moves the cluster's time forward by d at once: leases that would have run
// out by then are lost, whoever holds them; delayed messages are ready; times to
// live and idle sessions end. When it returns that has happened. It waits for a
// leader. Elections and the clients' own time-outs keep real time.
func (c *Cluster) Advance(d time.Duration) {
	c.t.Helper()
	if d <= 0 {
		c.t.Fatalf("onceqtest: advance by %v: a positive duration is accepted", d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	for {
		err := c.nodes[c.WaitLeader()].running.Advance(ctx, d)
		switch {
		case err == nil:
			return
		case errors.Is(err, cluster.ErrNotLeading) && ctx.Err() == nil: // the next leader
		default:
			c.t.Fatalf("onceqtest: advance by %v: %v", d, err)
		}
	}
}

// Partition cuts the named nodes off from the others; among themselves they still
// talk. Clients reach all of them. It takes the place of an earlier partition.
func (c *Cluster) Partition(nodes ...int) {
	c.t.Helper()
	side := map[string]bool{}
	for _, i := range nodes {
		side[c.node(i).address] = true
	}
	c.cuts.partition(side)
}

// Heal ends the partition.
func (c *Cluster) Heal() { c.cuts.partition(nil) }

func (c *Cluster) node(i int) *node {
	c.t.Helper()
	if i < 0 || i >= len(c.nodes) {
		c.t.Fatalf("onceqtest: node %d: there are 0 to %d", i, len(c.nodes)-1)
	}
	return c.nodes[i]
}
