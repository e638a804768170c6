package raftlog

import (
	"encoding/json"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// listFSM keeps what was applied, and how it was restored.
type listFSM struct {
	mu       sync.Mutex
	applied  []string
	restores int
	back     int // restores that lost something
}

func (f *listFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, string(l.Data))
	return nil
}

type listSnapshot []string

func (f *listFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return listSnapshot(slices.Clone(f.applied)), nil
}

func (s listSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode([]string(s)); err != nil {
		return err
	}
	return sink.Close()
}

func (s listSnapshot) Release() {}

func (f *listFSM) Restore(r io.ReadCloser) error {
	var list []string
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(list) < len(f.applied) {
		f.back++
	}
	f.applied = list
	f.restores++
	return nil
}

func (f *listFSM) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.applied)
}

func (f *listFSM) counts() (restores, back int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restores, f.back
}

// disk is what outlives a node of a test.
type disk struct {
	mem   *raft.InmemStore
	snaps *MemorySnapshots
}

func newDisk() *disk { return &disk{raft.NewInmemStore(), NewMemorySnapshots()} }

// testNode is a node of hashicorp/raft on a loopback transport. All of them run in virtual time.
type testNode struct {
	*raft.Raft
	id     raft.ServerID
	disk   *disk
	fsm    *listFSM
	store  *Store // nil with bare stores
	link   *raft.InmemTransport
	fatals *fatals
}

// nodeOptions are what a test changes in a node.
type nodeOptions struct {
	bare bool // the library's stores without this package
	log  func(*Store, raft.LogStore) raft.LogStore
	out  func(raft.Transport) raft.Transport // what the node sends through
	conf func(*raft.Config)
}

func startNode(t *testing.T, id raft.ServerID, d *disk, o nodeOptions) *testNode {
	t.Helper()
	n := &testNode{id: id, disk: d, fsm: &listFSM{}, fatals: &fatals{}}
	_, n.link = raft.NewInmemTransport(raft.ServerAddress(id))
	conf := raft.DefaultConfig()
	conf.LocalID = id
	conf.Logger = hclog.NewNullLogger()
	conf.SnapshotInterval = 1000 * time.Hour // snapshots are taken by the test
	conf.TrailingLogs = 1                    // as little as the worst compaction leaves
	if o.conf != nil {
		o.conf(conf)
	}
	var (
		log    raft.LogStore      = d.mem
		stable raft.StableStore   = d.mem
		snaps  raft.SnapshotStore = d.snaps
		trans  raft.Transport     = n.link
		err    error
	)
	if !o.bare {
		n.store = Wrap(d.mem, d.mem, Options{Logger: quiet, Fatal: n.fatals.record})
		log, stable = n.store, n.store
		if snaps, err = n.store.WrapSnapshots(d.snaps); err != nil {
			t.Fatal(err)
		}
		trans = n.store.Guard(trans)
	}
	if o.log != nil {
		log = o.log(n.store, log)
	}
	if o.out != nil {
		trans = o.out(trans)
	}
	if n.Raft, err = raft.NewRaft(conf, n.fsm, log, stable, snaps, trans); err != nil {
		t.Fatalf("start %s: %v", id, err)
	}
	return n
}

func (n *testNode) stop(t *testing.T) {
	t.Helper()
	if err := n.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	if n.store != nil {
		if err := n.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func connect(a, b *testNode) {
	a.link.Connect(raft.ServerAddress(b.id), b.link)
	b.link.Connect(raft.ServerAddress(a.id), a.link)
}

func (n *testNode) apply(t *testing.T, what ...string) {
	t.Helper()
	for _, w := range what {
		if err := n.Apply([]byte(w), time.Minute).Error(); err != nil {
			t.Fatalf("apply %q on %s: %v", w, n.id, err)
		}
	}
}

func (n *testNode) waitLeader(t *testing.T) {
	t.Helper()
	for range 1000 {
		if n.State() == raft.Leader {
			return
		}
		time.Sleep(100 * time.Millisecond) // virtual
	}
	t.Fatalf("%s does not lead after 100 s of virtual time", n.id)
}

// caughtUp waits, in virtual time, until both machines hold the same.
func caughtUp(a, b *testNode, limit time.Duration) bool {
	for waited := time.Duration(0); waited < limit; waited += 100 * time.Millisecond {
		if slices.Equal(a.fsm.list(), b.fsm.list()) {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

// leaderAndLearner is a configuration in which a leads and c follows, whatever happens.
func leaderAndLearner() raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{
		{ID: "a", Address: "a", Suffrage: raft.Voter},
		{ID: "c", Address: "c", Suffrage: raft.Nonvoter},
	}}
}
