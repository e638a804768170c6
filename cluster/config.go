package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"onceq/fsm"
)

// Config says what a node is. The zero values of the optional fields take the
// defaults named beside them.
type Config struct {
	// Name of the node: unique in the cluster, kept for its life. Required.
	Name string
	// DataDir holds everything the node must not lose. Required.
	DataDir string

	// Bind is where clients and raft peers are accepted, host:port. Default
	// 127.0.0.1:7450. Ignored when Listener is set.
	Bind string
	// Advertise is what clients and peers are told to dial. Default: the
	// address the listener has.
	Advertise string
	// Listener takes the place of Bind.
	Listener net.Listener
	// Dial opens connections to peers. Default: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// GossipBind is the host:port of gossip, TCP and UDP. Default: Bind's host,
	// any port. Ignored when GossipTransport is set.
	GossipBind string
	// GossipAdvertise is what others are told. Default: the bound address.
	GossipAdvertise string
	// GossipTransport takes the place of GossipBind.
	GossipTransport memberlist.Transport
	// GossipFast uses timings for one machine or one local network.
	GossipFast bool

	// BootstrapExpect: form a new cluster when exactly that many nodes that
	// hold no state have met. 0: never form one.
	BootstrapExpect int
	// Join lists gossip addresses of other nodes.
	Join []string
	// Secret is the cluster's key of 32 bytes. Default: minted at bootstrap and
	// handed to the nodes that form the cluster with it.
	Secret []byte

	// LogStore is "wal" (default) or "boltdb".
	LogStore string
	// MemoryStores keeps log and snapshots in memory instead of DataDir: tests
	// in virtual time. The function is asked at each start and gives the same
	// stores again to a node that restarts.
	MemoryStores func() (raft.LogStore, raft.StableStore, raft.SnapshotStore)

	// Timings of raft. A leader change takes about twice HeartbeatTimeout. A
	// node that is stalled longer than that is taken for dead, so they should
	// be well above the longest fsync. Defaults 500 ms, 500 ms, 250 ms.
	HeartbeatTimeout   time.Duration
	ElectionTimeout    time.Duration
	LeaderLeaseTimeout time.Duration

	// SnapshotThreshold is the number of entries after which a snapshot is
	// taken, looked at each SnapshotInterval; TrailingLogs entries stay in the
	// log for followers that are a little behind. Defaults 16,384, 30 s, 4,096.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	TrailingLogs      uint64

	// Limits of the queue machine; must be the same on every node.
	Limits fsm.Limits

	// Version is what the node says it runs. Default "dev".
	Version string
	// Logger takes what operators should read. Default: nothing is logged.
	Logger *slog.Logger
	// RaftLog takes the library's own lines. Default: nothing.
	RaftLog io.Writer
	// Fatal is called once when the node cannot go on without risking what it
	// promised (a storage error, a damaged entry, a broken invariant). In
	// production it must end the process. Default: log and exit with status 1.
	Fatal func(error)
}

func (c Config) withDefaults() Config {
	if c.Bind == "" {
		c.Bind = "127.0.0.1:7450"
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.LogStore == "" {
		c.LogStore = "wal"
	}
	fill := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	fill(&c.HeartbeatTimeout, 500*time.Millisecond)
	fill(&c.ElectionTimeout, 500*time.Millisecond)
	fill(&c.LeaderLeaseTimeout, min(c.HeartbeatTimeout/2, 250*time.Millisecond))
	fill(&c.SnapshotInterval, 30*time.Second)
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 16_384
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 4_096
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.RaftLog == nil {
		c.RaftLog = io.Discard
	}
	if c.Fatal == nil {
		log := c.Logger
		c.Fatal = func(err error) {
			log.Error("the node cannot go on", "error", err)
			os.Exit(1)
		}
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Name == "":
		return errors.New("a node needs a name")
	case len(c.Name) > nodeNameBytesMax:
		return fmt.Errorf("node name of %d bytes, at most %d", len(c.Name), nodeNameBytesMax)
	case c.DataDir == "":
		return errors.New("a node needs a data directory")
	case c.BootstrapExpect < 0 || c.BootstrapExpect > membersMax:
		return fmt.Errorf("bootstrap of %d nodes, at most %d", c.BootstrapExpect, membersMax)
	case c.LogStore != "wal" && c.LogStore != "boltdb":
		return fmt.Errorf("log store %q: there are wal and boltdb", c.LogStore)
	case c.Secret != nil && len(c.Secret) != 32:
		return fmt.Errorf("cluster secret of %d bytes, it must have 32", len(c.Secret))
	}
	for _, r := range c.Name {
		ok := r == '-' || r == '_' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !ok {
			return fmt.Errorf("node name %q: letters, digits, '.', '-' and '_' only", c.Name)
		}
	}
	return nil
}
