package raftlog

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"onceq/cluster/raftlog/raftlogtest"
)

var (
	cutSeed = flag.Uint64("cut.seed", 1, "first seed of TestParallel_PowerCuts_TakeNothingThatWasApplied")
	cutRuns = flag.Int("cut.runs", 3, "how many seeds it runs")
)

// door is a node's transport: nothing leaves without power, and a link can be down.
type door struct {
	raft.Transport
	net   *cutNet
	id    raft.ServerID
	power *raftlogtest.Power
	in    chan raft.RPC
	quit  chan struct{}
}

func (d *door) Consumer() <-chan raft.RPC { return d.in }

func (d *door) run() {
	for {
		select {
		case rpc := <-d.Transport.Consumer():
			answer, asked := make(chan raft.RPCResponse, 1), rpc.RespChan
			rpc.RespChan = answer
			go func() {
				select {
				case r := <-answer:
					d.power.With(func() { asked <- r })
				case <-d.quit:
				}
			}()
			select {
			case d.in <- rpc:
			case <-d.quit:
			}
		case <-d.quit:
			return
		}
	}
}

var errDown = errors.New("no route to host")

func (d *door) send(to raft.ServerID, rpc func() error) error {
	err := errDown
	d.power.With(func() {
		if d.net.up(d.id, to) {
			err = nil
		}
	})
	if err != nil {
		return err
	}
	return rpc()
}

func (d *door) AppendEntries(id raft.ServerID, a raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return d.send(id, func() error { return d.Transport.AppendEntries(id, a, req, resp) })
}

func (d *door) RequestVote(id raft.ServerID, a raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return d.send(id, func() error { return d.Transport.RequestVote(id, a, req, resp) })
}

// AppendEntriesPipeline is what raft sends through when all is well. What is under way arrives, also when the link goes down.
func (d *door) AppendEntriesPipeline(id raft.ServerID, a raft.ServerAddress) (p raft.AppendPipeline, err error) {
	err = d.send(id, func() error { p, err = d.Transport.AppendEntriesPipeline(id, a); return err })
	return doorPipeline{p, d, id}, err
}

type doorPipeline struct {
	raft.AppendPipeline
	door *door
	to   raft.ServerID
}

func (p doorPipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (f raft.AppendFuture, err error) {
	err = p.door.send(p.to, func() error { f, err = p.AppendPipeline.AppendEntries(req, resp); return err })
	return f, err
}

// cutNet is three nodes whose power is cut, whose disks are slow and whose links are down at times.
type cutNet struct {
	t    *testing.T
	dead []*cutNode // former lives

	mu       sync.Mutex // guards below
	nodes    [3]*cutNode
	isolated map[raft.ServerID]bool
	applied  map[uint64]string // by index, what was applied by whoever did first
}

// cutNode is one life of a node.
type cutNode struct {
	raft  *raft.Raft
	net   *cutNet
	id    raft.ServerID
	mem   *raft.InmemStore
	store *Store
	power *raftlogtest.Power
	link  *raft.InmemTransport
	door  *door
	ended raft.Future // of the cut
	disk  *raftlogtest.Disk
}

func (net *cutNet) up(a, b raft.ServerID) bool {
	net.mu.Lock()
	defer net.mu.Unlock()
	return !net.isolated[a] && !net.isolated[b]
}

func (net *cutNet) isolate(n *cutNode, yes bool) {
	net.mu.Lock()
	defer net.mu.Unlock()
	net.isolated[n.id] = yes
}

// all are the present lives, the leader's first if there is one.
func (net *cutNet) all() []*cutNode {
	net.mu.Lock()
	defer net.mu.Unlock()
	nodes := net.nodes[:]
	for i, n := range nodes {
		if n.raft.State() == raft.Leader {
			return []*cutNode{n, nodes[(i+1)%3], nodes[(i+2)%3]}
		}
	}
	return slices.Clone(nodes)
}

// cutFSM is where an entry is seen by somebody: what is applied once is what is applied at that index for ever.
type cutFSM struct{ *cutNode }

func (f cutFSM) Apply(l *raft.Log) any {
	if err := f.store.Committed(l.Index); err != nil {
		return err
	}
	f.power.With(func() { f.net.see(f.id, l) })
	return nil
}

func (net *cutNet) see(id raft.ServerID, l *raft.Log) {
	net.mu.Lock()
	defer net.mu.Unlock()
	what := fmt.Sprintf("%s of term %d", l.Data, l.Term)
	if first, ok := net.applied[l.Index]; ok && first != what {
		net.t.Errorf("entry %d is %s on %s, and was applied as %s", l.Index, what, id, first)
	}
	net.applied[l.Index] = what
}

func (f cutFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.ErrUnsupported }
func (f cutFSM) Restore(io.ReadCloser) error         { return errors.ErrUnsupported }

// start begins a life with what the disk has.
func (net *cutNet) start(i int, id raft.ServerID, mem *raft.InmemStore) {
	n := &cutNode{net: net, id: id, mem: mem, power: &raftlogtest.Power{}}
	n.disk = raftlogtest.NewDisk(mem, n.power)
	n.disk.SetDelay(time.Millisecond)
	n.store = Wrap(n.disk, n.disk, Options{Owner: string(id), Logger: quiet, Fatal: func(error) {}, Parallel: true, AppendTimeout: time.Hour})
	voters := servers("a", "b", "c")
	n.store.SetVoters(voters)
	_, n.link = raft.NewInmemTransport(raft.ServerAddress(id))
	n.door = &door{Transport: n.link, net: net, id: id, power: n.power, in: make(chan raft.RPC), quit: make(chan struct{})}
	go n.door.run()
	snaps, err := n.store.WrapSnapshots(NewMemorySnapshots())
	if err != nil {
		net.t.Error(err)
	}
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger, conf.SnapshotInterval = id, hclog.NewNullLogger(), 1000*time.Hour
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	trans := n.store.Guard(n.door)
	if err := raft.BootstrapCluster(conf, n.store, n.store, snaps, trans, raft.Configuration{Servers: voters()}); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		net.t.Error(err)
	}
	if n.raft, err = raft.NewRaft(conf, cutFSM{n}, n.store, n.store, snaps, trans); err != nil {
		net.t.Error(err)
	}
	net.mu.Lock()
	defer net.mu.Unlock()
	net.nodes[i] = n
	for _, other := range net.nodes {
		if other != nil && other != n {
			other.link.Connect(raft.ServerAddress(id), n.link)
			n.link.Connect(raft.ServerAddress(other.id), other.link)
		}
	}
}

// cut takes the power from a node, and gives it back.
func (net *cutNet) cut(n *cutNode, down time.Duration) {
	n.power.Cut()
	n.ended = n.raft.Shutdown()
	net.dead = append(net.dead, n)
	time.Sleep(down)
	net.mu.Lock()
	i := slices.Index(net.nodes[:], n)
	net.mu.Unlock()
	net.start(i, n.id, n.mem)
}

// load proposes all the time, to whoever leads.
func (net *cutNet) load(stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
			for _, n := range net.all() {
				n.raft.Apply(fmt.Appendf(nil, "command %d", i), time.Millisecond)
			}
		}
	}
}

// What a node has applied, which is what is answered, is what every node applies there for ever: whatever power is cut while the
// leader's disk is behind the followers', and whoever leads next. Apply without Committed, and Guard without HeldBack, fail with the first seed.
func TestParallel_PowerCuts_TakeNothingThatWasApplied(t *testing.T) {
	for run := range *cutRuns {
		seed := *cutSeed + uint64(run)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { powerCuts(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func powerCuts(t *testing.T, rnd *rand.Rand) {
	net := &cutNet{t: t, isolated: make(map[raft.ServerID]bool), applied: make(map[uint64]string)}
	for i, id := range []raft.ServerID{"a", "b", "c"} {
		net.start(i, id, raft.NewInmemStore())
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { defer close(stopped); net.load(stop) }()
	ms := func(most int) time.Duration { return time.Duration(rnd.IntN(most)) * time.Millisecond }
	for range 40 {
		// A leader whose disk is behind, with one follower; then the other one and what is left of the leader.
		n := net.all()
		n[0].disk.SetDelay(ms(500))
		n[rnd.IntN(3)].disk.SetDelay(ms(20))
		if rnd.IntN(3) > 0 {
			net.isolate(n[2], true)
		}
		time.Sleep(ms(600))
		if rnd.IntN(3) > 0 {
			net.isolate(n[1], true)
		}
		if rnd.IntN(3) > 0 {
			net.isolate(n[2], false)
		}
		for range rnd.IntN(3) {
			net.cut(net.all()[rnd.IntN(3)*rnd.IntN(2)], ms(300))
		}
		time.Sleep(ms(1000))
		for _, n := range net.all() {
			net.isolate(n, rnd.IntN(8) == 0)
			n.disk.SetDelay(ms(3))
		}
		time.Sleep(ms(1000))
	}
	for _, n := range net.all() {
		net.isolate(n, false)
	}
	net.mu.Lock()
	most := uint64(len(net.applied))
	net.mu.Unlock()
	time.Sleep(time.Minute)
	close(stop)
	<-stopped
	for _, n := range net.all() {
		if at := n.raft.AppliedIndex(); at <= most {
			t.Errorf("%s has applied %d in the end, and %d was applied long before", n.id, at, most)
		}
	}
	t.Logf("%d entries applied, %d power cuts, term %d", most, len(net.dead), net.all()[0].raft.CurrentTerm())
	for _, n := range append(net.dead, net.all()...) {
		if n.ended == nil {
			n.ended = n.raft.Shutdown()
		}
		if err := n.ended.Error(); err != nil {
			t.Error(err)
		}
		if err := n.store.Close(); err != nil {
			t.Error(err)
		}
		close(n.door.quit)
	}
}
