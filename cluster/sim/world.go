// Package sim runs whole clusters and their clients in one process and in
// virtual time (testing/synctest): the real nodes, the real client and the real
// raft over a network, gossip and log stores in memory. Minutes of failovers
// take a second.
//
// A World must be made and used inside one synctest bubble. Nothing in it may
// wait for the outside; the small identity files of the nodes are real.
package sim

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/member"
	"onceq/cluster/member/membertest"
	"onceq/cluster/raftlog"
	"onceq/cluster/raftlog/raftlogtest"
	"onceq/transport/transporttest"
)

// World is a cluster with its network.
type World struct {
	T      testing.TB
	Net    *transporttest.Network
	Gossip *membertest.GossipNet
	Nodes  []*Node
	log    *slog.Logger
}

// Node is one node of a World. Node.Node is nil while it is down; what is on its disk
// survives.
type Node struct {
	*cluster.Node
	Host   string
	power  *raftlogtest.Power // of this life
	disk   *raftlogtest.Disk  // of this life
	config cluster.Config
	gossip string
	ahead  atomic.Int64 // of its wall clock, in nanoseconds, what it has been set forward and back
}

// New starts a cluster of n nodes.
func New(t testing.TB, n int, opts ...func(*cluster.Config)) *World {
	w := &World{T: t, Net: transporttest.NewNetwork(), Gossip: membertest.NewGossipNet(), log: slog.New(slog.DiscardHandler)}
	dir := t.TempDir()
	var seeds []string
	for i := range n {
		seeds = append(seeds, fmt.Sprintf("n%d:7450", i+1))
	}
	for i := range n {
		host := fmt.Sprintf("n%d", i+1)
		store, snapshots := raft.NewInmemStore(), raftlog.NewMemorySnapshots()
		node := &Node{Host: host, gossip: fmt.Sprintf("10.0.0.%d:7946", i+1)}
		node.config = cluster.Config{
			Name: host, DataDir: filepath.Join(dir, host), BootstrapExpect: n, GossipFast: true, Join: seeds,
			Dial: w.Net.Dialer(host), GossipAdvertise: node.gossip, Enroll: member.EnrollOpen,
			MemoryStores: func() (raft.LogStore, raft.StableStore, raft.SnapshotStore) {
				node.disk = raftlogtest.NewDisk(store, node.power)
				return node.disk, node.disk, snapshots
			},
			Logger: w.log,
			Fatal:  func(err error) { t.Errorf("node %s died: %v", host, err) },
		}
		node.config.WallClock = func() time.Time { return time.Now().Add(time.Duration(node.ahead.Load())) }
		for _, o := range opts {
			o(&node.config)
		}
		w.Nodes = append(w.Nodes, node)
	}
	w.Start(w.Nodes...)
	return w
}

// Start starts nodes that are down, together.
func (w *World) Start(nodes ...*Node) {
	errs := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { errs <- w.start(n) }()
	}
	for range nodes {
		if err := <-errs; err != nil {
			w.T.Error(err)
		}
	}
	if w.T.Failed() {
		w.T.FailNow()
	}
}

func (w *World) start(n *Node) error {
	power := &raftlogtest.Power{}
	n.power = power
	cfg := n.config
	cfg.Fatal = func(err error) { power.With(func() { n.config.Fatal(err) }) }
	l, err := w.Net.Listen(n.Host + ":7450")
	if err != nil {
		return err
	}
	cfg.Listener, cfg.GossipTransport = l, w.Gossip.Transport(n.gossip)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	n.Node, err = cluster.Start(ctx, cfg)
	return err
}

// SetWall sets a node's wall clock to so much ahead of virtual time, or behind it. It
// lasts while the node is down.
func (w *World) SetWall(n *Node, ahead time.Duration) { n.ahead.Store(int64(ahead)) }

// Kill ends a node as a power cut would: what its disk has not finished writing is gone.
func (w *World) Kill(n *Node) {
	if n.Node != nil {
		w.Net.PowerOff(n.Host) // before: nothing that is lost may have been told
		n.power.Cut()
		n.Node.Kill()
		w.Net.PowerOn(n.Host)
		n.Node = nil
	}
}

// SlowDisk says how long an append to a node's log takes from now on, until it goes down.
// It must be up.
func (w *World) SlowDisk(n *Node, append time.Duration) { n.disk.SetDelay(append) }

// Stop ends a node in order.
func (w *World) Stop(n *Node) {
	if n.Node == nil {
		return
	}
	if err := n.Node.Close(); err != nil {
		w.T.Errorf("close %s: %v", n.Host, err)
	}
	n.Node = nil
}

// Close kills all nodes. It must be called before the bubble ends.
func (w *World) Close() {
	for _, n := range w.Nodes {
		w.Kill(n)
	}
	// memberlist leaves goroutines behind that wait for the answer to a probe
	// until its time is over, and time stands still once a bubble's first
	// goroutine has returned.
	time.Sleep(time.Minute)
}

// Isolate cuts a node off from everybody.
func (w *World) Isolate(n *Node) {
	w.Net.Isolate(n.Host)
	w.Gossip.Isolate(n.gossip)
}

// Heal ends all isolation.
func (w *World) Heal() {
	w.Net.Heal()
	for _, n := range w.Nodes {
		w.Gossip.Heal(n.gossip)
	}
}

// Dial connects a client that runs on a host of its own.
func (w *World) Dial(host string) *client.Client {
	var seeds string
	for i, n := range w.Nodes {
		if i > 0 {
			seeds += ","
		}
		seeds += n.Host + ":7450"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, seeds, client.WithDialer(w.Net.Dialer(host)), client.WithLogger(w.log))
	if err != nil {
		w.T.Fatalf("dial: %v", err)
	}
	return c
}

// Leader waits for a node that serves as leader and is not one of those.
func (w *World) Leader(not ...*Node) *Node {
	for {
		var leader *Node
		var term uint64
		for _, n := range w.Nodes {
			if n.Node == nil {
				continue
			}
			if s := n.Status(); s.Serving && s.Term > term {
				leader, term = n, s.Term
			}
		}
		for _, n := range not {
			if leader == n {
				leader = nil
			}
		}
		if leader != nil {
			return leader
		}
		time.Sleep(10 * time.Millisecond) // of virtual time
	}
}

// CaughtUp waits until every node that runs has applied what is committed.
func (w *World) CaughtUp() {
	index := w.Leader().Status().CommitIndex
	for _, n := range w.Nodes {
		for n.Node != nil && n.Status().AppliedIndex < index {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// DigestsAgree compares the state of all nodes that run, at one index.
func (w *World) DigestsAgree(c *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	index, digest, err := c.Admin().Digest(ctx)
	if err != nil {
		w.T.Fatalf("digest: %v", err)
	}
	for _, n := range w.Nodes {
		if n.Node == nil {
			continue
		}
		for n.Status().DigestIndex < index {
			time.Sleep(10 * time.Millisecond)
		}
		if own, ok := n.Status().DigestAt(index); !ok || own != digest {
			w.T.Errorf("%s has digest %016x (%v) at %d, the leader %016x", n.Host, own, ok, index, digest)
		}
	}
}
