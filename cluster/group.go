package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/fsm/storage"
	"onceq/transport/wire"
)

// errEnding is what the library gets when it asks a group that is ending, or
// that had to stop, for a snapshot: the machine may be behind what the library
// believes to be applied.
var errEnding = errors.New("the group is ending")

// group is one raft group on this node: the machine, what proposes to it, what
// hands out its results. Everything about a queue is inside its group.
type group struct {
	node    string
	cluster string // its id
	dir     string // the data directory, for what operators are told to do
	id      raft.ServerID
	life    *life
	limits  fsm.Limits
	log     *slog.Logger
	fatal   func(error)

	mono      func() time.Duration
	wall      func() time.Time
	clock     *clock
	proposer  *proposer
	hub       *hub
	receives  *receives
	ticker    *ticker
	reads     *reader
	redrives  chan struct{} // one for each step of a redrive that is under way
	lead      *leadership
	steward   *steward
	version   *machineVersion
	auditor   *auditor
	topology  *topology
	snaps     *snapshotter
	disk      *disk // nil when everything is in memory
	store     *raftlog.Store
	snapshots raft.SnapshotStore

	succession *succession

	scrubEvery time.Duration
	drainMax   time.Duration
	progress   progress
	replayed   uint64        // entries up to here were in the log before this start
	installs   chan struct{} // cap 1: a follower needs another snapshot than the newest
	rotten     chan error    // cap 1: no other is better
	damaged    chan struct{} // cap 1: the newest snapshot is, another is to be read

	raft  *raft.Raft    // set before the first client is served
	ended chan struct{} // closed when raft's goroutines have ended

	// stopped: nothing is applied any more. At a shutdown the library may drop
	// a batch on its way to Apply and deliver the next one; what came after the
	// gap must not be applied, answered or put into a snapshot.
	stopped atomic.Bool

	bodies    bodyStore
	mu        sync.RWMutex // guards machine: written by the library's FSM goroutine, read by reads
	machine   *fsm.Machine
	last      atomic.Pointer[glance] // at machine, for who cannot wait for it
	starting  atomic.Bool            // a failed Restore is the library's to report
	restoring error                  // why Restore has failed at the start, which the library does not say
}

// Apply implements raft.FSM.
func (g *group) Apply(l *raft.Log) any {
	if g.stopped.Load() {
		return nil
	}
	// Raft has counted a leader in whose disk is still writing. What is applied can be seen:
	// by whoever is answered, and in a snapshot.
	if err := g.store.Committed(l.Index); err != nil {
		g.stop(fmt.Errorf("entry %d of term %d is not on a majority of disks: %w", l.Index, l.Term, err))
		return nil
	}
	eff, err := g.apply(l)
	if err != nil {
		g.stop(fmt.Errorf("apply entry %d of term %d: %w", l.Index, l.Term, err))
		return nil
	}
	g.dispatch(l, eff)
	if eff.Restored {
		g.renewed()
	}
	g.snaps.applied(l.Index, len(l.Data))
	return nil
}

func (g *group) apply(l *raft.Log) (*fsm.Effects, error) {
	// The entry has come from a disk or a peer since it was last verified.
	if err := raftlog.VerifyEntry(l); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	eff, err := g.machine.Apply(l.Index, l.Data)
	g.version.active.Store(g.machine.Version())
	if err == nil && eff.Verdict != nil {
		err = g.judge(l.Index, eff.Verdict)
	}
	if err == nil && eff.Restored {
		g.life.learn(g.machine)
	}
	return eff, err
}

// stop ends the node: to go on without the entry would be to disagree with the
// others in silence.
func (g *group) stop(err error) {
	if g.stopped.CompareAndSwap(false, true) {
		g.fatal(err)
	}
}

// dispatch hands out what an entry did: answers first, in the order of the
// commands, then the deliveries, so that a consumer hears that it is attached
// before it hears of messages.
func (g *group) dispatch(l *raft.Log, eff *fsm.Effects) {
	if eff.Term != nil {
		g.lead.termApplied(l, eff)
	}
	g.proposer.applied(l.Index, eff)
	if g.lead.serving() {
		g.hub.deliver(eff.Deliveries)
		g.hub.lost(eff.Lost)
		g.receives.ready(eff.Ready)
		g.ticker.applied(eff)
	}
	g.progress.advance(l.Index)
}

// StoreConfiguration implements raft.ConfigurationStore. Membership is the
// library's; what matters here is that a read which waits for this index goes
// on.
func (g *group) StoreConfiguration(index uint64, _ raft.Configuration) {
	g.progress.advance(index)
	g.steward.poke()
	g.topology.poke()
}

// Snapshot implements raft.FSM.
func (g *group) Snapshot() (raft.FSMSnapshot, error) {
	if g.stopped.Load() {
		return nil, errEnding
	}
	began := time.Now()
	g.mu.Lock()
	s, err := g.machine.Snapshot()
	index := g.machine.Index()
	g.mu.Unlock()
	if err != nil {
		return nil, err
	}
	stall := time.Since(began)
	g.snaps.frozen(true, stall)
	g.log.Debug("snapshot: tables frozen", "index", index, "stall", stall)
	return &snapshot{s: s, g: g, index: index, began: began, stall: stall}, nil
}

// Restore implements raft.FSM. It replaces everything: the library may install
// a snapshot that is older than what was applied here.
func (g *group) Restore(r io.ReadCloser) error {
	if g.stopped.Load() {
		return errEnding
	}
	if !g.starting.Load() {
		g.dropOlder() // there may be no room for both until the end
	}
	g.mu.Lock()
	g.last.Store(g.see(g.progress.at()))
	err := restoreMachine(g.machine, g.bodies, g.annexPath, r)
	index := g.machine.Index()
	g.version.active.Store(g.machine.Version())
	begun := err == nil && g.life.learn(g.machine)
	g.mu.Unlock()
	if err != nil {
		if g.starting.Load() {
			g.restoring = err
		} else {
			// Half of it may have been replaced.
			g.stop(fmt.Errorf("restore snapshot: %w", err))
		}
		return err
	}
	g.snaps.frozen(false, 0)
	if g.starting.Load() {
		g.dropOlder()
	} else {
		g.snaps.installed()
	}
	g.progress.advance(index)
	if begun && !g.starting.Load() {
		g.renewed()
	}
	return nil
}

// dropOlder leaves the newest snapshot, which has been read back.
func (g *group) dropOlder() {
	if g.store == nil {
		return
	}
	if err := g.store.DropOlderSnapshots(); err != nil {
		g.log.Warn("an old snapshot stays until the next is written", "error", err)
	}
}

// annexPath is where this node has the files of a snapshot that it made itself.
func (g *group) annexPath(h raftlog.AnnexHead) string {
	if g.store == nil {
		return ""
	}
	return g.store.AnnexPath(h)
}

// snapshot is a frozen machine on its way to disk.
type snapshot struct {
	s     *fsm.Snapshot
	g     *group
	index uint64
	began time.Time
	stall time.Duration // of Apply
}

// Persist implements raft.FSMSnapshot; it runs beside Apply. Raft only logs what it
// returns, so the node ends here over a disk that has failed, as it does in the sink.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.checkpoint(sink); err != nil {
		if !errors.Is(err, storage.ErrReplaced) && !errors.Is(err, storage.ErrClosed) {
			s.g.stop(err)
		}
		return errors.Join(err, sink.Cancel())
	}
	size, err := s.s.WriteTo(sink)
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot: %w", err), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	s.g.snaps.persisted(size, s.g.progress.at())
	s.g.log.Info("snapshot written", "index", s.index, "tables", size, "in", time.Since(s.began), "stall", s.stall)
	return nil
}

// checkpoint writes the bodies as files where the store and the snapshot can.
// Before the tables: their stream then has no bodies.
func (s *snapshot) checkpoint(sink raft.SnapshotSink) error {
	files, ok := s.s.Bodies().(storage.Checkpointer)
	if !ok {
		return nil
	}
	if a, ok := sink.(raftlog.AnnexSink); ok && a.AnnexPath() != "" {
		return files.Checkpoint(a.AnnexPath(), s.g.snaps.pace)
	}
	return nil
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() { s.s.Release() }

// propose sends a command of the leader's own.
func (g *group) propose(kind fsm.Kind, payload []byte, done func(outcome)) {
	g.proposer.submit(kind, payload, done)
}

const (
	// A look at the machine waits lookTries times lookPause for whoever changes it. An
	// entry is over in less, unless the disk does not keep up; a restore takes minutes.
	lookTries = 100
	lookPause = time.Millisecond
)

// glance is what a node's status tells of the machine.
type glance struct {
	index   uint64 // the machine's
	applied uint64 // or of what is not for the machine
	counts  fsm.Counts
	digests []fsm.DigestResult
}

// see reads it; the machine must not change.
func (g *group) see(applied uint64) *glance {
	index := g.machine.Index()
	return &glance{index: index, applied: max(index, applied), counts: g.machine.Counts(), digests: g.machine.Digests()}
}

// local is the machine's state for a node's status, or as it was when it was looked at
// last: who asks reads no request of its client meanwhile.
func (g *group) local() *glance {
	// Before the machine is looked at, so that what this index brought is told.
	applied := g.progress.at()
	for range lookTries {
		if g.mu.TryRLock() {
			now := g.see(applied)
			g.mu.RUnlock()
			for last := g.last.Load(); last == nil || last.applied <= now.applied; last = g.last.Load() {
				if g.last.CompareAndSwap(last, now) { // others look too, and may have been later
					break
				}
			}
			return now
		}
		time.Sleep(lookPause)
	}
	if last := g.last.Load(); last != nil {
		return last
	}
	return &glance{}
}

// refusal answers a client at a node that does not lead: nothing was appended.
func (g *group) refusal() *wire.ErrorReply {
	name, address := g.topology.leader()
	if name == "" {
		return &wire.ErrorReply{Code: wire.CodeNoLeader, Retriable: true,
			Text: "the group has no leader at present: an election is under way, or less than a majority of its nodes can be reached"}
	}
	if name == g.node {
		return &wire.ErrorReply{Code: wire.CodeNoLeader, Retriable: true, Text: "leadership is changing"}
	}
	return &wire.ErrorReply{Code: wire.CodeNotLeader, Retriable: true, Leader: address,
		Text: fmt.Sprintf("node %s does not lead the group, %s does", g.node, name)}
}

// progress is how far this node has applied, for those who wait for an index.
type progress struct {
	mu      sync.Mutex // guards the fields below
	index   uint64
	waiting map[chan struct{}]uint64
}

func (p *progress) advance(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index = max(p.index, index)
	for ch, want := range p.waiting {
		if want <= p.index {
			close(ch)
			delete(p.waiting, ch)
		}
	}
}

// at returns how far it is.
func (p *progress) at() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index
}

// reached returns a channel that is closed when index has been applied.
func (p *progress) reached(index uint64) <-chan struct{} {
	ch := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	if index <= p.index {
		close(ch)
		return ch
	}
	if p.waiting == nil {
		p.waiting = make(map[chan struct{}]uint64)
	}
	p.waiting[ch] = index
	return ch
}

// forget drops a channel that nobody waits for any more.
func (p *progress) forget(ch <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.waiting {
		if (<-chan struct{})(c) == ch {
			delete(p.waiting, c)
		}
	}
}
