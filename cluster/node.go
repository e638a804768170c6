package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/transport"
)

// Node is one process of a cluster.
type Node struct {
	cfg    Config
	log    *slog.Logger
	limits fsm.Limits

	dir        *member.Dir
	identity   member.Identity
	cluster    string
	address    string
	gossipAddr string
	listener   net.Listener
	mux        *transport.Mux
	server     *transport.Server
	streams    *member.Streams
	transfers  *transfers
	gossip     atomic.Pointer[member.Gossip]
	store      *raftlog.Store
	raft       *raft.Raft
	raftNet    *raft.NetworkTransport // what raft's traffic goes over, beneath its guards

	hub         *hub
	backups     *backups
	clock       *clock
	bodies      bodyStore
	ballast     *ballast // nil when everything is in memory
	descriptors descriptors
	opened      *group                // set by Start, for closing
	group       atomic.Pointer[group] // what clients are served from; nil until the node belongs to a cluster
	begun       time.Time

	ctx    context.Context // ends when the node does; bounds what it started
	cancel context.CancelFunc
	end    chan struct{} // closed first at the end: loops return
	ended  chan struct{} // raft's goroutines have ended
	wg     sync.WaitGroup

	failed    atomic.Pointer[error]
	closeOnce sync.Once
	done      chan struct{}
	closeErr  error

	mu      sync.Mutex // guards closing and running
	closing bool
	running int // requests that change the membership
}

// Start opens a node and returns when it belongs to a cluster: formed with the
// others, joined, or known from its data directory. ctx bounds the opening.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger.With("node", cfg.Name), limits: cfg.Limits,
		begun: time.Now(),
		end:   make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{}),
	}
	n.transfers = newTransfers(n.log, n.cfg.transferIdle, n.endTransfer)
	if n.limits == (fsm.Limits{}) {
		n.limits = fsm.DefaultLimits()
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.start(ctx); err != nil {
		n.shutdown(false)
		return nil, fmt.Errorf("start node %s: %w", cfg.Name, err)
	}
	return n, nil
}

// start opens things in the order in which they need each other: identity
// before anything else is in the directory; the port before the address can be
// told to others; peer streams before the cluster can be met; the log before
// raft; gossip last, since it needs the cluster's secret.
func (n *Node) start(ctx context.Context) error {
	if err := n.limitDescriptors(); err != nil {
		return err
	}
	var err error
	n.dir, err = member.OpenDir(member.DirConfig{Path: n.cfg.DataDir, Name: n.cfg.Name, Key: n.cfg.Secret, Logger: n.log, Locked: n.clear})
	if err != nil {
		return err
	}
	if err := n.listen(); err != nil {
		return err
	}
	gt := n.cfg.GossipTransport
	if gt == nil {
		if gt, err = member.ListenGossip(n.gossipBind(), n.log); err != nil {
			return err
		}
	}
	gossipOwned := false
	defer func() {
		if !gossipOwned {
			gt.Shutdown()
		}
	}()
	host, _, _ := net.SplitHostPort(n.address)
	n.gossipAddr = n.cfg.GossipAdvertise
	if n.gossipAddr == "" {
		if n.gossipAddr, err = member.GossipAddress(gt, host); err != nil {
			return err
		}
	}
	n.streams, err = member.NewStreams(member.StreamConfig{
		Dir: n.dir, Listener: n.mux.Raft(), Dial: member.DialFunc(n.cfg.Dial), Address: n.address,
		GossipAddress: n.gossipAddr, Enroll: n.cfg.Enroll, Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.serve()
	if id := n.dir.Identity(); id.Stage == member.StageEmpty && len(id.Peers) == 0 && len(n.cfg.Join) == 0 && n.cfg.BootstrapExpect == 0 {
		n.log.Warn("this node is new, knows no other and forms no cluster: it waits until another names it; name others with --join, or begin a cluster of one node with --bootstrap-expect 1")
	}
	formed, err := member.Form(ctx, member.FormConfig{
		Dir: n.dir, Streams: n.streams, Seeds: n.cfg.Join, Expect: n.cfg.BootstrapExpect, Machine: n.cfg.machineVersion, Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.identity = formed.Identity
	n.cluster = formed.Identity.Cluster.ID
	book := member.NewAddressBook()
	g, err := n.openGroup(formed, book)
	if err != nil {
		return err
	}
	n.opened = g
	gossipOwned = true
	gossip, err := member.StartGossip(member.GossipConfig{
		Dir: n.dir, Streams: n.streams, Transport: gt, Seeds: n.cfg.Join, Book: book,
		OnChange:      func() { g.topology.poke(); g.steward.poke() },
		ProbeInterval: n.probeInterval(),
		Logger:        n.log,
	})
	if err != nil {
		return err
	}
	n.gossip.Store(gossip)
	if g.disk != nil {
		if err := g.disk.look(); err != nil {
			return err
		}
	}
	n.group.Store(g)
	n.run(g)
	// From here on the node tells who leads, and can lead.
	g.topology.poke()
	return nil
}

func (n *Node) listen() error {
	l := n.cfg.Listener
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", n.cfg.Bind); err != nil {
			return err
		}
	}
	n.listener = l
	n.address = n.cfg.Advertise
	if n.address == "" {
		n.address = l.Addr().String()
	}
	n.mux = transport.NewMux(l, transport.MuxConfig{Logger: n.log, SilentMax: n.descriptors.silent})
	n.clock = newClock(monotonic())
	if n.ballast != nil && n.cfg.DiskBallast == 0 && loopback(n.address) {
		n.ballast.forgo("this cluster is on one machine")
	}
	if err := n.openBodies(); err != nil {
		return err
	}
	n.hub = newHub(n.bodies, n.clock)
	n.backups = newBackups(n)
	return nil
}

// clear comes before anything is written: a disk that is full, if of what a crash
// has left behind, must not keep the node from the start that makes room.
func (n *Node) clear(known bool) error {
	if n.cfg.MemoryStores != nil {
		return nil
	}
	n.ballast = openBallast(n.cfg.DataDir, n.cfg.DiskBallast, n.log)
	if !known {
		return nil
	}
	dir := groupDir(n.cfg.DataDir)
	err := errors.Join(os.RemoveAll(filepath.Join(dir, bodiesDir)), raftlog.RemoveUnfinishedSnapshots(dir, n.log))
	if err != nil {
		return fmt.Errorf("remove what is left of the last life: %w", err)
	}
	free, _, err := diskSpace(n.cfg.DataDir)()
	if err != nil {
		return fmt.Errorf("look for free space: %w", err)
	}
	if free < diskSegments*raftlog.SegmentBytesDefault/2 {
		n.ballast.giveUp("the disk is full, and a start needs room")
	}
	return nil
}

// loopback says whether an address is one of this machine alone.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (n *Node) gossipBind() string {
	if n.cfg.GossipBind != "" {
		return n.cfg.GossipBind
	}
	host, _, err := net.SplitHostPort(n.address)
	if err != nil {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, "0")
}

func (n *Node) probeInterval() time.Duration {
	if n.cfg.GossipFast {
		return 200 * time.Millisecond
	}
	return 0
}

// serve accepts clients and peers. Clients that come before the node belongs to
// a cluster are told so.
func (n *Node) serve() {
	n.server = transport.NewServer(&handler{n}, transport.ServerConfig{Logger: n.log, ConnsMax: n.descriptors.clients})
	n.wg.Go(func() { n.accepted("port", n.mux.Serve()) })
	n.wg.Go(func() { n.accepted("clients", n.server.Serve(n.mux.Clients())) })
}

// accepted notes why an accept loop has ended; at the end of the node that is
// no news.
func (n *Node) accepted(what string, err error) {
	select {
	case <-n.end:
	default:
		if err != nil {
			n.fatal(fmt.Errorf("accept %s: %w", what, err))
		}
	}
}

// Addr is the address that clients and peers are told to dial.
func (n *Node) Addr() string { return n.address }

// GossipAddr is the address that gossip uses.
func (n *Node) GossipAddr() string { return n.gossipAddr }

// Name is the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// Done is closed when the node has ended.
func (n *Node) Done() <-chan struct{} { return n.done }

// Snapshot takes a snapshot of the group now.
func (n *Node) Snapshot() error {
	g := n.group.Load()
	if g == nil {
		return errEnding
	}
	return g.snaps.take(g)
}
