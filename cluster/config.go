package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"onceq/cluster/member"
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
	// Join lists addresses of other nodes, those that clients use as well.
	Join []string
	// Secret is the cluster's key of 32 bytes, which authenticates nodes to each
	// other. Default: minted at bootstrap and handed to the nodes that form or
	// join the cluster, as far as Enroll allows.
	Secret []byte
	// Enroll says to whom the minted key may be handed. Default: to nodes on
	// loopback.
	Enroll member.EnrollPolicy

	// LogStore is "wal" (default) or "boltdb".
	LogStore string
	// MemoryStores keeps log and snapshots in memory instead of DataDir: tests
	// in virtual time. The function is asked at each start and gives the same
	// stores again to a node that restarts.
	MemoryStores func() (raft.LogStore, raft.StableStore, raft.SnapshotStore)
	// WallClock tells the time of day, which nothing but deliver-at depends on. Default
	// time.Now; tests set it forward and back.
	WallClock func() time.Time

	// Timings of raft. The change from a leader that is silent takes about twice
	// HeartbeatTimeout; one whose process has ended is succeeded at once. A node that
	// is stalled longer than that is taken for dead, so they should be well above the
	// longest fsync. Defaults 500 ms each. raft allows no
	// LeaderLeaseTimeout above HeartbeatTimeout, and rightly: a leader without a
	// majority that keeps on for longer holds its clients while another is elected.
	HeartbeatTimeout   time.Duration
	ElectionTimeout    time.Duration
	LeaderLeaseTimeout time.Duration

	// PeerTimeout bounds one exchange between peers. Default 10 s.
	PeerTimeout time.Duration
	// AppendTimeout is how long a write of the log may take before it ends the process,
	// see raftlog.Options. Default 3 s.
	AppendTimeout time.Duration

	// SnapshotThreshold is the number of entries after which a snapshot is
	// taken, looked at each SnapshotInterval; TrailingLogs entries stay in the
	// log for followers that are a little behind. Defaults 16,384, 30 s, 4,096.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	TrailingLogs      uint64

	// LogBytes bounds the log on disk, whatever the size of its entries; with
	// bodies in memory it may be larger by as much as a snapshot is. A snapshot
	// is taken when the log has grown by an eighth of it, a quarter stays for
	// followers that are behind, half for those that this node has sent a snapshot
	// and that have not caught up since, and publishes wait while the log grows by
	// more than a quarter before its snapshot is written. So a follower that takes
	// entries faster than they are made catches up with one snapshot, if entries of
	// less than half of LogBytes are made until that is installed there; with more it
	// needs another one, and the leader's log says so. trailingLogsMin entries stay in
	// any case, so that a follower which is ahead is not sent a snapshot: 96, of
	// 4 MiB at the most. A log of the largest entries keeps its bound from 1 GiB on;
	// below, it may have those 384 MiB more. Default 1 GiB, at least LogBytesMin.
	LogBytes uint64

	// Bodies is where the bodies of messages are: BodiesDisk (default), or
	// BodiesMemory, where a backlog must fit in memory. The same on every node.
	Bodies string
	// BodyMemory is the budget for young bodies, with BodiesDisk. Default 256 MiB.
	BodyMemory int64

	// DiskReserve is the free space, in bytes, below which publishes are
	// refused; below half of it everything is but what makes room. Four segments
	// of the log and twice the newest snapshot are reserved in any case. Default:
	// 10 % of the file system.
	DiskReserve uint64
	// DiskBallast is the size of a file that is given up when the disk is full, for
	// the snapshot behind which there is room again. Default: the smaller of 256 MiB
	// and 1 % of the file system; none when Advertise is on loopback.
	DiskBallast uint64
	// DigestInterval is how often the replicas compare their states, when
	// something was applied since. Default 10 s.
	DigestInterval time.Duration
	// ScrubEvery is how long after one background reading of the log, and of the newest
	// snapshot's files, the next begins. Default 6 h.
	ScrubEvery time.Duration

	// Limits of the queue machine; must be the same on every node.
	Limits fsm.Limits

	// Version is what the node says it runs. Default "dev".
	Version string
	// machineVersion is the newest version of the queue machine that the node takes
	// part in. Tests set it, to be an older build.
	machineVersion uint32
	descriptors    uint64        // descriptorLimit, but for tests
	transferIdle   time.Duration // transferIdleMax, but for tests
	drain          time.Duration // drainMax, but for tests
	gather         time.Duration // gatherMax, but for tests
	// Logger takes what operators should read. Default: nothing is logged.
	Logger *slog.Logger
	// RaftLogger takes what raft itself has to say. Default: nothing.
	RaftLogger *slog.Logger
	// Fatal is called once when the node cannot go on without risking what it
	// promised (a storage error, a damaged entry, a broken invariant). In
	// production it must end the process. Default: log and exit with status 1.
	Fatal func(error)
}

// RaftTimeoutMin is the shortest HeartbeatTimeout and ElectionTimeout: less raft does
// not take.
const RaftTimeoutMin = 5 * time.Millisecond

func (c Config) withDefaults() Config {
	if c.Bind == "" {
		c.Bind = "127.0.0.1:7450"
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.WallClock == nil {
		c.WallClock = time.Now
	}
	if c.Bodies == "" {
		c.Bodies = BodiesDisk
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
	fill(&c.LeaderLeaseTimeout, c.HeartbeatTimeout)
	fill(&c.PeerTimeout, 10*time.Second)
	fill(&c.SnapshotInterval, 30*time.Second)
	fill(&c.DigestInterval, 10*time.Second)
	fill(&c.ScrubEvery, 6*time.Hour)
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 16_384
	}
	if c.LogBytes == 0 {
		c.LogBytes = 1 << 30
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 4_096
	}
	if c.machineVersion == 0 {
		c.machineVersion = fsm.MachineVersion
	}
	if c.transferIdle == 0 {
		c.transferIdle = transferIdleMax
	}
	if c.drain == 0 {
		c.drain = drainMax
	}
	if c.gather == 0 {
		c.gather = gatherMax
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.RaftLogger == nil {
		c.RaftLogger = slog.New(slog.DiscardHandler)
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
	case c.DataDir == "":
		return errors.New("a node needs a data directory")
	case c.BootstrapExpect < 0 || c.BootstrapExpect > membersMax:
		return fmt.Errorf("bootstrap of %d nodes, at most %d", c.BootstrapExpect, membersMax)
	case c.LogStore != "wal" && c.LogStore != "boltdb":
		return fmt.Errorf("log store %q: there are wal and boltdb", c.LogStore)
	case c.Bodies != BodiesMemory && c.Bodies != BodiesDisk:
		return fmt.Errorf("bodies in %q: there are memory and disk", c.Bodies)
	case c.HeartbeatTimeout < RaftTimeoutMin || c.ElectionTimeout < c.HeartbeatTimeout:
		return fmt.Errorf("heartbeat timeout %v and election timeout %v: the first must be at least %v, the second no shorter than the first", c.HeartbeatTimeout, c.ElectionTimeout, RaftTimeoutMin)
	case c.LogBytes < LogBytesMin:
		return fmt.Errorf("a log of %d bytes: it needs at least %d", c.LogBytes, LogBytesMin)
	case c.DigestInterval < 0:
		return fmt.Errorf("digest interval %v: it must be positive", c.DigestInterval)
	case c.Secret != nil && len(c.Secret) != 32:
		return fmt.Errorf("cluster secret of %d bytes, it must have 32", len(c.Secret))
	}
	return member.CheckName(c.Name)
}
