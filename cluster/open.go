package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/transport/wire"
)

const (
	// maxAppendEntries x rpcsInFlight x entryBytesMax is what a slow follower
	// may cost in memory; raftlog.CheckConfig holds it to 64 MiB.
	maxAppendEntries = 8
	rpcsInFlight     = 2
	peerPool         = 3
	// snapshotTimeoutScale: an install may take the peer timeout once for each
	// of so many bytes.
	snapshotTimeoutScale = 16 << 20
	snapshotsKept        = 2
)

// openGroup opens the log, the snapshots and raft.
func (n *Node) openGroup(formed member.Formed, book *member.AddressBook) (*group, error) {
	g := n.newGroup(formed.Identity)
	logs, snapshots, err := n.openStores()
	if err != nil {
		return nil, err
	}
	g.store, g.snapshots = n.store, snapshots
	conf := n.raftConfig(g)
	if err := raftlog.CheckConfig(conf, raftlog.Flow{RPCsInFlight: rpcsInFlight, EntryBytes: entryBytesMax}); err != nil {
		return nil, err
	}
	g.succession = newSuccession(g, n, book)
	var running atomic.Pointer[raft.Raft]
	trans := n.raftTransport(g, book, conf, &running)
	g.succession.trans, g.reads.asks = trans, newConfirmer(g, trans)
	if formed.Bootstrap {
		if err := n.bootstrap(conf, logs, snapshots, trans, formed.Identity); err != nil {
			return nil, errors.Join(err, closeTransport(trans))
		}
	}
	if g.replayed, err = logs.LastIndex(); err != nil {
		return nil, errors.Join(fmt.Errorf("last index of the log: %w", err), closeTransport(trans))
	}
	g.starting.Store(true)
	r, err := newRaft(conf, g, logs, n.store, snapshots, trans)
	if err != nil {
		return nil, errors.Join(err, g.restoring, closeTransport(trans))
	}
	g.starting.Store(false)
	g.raft, n.raft = r, r
	g.snaps.start(r)
	running.Store(r)
	g.succession.raft.Store(r)
	n.streams.SetOnRaftEnd(g.succession.note)
	book.SetFallback(g.configuredAddress)
	n.streams.SetAllow(func(id raft.ServerID) error { return allow(r, id) })
	n.streams.SetOnJoin(func(ctx context.Context, req member.JoinRequest) (member.JoinAnswer, error) {
		return g.onJoin(ctx, req)
	})
	// The proposer's workers wait until the node serves; nothing above asks it.
	g.proposer.start(r)
	return g, nil
}

func closeTransport(t raft.Transport) error {
	if c, ok := t.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

func (n *Node) newGroup(id member.Identity) *group {
	g := &group{
		node: n.cfg.Name, cluster: n.cluster, dir: n.cfg.DataDir, id: id.ServerID, life: newLife(id.Cluster.Incarnation), limits: n.limits,
		log: n.log, fatal: n.fatal, mono: n.clock.mono, clock: n.clock, hub: n.hub, ended: n.ended,
		installs: make(chan struct{}, 1), scrubEvery: n.cfg.ScrubEvery,
	}
	g.bodies = n.bodies
	g.machine = fsm.New(fsm.Config{Group: groupNumber, Limits: n.limits, Version: n.cfg.machineVersion}, g.bodies)
	g.version = newMachineVersion(n.cfg.machineVersion, g.machine)
	nodes := func() []member.NodeView {
		if gossip := n.gossip.Load(); gossip != nil {
			return gossip.Nodes()
		}
		return nil
	}
	g.lead = newLeadership(g)
	g.ticker = newTicker(g)
	g.reads = newReader(g)
	g.redrives = make(chan struct{}, redrivesMax)
	g.snaps = newSnapshotter(n.cfg.LogBytes, n.cfg.SnapshotThreshold, n.cfg.SnapshotInterval, n.end, n.log)
	g.steward = newSteward(g, member.DialFunc(n.cfg.Dial), nodes)
	g.auditor = &auditor{g: g, every: n.cfg.DigestInterval}
	if n.cfg.MemoryStores == nil {
		g.disk = newDisk(n, g)
	}
	g.topology = newTopology(g, wire.NodeAddress{Name: n.cfg.Name, Address: n.address}, nodes)
	g.proposer = newProposer(proposerConfig{
		clock: n.clock, mono: g.mono, wall: func() int64 { return time.Now().UnixNano() },
		ended: n.ended, refusal: g.refusal, classify: raftlog.Classify, hold: g.hold,
	})
	g.receives = newReceives(n.hub, g.mono)
	g.receives.propose, g.receives.refusal, g.receives.barren = g.proposer.submit, g.refusal, g.barren
	n.hub.detach = func(c fsm.ConsumerID, number uint64, done func(outcome)) {
		g.proposer.submit(fsm.KindDetach, fsm.DetachPayload(c, number), done)
	}
	n.hub.missing = g.missing
	return g
}

// openStores opens the raft log with its guard, and the snapshots. Each storage
// error ends the node.
func (n *Node) openStores() (raft.LogStore, raft.SnapshotStore, error) {
	o := raftlog.Options{Kind: n.cfg.LogStore, Logger: n.log, Fatal: n.fatal, Annex: annex}
	if n.cfg.MemoryStores != nil {
		log, stable, snapshots := n.cfg.MemoryStores()
		o.Kind = raftlog.KindMemory
		n.store = raftlog.Wrap(log, stable, o)
		wrapped, err := n.store.WrapSnapshots(snapshots)
		return n.store, wrapped, err
	}
	dir := groupDir(n.cfg.DataDir)
	if err := removeScans(dir); err != nil {
		return nil, nil, err
	}
	o.Dir = filepath.Join(dir, logDir)
	// The log is cut by whole segments.
	o.SegmentBytes = int(min(raftlog.SegmentBytesDefault, max(logSegmentMin, n.cfg.LogBytes/logSegments)))
	// A log that is gone is a loss and not a beginning: whoever forgot the log
	// but knows the id must not vote.
	o.Owner, o.Known = string(n.identity.ServerID), n.identity.Logged
	store, err := raftlog.Open(o)
	if err != nil {
		return nil, nil, err
	}
	n.store = store
	snapshots, err := store.OpenSnapshots(dir, snapshotsKept)
	if err != nil {
		return nil, nil, err
	}
	return store, snapshots, n.dir.MarkLogged()
}

func (n *Node) raftConfig(g *group) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = g.id
	c.HeartbeatTimeout = n.cfg.HeartbeatTimeout
	c.ElectionTimeout = n.cfg.ElectionTimeout
	c.LeaderLeaseTimeout = n.cfg.LeaderLeaseTimeout
	c.MaxAppendEntries = maxAppendEntries
	// Unbuffered: see proposer.
	c.BatchApplyCh = false
	// A node that was removed stays up, to say so.
	c.ShutdownOnRemove = false
	c.SnapshotThreshold = snapshotThresholdNone // see snapshotter
	c.TrailingLogs = n.cfg.TrailingLogs
	c.NoLegacyTelemetry = true
	c.NotifyCh = g.lead.notify
	c.Logger = raftlog.HCLog(n.cfg.RaftLogger)
	return c
}

// raftTransport stacks what guards raft's traffic: entries are verified, a
// repeated install is noticed, forged terms and strangers are refused.
func (n *Node) raftTransport(g *group, book *member.AddressBook, conf *raft.Config, running *atomic.Pointer[raft.Raft]) member.GuardedTransport {
	nt := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: book, Logger: conf.Logger, Stream: n.streams.Raft(),
		MaxPool: peerPool, MaxRPCsInFlight: rpcsInFlight, Timeout: n.cfg.PeerTimeout,
	})
	nt.TimeoutScale = snapshotTimeoutScale
	watched := raftlog.WatchInstalls(n.store.Guard(nt), g.noteRepeatedInstall)
	return member.GuardTransport(watched, member.Guard{
		CurrentTerm: func() uint64 {
			if r := running.Load(); r != nil {
				return r.CurrentTerm()
			}
			return 0
		},
		Allow:    func(id raft.ServerID) error { return allow(running.Load(), id) },
		Succeeds: g.succession.succeeds,
		Sending: func(to raft.ServerID, req *raft.InstallSnapshotRequest, data io.Reader) (io.Reader, func(error)) {
			g.snaps.catchUps.sent(to, req.LastLogIndex)
			r, done := n.transfers.sending(to, req, data)
			return r, func(err error) {
				if err != nil {
					g.snaps.catchUps.brokeOff(to)
				}
				done(err)
			}
		},
		Receiving: n.transfers.receiving,
		Follows: func(id raft.ServerID, index uint64) {
			if r := running.Load(); r != nil {
				g.snaps.catchUps.follows(id, index, r.LastIndex())
			}
		},
		Logger: n.log,
	})
}

// bootstrap writes the first configuration: on the one node that the nodes have
// agreed on. Finding it written means that the node crashed right after.
func (n *Node) bootstrap(conf *raft.Config, logs raft.LogStore, snapshots raft.SnapshotStore, trans raft.Transport, id member.Identity) error {
	var c raft.Configuration
	for _, p := range id.Cluster.Members {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: p.ServerID, Address: raft.ServerAddress(p.Address)})
	}
	err := raft.BootstrapCluster(conf, logs, n.store, snapshots, trans, c)
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap: %w", err)
	}
	n.log.Info("formed a new cluster", "cluster", id.Cluster.ID, "members", len(c.Servers))
	return n.dir.MarkBootstrapped()
}

// newRaft opens raft. The library panics on a log that lacks what its newest
// snapshot does not hold; that is an error like others to whoever starts us.
func newRaft(conf *raft.Config, f raft.FSM, logs raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore, trans raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("open raft: %v", p)
		}
	}()
	r, err = raft.NewRaft(conf, f, logs, stable, snapshots, trans)
	if err != nil {
		return nil, fmt.Errorf("open raft: %w", err)
	}
	return r, nil
}

func (g *group) configuredAddress(id raft.ServerID) (raft.ServerAddress, bool) {
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.ID == id {
			return s.Address, true
		}
	}
	return "", false
}

// onJoin takes a new node in, or says where the leader is.
func (g *group) onJoin(ctx context.Context, req member.JoinRequest) (member.JoinAnswer, error) {
	if !g.lead.serving() {
		name, address := g.topology.leader()
		if name == "" || name == g.node {
			return member.JoinAnswer{Reason: "the group has no leader at present"}, nil
		}
		return member.JoinAnswer{Leader: address}, nil
	}
	if err := g.version.takes(req); err != nil {
		return member.JoinAnswer{Reason: err.Error()}, nil
	}
	if err := g.steward.join(ctx, req.Peer); err != nil {
		return member.JoinAnswer{Reason: err.Error()}, nil
	}
	return member.JoinAnswer{Accepted: true}, nil
}

// noteRepeatedInstall: the library can send one follower the same snapshot
// without end. A newer snapshot ends it.
func (g *group) noteRepeatedInstall(i raftlog.RepeatedInstall) {
	g.log.Warn("a follower was sent the same snapshot again", "peer", i.Peer, "index", i.Index, "installs", i.Installs)
	select {
	case g.installs <- struct{}{}:
	default:
	}
}

// cureInstalls takes a newer snapshot when a follower was sent one twice. The
// entry before it makes it newer even if nobody writes.
func (g *group) cureInstalls(end <-chan struct{}) {
	for {
		select {
		case <-g.installs:
		case <-end:
			return
		}
		f := g.raft.Apply(fsm.NewEntry(g.proposer.nextNumber(), 0, time.Now().UnixNano()), proposeTimeout)
		if err := bound(f, g.ended).Error(); err != nil {
			g.log.Warn("entry before a snapshot", "error", err)
			continue
		}
		if err := g.snaps.take(g); err != nil {
			g.log.Warn("snapshot for a follower", "error", err)
		}
	}
}
