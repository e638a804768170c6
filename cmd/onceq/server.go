package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"onceq/cluster"
	"onceq/cluster/member"
	"onceq/cluster/raftlog"
	"onceq/cmd/onceq/internal/console"
	"onceq/cmd/onceq/internal/exit"
	"onceq/cmd/onceq/internal/procs"
	"onceq/fsm/storage"
)

// serverCmd is one node. Flags go over the environment.
type serverCmd struct {
	Name            string   `env:"ONCEQ_NAME" required:"" help:"Name of the node: unique in the cluster, kept for its life." placeholder:"NAME"`
	DataDir         string   `env:"ONCEQ_DATA_DIR" required:"" help:"Directory for everything the node must not lose." placeholder:"DIR"`
	Bind            string   `env:"ONCEQ_BIND" default:"127.0.0.1:7450" help:"Address for clients and raft."`
	Advertise       string   `env:"ONCEQ_ADVERTISE" help:"Address that clients and nodes are told to dial. Default: the bound one." placeholder:"HOST:PORT"`
	GossipBind      string   `env:"ONCEQ_GOSSIP_BIND" help:"Address for gossip, TCP and UDP. Default: the host of --bind, port 7451." placeholder:"HOST:PORT"`
	GossipAdvertise string   `env:"ONCEQ_GOSSIP_ADVERTISE" help:"Gossip address that nodes are told. Default: the bound one." placeholder:"HOST:PORT"`
	Join            []string `env:"ONCEQ_JOIN" help:"Addresses of other nodes; may be repeated." placeholder:"HOST:PORT"`
	BootstrapExpect int      `env:"ONCEQ_BOOTSTRAP_EXPECT" help:"Form a new cluster once exactly that many new nodes have met. A node with data never does." placeholder:"N"`
	LogStore        string   `env:"ONCEQ_LOG_STORE" enum:"wal,boltdb" default:"wal" help:"Where the raft log is kept: wal or boltdb."`
	ClusterKey      string   `env:"ONCEQ_CLUSTER_KEY" type:"path" help:"File with the key of the cluster, 64 hexadecimal digits. Default: the nodes that form the cluster agree on one." placeholder:"FILE"`
	InsecureNetwork bool     `env:"ONCEQ_INSECURE_NETWORK" help:"Listen on more than loopback although connections have neither TLS nor tokens yet."`
	LogLevel        string   `env:"ONCEQ_LOG_LEVEL" enum:"debug,info,warn,error" default:"info" help:"What to log to standard error: debug, info, warn or error."`

	HeartbeatTimeout  time.Duration `env:"ONCEQ_HEARTBEAT_TIMEOUT" default:"500ms" help:"Silence of the leader after which a node wants to vote."`
	ElectionTimeout   time.Duration `env:"ONCEQ_ELECTION_TIMEOUT" default:"500ms" help:"How long a vote may take before the next one."`
	SnapshotThreshold uint64        `env:"ONCEQ_SNAPSHOT_THRESHOLD" default:"16384" help:"Log entries after which a snapshot is taken, at the latest."`
	SnapshotInterval  time.Duration `env:"ONCEQ_SNAPSHOT_INTERVAL" default:"30s" help:"How often to look whether one is due."`
	LogBytes          size          `env:"ONCEQ_LOG_BYTES" default:"1GiB" help:"What the log may take on disk: a snapshot is taken in time. At least 2MiB; the newest 96 entries stay in any case, and from 1GiB on there is room for the largest. A follower that is sent a snapshot catches up if less than half of this is published meanwhile." placeholder:"SIZE"`

	Bodies      string `env:"ONCEQ_BODIES" enum:"memory,disk" default:"disk" help:"Where messages are kept that wait: disk, or memory alone, where a backlog must fit. The same on every node."`
	BodyMemory  size   `env:"ONCEQ_BODY_MEMORY" default:"256MiB" help:"With --bodies disk: memory for messages; those above it are on disk." placeholder:"SIZE"`
	DiskReserve size   `env:"ONCEQ_DISK_RESERVE" help:"Free space below which publishes are refused, such as 5GiB. Default: 10 % of the file system, and what log and snapshots need in any case." placeholder:"SIZE"`
	DiskBallast size   `env:"ONCEQ_DISK_BALLAST" help:"Size of a file that is given up when the disk is full, for the snapshot that makes room. Default: the smaller of 256MiB and 1 % of the file system; none on loopback." placeholder:"SIZE"`

	CPUProfile string `type:"path" help:"Write a CPU profile of the node's whole life to NAME.pprof in DIR, when it ends in order." placeholder:"DIR"`

	EndWithParent bool `hidden:"" help:"End as soon as standard input ends."`
	GossipFast    bool `hidden:"" help:"Gossip timings for one machine."`
}

// Help shows how to start one machine, and three.
func (*serverCmd) Help() string {
	return `Runs until SIGTERM or SIGINT, then hands leadership over and ends in order; the
node stays a member of its cluster. A second signal ends it at once.

Connections have neither TLS nor tokens yet: a node refuses to listen on more
than loopback without --insecure-network.

One node alone, for which no other stands in:
  onceq server --name n1 --data-dir data --bootstrap-expect 1

Three machines, the same line on each with its own name and address:
  onceq server --name n1 --data-dir /var/lib/onceq --bind 10.0.0.1:7450 \
    --gossip-bind 10.0.0.1:7451 --join 10.0.0.2:7450 --join 10.0.0.3:7450 \
    --bootstrap-expect 3 --cluster-key /etc/onceq.key --insecure-network

A fourth one that joins later: the same without --bootstrap-expect.`
}

// Run runs the node until ctx ends.
func (s *serverCmd) Run(ctx context.Context, a *app) (err error) {
	cfg, err := s.config(a)
	if err != nil {
		return err
	}
	log := cfg.Logger.With("node", s.Name) // as the node does for itself
	if s.EndWithParent {
		procs.EndWithParent(func() {
			log.Error("the process that started this node is gone")
			os.Exit(exit.Failure)
		})
	}
	if err := bindable(cfg.GossipBind); err != nil {
		return startError(fmt.Errorf("gossip: %w", err), s.DataDir)
	}
	stop, err := profiled(s.CPUProfile, s.Name)
	if err != nil {
		return err
	}
	defer func() {
		if perr := stop(); perr != nil {
			err = &lastWord{errors.Join(err, perr)}
		}
	}()
	if s.Bodies == cluster.BodiesDisk {
		if err := useHugePages(memoryLimit(int64(s.BodyMemory), 0)); err != nil {
			log.Info("no huge pages: a backlog costs more time", "error", err)
		}
		limiting, stop := context.WithCancel(context.Background())
		limited := make(chan struct{})
		go func() { defer close(limited); limitMemory(limiting, int64(s.BodyMemory)) }()
		defer func() { stop(); <-limited }()
	}
	// Nothing bounds the start but a signal: a new node waits for the others.
	node, err := cluster.Start(ctx, cfg)
	if err != nil && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return startError(err, s.DataDir)
	}
	log.Info("listening", "clients", node.Addr(), "gossip", node.GossipAddr(), "version", version())
	select {
	case <-ctx.Done():
		log.Info("handing over")
		return s.end(node)
	case <-node.Done():
		node.Close()
		return errors.New("the node has ended")
	}
}

// end ends the node in order. A signal is how that is asked for, so what goes wrong then
// must be told in spite of it.
func (s *serverCmd) end(node io.Closer) error {
	if err := node.Close(); err != nil {
		return &lastWord{startError(fmt.Errorf("end the node: %w", err), s.DataDir)}
	}
	return nil
}

// bindable listens on addr for a moment, TCP and UDP. The gossip library tells of
// an address that is taken in words alone, from which no exit code follows.
func bindable(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	l.Close()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// config turns flags into what a node needs, or says what is wrong with them.
func (s *serverCmd) config(a *app) (cluster.Config, error) {
	var cfg cluster.Config
	level := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[s.LogLevel]
	gossip := s.GossipBind
	if gossip == "" {
		host, _, err := net.SplitHostPort(s.Bind)
		if err != nil {
			return cfg, exit.Errorf(exit.Usage, "--bind %s: %w", s.Bind, err)
		}
		gossip = net.JoinHostPort(host, "7451")
	}
	if err := s.checkAddresses(gossip); err != nil {
		return cfg, err
	}
	if s.LogBytes < cluster.LogBytesMin {
		return cfg, exit.Errorf(exit.Usage, "--log-bytes of %s: at least %s", console.Bytes(uint64(s.LogBytes)), console.Bytes(cluster.LogBytesMin))
	}
	if s.HeartbeatTimeout < cluster.RaftTimeoutMin || s.ElectionTimeout < s.HeartbeatTimeout {
		return cfg, exit.Errorf(exit.Usage, "--heartbeat-timeout %v and --election-timeout %v: the first must be at least %v, the second no shorter than the first",
			s.HeartbeatTimeout, s.ElectionTimeout, cluster.RaftTimeoutMin)
	}
	secret, err := readKey(s.ClusterKey)
	if err != nil {
		return cfg, err
	}
	plain := slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: level}))
	log := plain.With("node", s.Name)
	cfg = cluster.Config{
		Name: s.Name, DataDir: s.DataDir,
		Bind: s.Bind, Advertise: s.Advertise,
		GossipBind: gossip, GossipAdvertise: s.GossipAdvertise, GossipFast: s.GossipFast,
		Join: s.Join, BootstrapExpect: s.BootstrapExpect, Secret: secret,
		LogStore:         s.LogStore,
		HeartbeatTimeout: s.HeartbeatTimeout, ElectionTimeout: s.ElectionTimeout,
		SnapshotThreshold: s.SnapshotThreshold, SnapshotInterval: s.SnapshotInterval, LogBytes: uint64(s.LogBytes),
		DiskReserve: uint64(s.DiskReserve), DiskBallast: uint64(s.DiskBallast), Bodies: s.Bodies, BodyMemory: int64(s.BodyMemory),
		Version: version(), Logger: plain, RaftLogger: log.With("component", "raft"),
		Fatal: func(err error) {
			told := []any{"error", err}
			var known *exit.Error
			if errors.As(startError(err, s.DataDir), &known) && known.Hint != "" {
				told = append(told, "hint", strings.ReplaceAll(known.Hint, "\n", "; "))
			}
			log.Error("the node cannot go on", told...)
			os.Exit(exit.Failure)
		},
	}
	return cfg, nil
}

// checkAddresses refuses addresses that would open the node to a network
// unasked, or that others could not dial.
func (s *serverCmd) checkAddresses(gossip string) error {
	if s.BootstrapExpect < 0 || s.BootstrapExpect > nodesMax {
		return exit.Errorf(exit.Usage, "--bootstrap-expect %d: 1 to %d", s.BootstrapExpect, nodesMax)
	}
	several := false // machines
	for _, j := range s.Join {
		if host, port, err := net.SplitHostPort(j); err != nil || host == "" || port == "" {
			return exit.Errorf(exit.Usage, "--join %s: write HOST:PORT, the --bind or --advertise of another node", j)
		}
		if !isLoopback(j) {
			several = true
		}
	}
	for _, b := range []struct{ flag, addr, advertise, advertiseFlag string }{
		{"--bind", s.Bind, s.Advertise, "--advertise"},
		{"--gossip-bind", gossip, s.GossipAdvertise, "--gossip-advertise"},
	} {
		if _, _, err := net.SplitHostPort(b.addr); err != nil {
			return exit.Errorf(exit.Usage, "%s %s: %w", b.flag, b.addr, err)
		}
		if b.flag == "--gossip-bind" && b.addr == s.Bind && !strings.HasSuffix(b.addr, ":0") {
			return exit.Errorf(exit.Usage, "--bind and gossip would both listen on %s: name another port with --gossip-bind", b.addr)
		}
		if !isLoopback(b.addr) && !s.InsecureNetwork {
			return &exit.Error{Code: exit.Usage,
				Err:  fmt.Errorf("%s %s is more than loopback, and connections have neither TLS nor tokens yet", b.flag, b.addr),
				Hint: "bind 127.0.0.1, or add --insecure-network if everybody who reaches this address may do everything"}
		}
		told, flag := b.advertise, b.advertiseFlag
		if told == "" {
			told, flag = b.addr, b.flag
		}
		host, _, err := net.SplitHostPort(told)
		if err != nil {
			return exit.Errorf(exit.Usage, "%s %s: %w", flag, told, err)
		}
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			return &exit.Error{Code: exit.Usage, Err: fmt.Errorf("others cannot dial %q", told),
				Hint: fmt.Sprintf("say what they should dial: %s THIS-MACHINE:PORT", b.advertiseFlag)}
		}
		if several && isLoopback(told) {
			return &exit.Error{Code: exit.Usage, Err: fmt.Errorf("the nodes named by --join are on other machines and cannot dial %s", told),
				Hint: fmt.Sprintf("say what they should dial: %s THIS-MACHINE:PORT", b.advertiseFlag)}
		}
	}
	return nil
}

// isLoopback says whether an address can be reached from this machine only. A
// name other than localhost is taken for a network address.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// readKey reads a key file.
func readKey(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &exit.Error{Code: exit.NotFound, Err: fmt.Errorf("cluster key: there is no file %s", path), Hint: makeKey}
	}
	if err != nil {
		return nil, fmt.Errorf("cluster key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != 32 {
		return nil, &exit.Error{Code: exit.Usage, Err: fmt.Errorf("cluster key %s does not hold 64 hexadecimal digits", path),
			Hint: makeKey}
	}
	return key, nil
}

const makeKey = "make one with  openssl rand -hex 32 > FILE  and give it to each node"

// isDamage says that a node has less than it had, or other than it had.
func isDamage(err error) bool {
	for _, damage := range []error{raftlog.ErrLogLost, raftlog.ErrSnapshotDamaged, raftlog.ErrFileDamaged, raftlog.ErrChecksum, raftlog.ErrNoChecksum, raftlog.ErrStableChecksum, storage.ErrBadCheckpoint} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}

// startError adds to why a node did not start, or has ended, what to do about it.
func startError(err error, dir string) error {
	switch {
	case errors.Is(err, member.ErrDirLocked), errors.Is(err, member.ErrOtherNode), errors.Is(err, member.ErrOtherCluster):
		return &exit.Error{Code: exit.Conflict, Err: err, Hint: "a node's directory is its own for life: name another with --data-dir, or start the node under its name"}
	case errors.Is(err, member.ErrNotDataDir): // it says itself what to do
		return &exit.Error{Code: exit.Conflict, Err: err}
	case errors.Is(err, member.ErrIdentityDamaged):
		return dirError(dir, err)
	case errors.Is(err, raftlog.ErrHung):
		return &exit.Error{Code: exit.Unavailable, Err: err, Hint: "the disk of " + dir + " does not answer: look at it, and start the node again"}
	case isDamage(err):
		return &exit.Error{Code: exit.CheckFailed, Err: err, Hint: "look closer with  onceq node verify " + dir + "\nif a majority of the other nodes is well:  onceq node wipe " + dir}
	case errors.Is(err, cluster.ErrBodyMissing): // it says itself what to do
		return &exit.Error{Code: exit.CheckFailed, Err: err}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &exit.Error{Code: exit.Unavailable, Err: err, Hint: "make room on the disk of " + dir + " and start the node again: what it had is there"}
	case errors.Is(err, member.ErrName):
		return &exit.Error{Code: exit.Usage, Err: err}
	case errors.Is(err, syscall.EADDRINUSE):
		return &exit.Error{Code: exit.Conflict, Err: err, Hint: "another process listens there: name another port with --bind or --gossip-bind"}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return &exit.Error{Code: exit.Usage, Err: err, Hint: "this machine has no such address: see --bind and --gossip-bind"}
	case errors.Is(err, os.ErrPermission):
		return &exit.Error{Code: exit.Denied, Err: err, Hint: "the user of this process must own --data-dir and may need a port above 1023"}
	}
	return err
}
