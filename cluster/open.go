package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/transport/wire"
)

const (
	// maxAppendEntries x rpcsInFlight x entryBytesMax is what a slow follower
	// may cost in memory; raftlog.CheckConfig holds it to 64 MiB. One append has an
	// entry more at most, which bounds the time that the log's watchdog gives it.
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
	logs, snapshots, err := n.openStores(g)
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
	n.store.SetVoters(func() []raft.Server { return voters(r) })
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
		log: n.log, fatal: n.fatal, mono: n.clock.mono, wall: n.cfg.WallClock, clock: n.clock, hub: n.hub, ended: n.ended,
		installs: make(chan struct{}, 1), rotten: make(chan error, 1), damaged: make(chan struct{}, 1), scrubEvery: n.cfg.ScrubEvery, drainMax: n.cfg.drain,
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
	g.auditor = &auditor{g: g, every: n.cfg.DigestInterval, gatherMax: n.cfg.gather}
	if n.cfg.MemoryStores == nil {
		g.disk = newDisk(n, g)
	}
	g.topology = newTopology(g, wire.NodeAddress{Name: n.cfg.Name, Address: n.address}, nodes)
	g.proposer = newProposer(proposerConfig{
		clock: n.clock, mono: g.mono, wall: func() int64 { return g.wall().UnixNano() },
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
func (n *Node) openStores(g *group) (raft.LogStore, raft.SnapshotStore, error) {
	o := raftlog.Options{Kind: n.cfg.LogStore, Owner: string(n.identity.ServerID), Logger: n.log, Fatal: n.fatal, Annex: annex, SnapshotDamaged: g.noteDamagedSnapshot,
		AppendTimeout: n.cfg.AppendTimeout, Parallel: true}
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
	o.Known = n.identity.Logged
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
	n.raftNet = nt
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
// agreed on. The library writes its term before it; finding the term alone means
// that the node crashed in between, and finding both that it crashed right after.
func (n *Node) bootstrap(conf *raft.Config, logs raft.LogStore, snapshots raft.SnapshotStore, trans raft.Transport, id member.Identity) error {
	var c raft.Configuration
	for _, p := range id.Cluster.Members {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: p.ServerID, Address: raft.ServerAddress(p.Address)})
	}
	err := raft.BootstrapCluster(conf, logs, n.store, snapshots, trans, c)
	if errors.Is(err, raft.ErrCantBootstrap) {
		err = storeFirst(logs, snapshots, c)
	}
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	n.log.Info("formed a new cluster", "cluster", id.Cluster.ID, "members", len(c.Servers))
	return n.dir.MarkBootstrapped()
}

// storeFirst stores the first configuration where there is none. Raft has never run
// here, or the identity would say so; without a configuration nobody would ever stand
// for election.
func storeFirst(logs raft.LogStore, snapshots raft.SnapshotStore, c raft.Configuration) error {
	last, err := logs.LastIndex()
	if err != nil || last > 0 {
		return err
	}
	all, err := snapshots.List()
	if err != nil || len(all) > 0 {
		return err
	}
	return logs.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)})
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

// voters are who votes, by the newest configuration in the log, as raft counts them.
func voters(r *raft.Raft) (vs []raft.Server) {
	for _, v := range r.GetConfiguration().Configuration().Servers {
		if v.Suffrage == raft.Voter {
			vs = append(vs, v)
		}
	}
	return vs
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
	g.cureInstall()
}

// noteDamagedSnapshot: the library tries to send it without end. The state is whole in
// memory, perhaps on this node alone, so that another snapshot is as good. When that one's
// bodies are damaged too, what they are linked from is.
func (g *group) noteDamagedSnapshot(err error, again bool) {
	if again {
		select {
		case g.rotten <- err:
		default:
		}
		return
	}
	g.log.Error("the newest snapshot is damaged: another one is taken", "error", err)
	g.cureInstall()
	select {
	case g.damaged <- struct{}{}:
	default:
	}
}

func (g *group) cureInstall() {
	select {
	case g.installs <- struct{}{}:
	default:
	}
}

// cureInstalls takes a newer snapshot when a follower was sent one twice, or cannot be
// sent the newest, and in place of one that is damaged. The leader's entry before it makes
// it newer even if nobody writes.
func (g *group) cureInstalls(end <-chan struct{}) {
	for {
		select {
		case <-g.installs:
		case err := <-g.rotten:
			g.leaveToOthers(err)
			continue
		case <-end:
			return
		}
		if g.lead.serving() {
			f := g.raft.Apply(fsm.NewEntry(g.proposer.nextNumber(), 0, g.wall().UnixNano()), proposeTimeout)
			if err := bound(f, g.ended).Error(); err != nil {
				g.log.Warn("entry before a snapshot", "error", err)
				continue
			}
		}
		if err := g.snaps.take(g); err != nil {
			g.log.Warn("snapshot in place of the newest", "error", err)
		}
	}
}

// leaveToOthers ends a leader whose bodies on disk are damaged when another can lead and
// send whole ones. Without one it goes on: it may be the only node that has what was
// confirmed, and a process that starts again loads the damaged files.
func (g *group) leaveToOthers(damage error) {
	if !g.lead.serving() {
		g.log.Error("two snapshots in a row are damaged, and so is what they are made from: while a majority of the other nodes is well, "+
			"stop this node, run  onceq node wipe  and start it again, it rejoins with what the others have", "error", damage, "dir", g.dir)
		return // nobody is sent anything from here
	}
	why := g.successors()
	if why == nil {
		if refused := g.steward.transfer(""); refused != nil {
			why = errors.New(refused.Text)
		}
	}
	if why == nil {
		g.stop(damage)
		return
	}
	g.log.Error("two snapshots in a row are damaged, and no other node can take over: this one goes on, but cannot bring a node that is behind, or new, up to date. "+
		"If another that votes has everything, have it lead:  onceq cluster transfer . "+
		"Otherwise have the messages consumed that can be, and keep this directory and the backups. What is damaged:  onceq node verify  (with the node stopped, on a copy)",
		"error", damage, "others", why, "dir", g.dir)
}

// successors says what keeps the other voters from going on alone with what the newest
// snapshot has: a majority has to live, and one of them to need no snapshot and to know of
// no damage of its own.
func (g *group) successors() error {
	all, living, whole := voters(g.raft), 0, 0
	for _, v := range all {
		if v.ID == g.id {
			continue
		}
		status, err := g.steward.ask(context.Background(), g.steward.addressOf(v))
		if err != nil || status.ServerID != string(v.ID) {
			continue
		}
		living++
		if status.AppliedIndex >= g.snapshotIndex() && status.SnapshotDamage == "" {
			whole++
		}
	}
	if living < len(all)/2+1 || whole == 0 {
		return fmt.Errorf("of %d that vote, %d others answer, and %d of them have all of the snapshot, and whole files", len(all), living, whole)
	}
	return nil
}
