package member

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func networkTransport(n *testNode, book *AddressBook) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n.streams.Raft(), ServerAddressProvider: book, MaxPool: 2, Timeout: time.Second, Logger: hclog.NewNullLogger(),
	})
}

// guarded are two members with raft's network transport; the second one's is
// guarded, and answers with the term given.
type guarded struct {
	from       *raft.NetworkTransport
	to         raft.Transport
	id         raft.ServerID
	addr       raft.ServerAddress
	term       atomic.Uint64
	allow      atomic.Pointer[error]
	reached    atomic.Int64
	heartbeats atomic.Int64
	answer     atomic.Uint64
}

func newGuarded(t *testing.T) *guarded {
	a, b := twoMembers(t)
	g := &guarded{id: b.dir.Identity().ServerID, addr: raft.ServerAddress(b.addr)}
	book := NewAddressBook()
	book.Learn(g.id, b.addr, 1)
	g.from = networkTransport(a, book)
	g.to = GuardTransport(networkTransport(b, NewAddressBook()), Guard{
		CurrentTerm: g.term.Load,
		Allow: func(raft.ServerID) error {
			if err := g.allow.Load(); err != nil {
				return *err
			}
			return nil
		},
	})
	g.to.SetHeartbeatHandler(func(rpc raft.RPC) {
		g.heartbeats.Add(1)
		rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
	})
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case rpc := <-g.to.Consumer():
				g.reached.Add(1)
				switch rpc.Command.(type) {
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{Term: g.answer.Load()}, nil)
				case *raft.RequestPreVoteRequest:
					rpc.Respond(&raft.RequestPreVoteResponse{Term: g.answer.Load()}, nil)
				case *raft.AppendEntriesRequest:
					rpc.Respond(&raft.AppendEntriesResponse{Term: g.answer.Load()}, nil)
				case *raft.InstallSnapshotRequest:
					io.Copy(io.Discard, rpc.Reader)
					rpc.Respond(&raft.InstallSnapshotResponse{Term: g.answer.Load()}, nil)
				case *raft.TimeoutNowRequest:
					rpc.Respond(&raft.TimeoutNowResponse{}, nil)
				}
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() {
		g.from.Close()
		g.to.(raft.WithClose).Close()
		g.to.(raft.WithClose).Close()
		close(done)
		wg.Wait()
	})
	return g
}

// rpcs are all the ways a term gets in.
func (g *guarded) rpcs(t raft.Transport, term uint64) map[string]error {
	h := raft.RPCHeader{ID: []byte("n1-000000000000"), Addr: []byte("n1:7450"), ProtocolVersion: 3}
	snapshot := bytes.Repeat([]byte{0}, 300<<10) // would be read as requests if it were left in the stream
	return map[string]error{
		"vote":     t.RequestVote(g.id, g.addr, &raft.RequestVoteRequest{RPCHeader: h, Term: term}, &raft.RequestVoteResponse{}),
		"pre-vote": t.(raft.WithPreVote).RequestPreVote(g.id, g.addr, &raft.RequestPreVoteRequest{RPCHeader: h, Term: term}, &raft.RequestPreVoteResponse{}),
		"append":   t.AppendEntries(g.id, g.addr, &raft.AppendEntriesRequest{RPCHeader: h, Term: term, PrevLogEntry: 1}, &raft.AppendEntriesResponse{}),
		"snapshot": t.InstallSnapshot(g.id, g.addr, &raft.InstallSnapshotRequest{RPCHeader: h, Term: term, Size: int64(len(snapshot))},
			&raft.InstallSnapshotResponse{}, bytes.NewReader(snapshot)),
	}
}

func TestGuardTransport_TermFarAbove_DoesNotReachRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t)
		g.term.Store(7)
		for what, err := range g.rpcs(g.from, 7+termJumpMax+1) {
			if err == nil || !strings.Contains(err.Error(), ErrTermJump.Error()) {
				t.Errorf("%s: %v", what, err)
			}
		}
		heartbeat := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte("n1-000000000000"), Addr: []byte("n1:7450")}, Term: 1 << 63}
		if err := g.from.AppendEntries(g.id, g.addr, heartbeat, &raft.AppendEntriesResponse{}); err == nil {
			t.Error("heartbeat got an answer")
		}
		if g.reached.Load() != 0 || g.heartbeats.Load() != 0 {
			t.Errorf("%d requests and %d heartbeats reached raft", g.reached.Load(), g.heartbeats.Load())
		}
		// And the same connections still work, up to the limit.
		for what, err := range g.rpcs(g.from, 7+termJumpMax) {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		heartbeat.Term = 8
		if err := g.from.AppendEntries(g.id, g.addr, heartbeat, &raft.AppendEntriesResponse{}); err != nil {
			t.Error(err)
		}
		if err := g.from.TimeoutNow(g.id, g.addr, &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
			t.Error(err)
		}
		if g.reached.Load() != 5 || g.heartbeats.Load() != 1 {
			t.Errorf("%d requests and %d heartbeats reached raft", g.reached.Load(), g.heartbeats.Load())
		}
	})
}

func TestGuardTransport_TermFarAboveInAnAnswer_IsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t)
		sender := GuardTransport(g.from, Guard{CurrentTerm: func() uint64 { return 3 }})
		defer sender.(raft.WithClose).Close()
		g.answer.Store(4)
		for what, err := range g.rpcs(sender, 3) {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		g.answer.Store(1 << 40)
		for what, err := range g.rpcs(sender, 3) {
			if !errors.Is(err, ErrTermJump) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestGuardTransport_ServerNotAllowed_DoesNotReachRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t)
		gone := errors.New("n1 was removed")
		g.allow.Store(&gone)
		for what, err := range g.rpcs(g.from, 1) {
			if err == nil || !strings.Contains(err.Error(), gone.Error()) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if g.reached.Load() != 0 {
			t.Error("reached raft")
		}
	})
}

// plainTransport has no pre-vote; raft must not find one in the guard.
type plainTransport struct{ raft.Transport }

func TestGuardTransport_WithoutPreVoteBelow_HasNone(t *testing.T) {
	_, inmem := raft.NewInmemTransport("")
	g := GuardTransport(plainTransport{inmem}, Guard{CurrentTerm: func() uint64 { return 0 }})
	if _, ok := g.(raft.WithPreVote); ok {
		t.Error("pre-vote made up")
	}
	g.(raft.WithClose).Close()
	with := GuardTransport(inmem, Guard{CurrentTerm: func() uint64 { return 0 }})
	if _, ok := with.(raft.WithPreVote); !ok {
		t.Error("pre-vote hidden")
	}
	with.(raft.WithClose).Close()
}

func TestAddressBook_NewestProcessThenConfiguration(t *testing.T) {
	b := NewAddressBook()
	if _, err := b.ServerAddr("n1-000000000000"); err == nil {
		t.Error("address out of nothing")
	}
	b.SetFallback(func(id raft.ServerID) (raft.ServerAddress, bool) { return "old:1", id == "n1-000000000000" })
	want := func(address string) {
		t.Helper()
		if a, err := b.ServerAddr("n1-000000000000"); err != nil || a != DialedAddress("n1-000000000000", address) || PlainAddress(a) != address {
			t.Errorf("%q, %v, want %s", a, err, address)
		}
	}
	want("old:1")
	b.Learn("n1-000000000000", "new:1", 5)
	want("new:1")
	b.Learn("n1-000000000000", "stale:1", 4)
	want("new:1")
	if _, err := b.ServerAddr("n2-000000000000"); err == nil {
		t.Error("address of another")
	}
	for i := range 2 * bookEntriesMax {
		b.Learn(raft.ServerID(fmt.Sprint(i)), "x:1", 1)
	}
	if len(b.entries) > bookEntriesMax {
		t.Errorf("%d entries", len(b.entries))
	}
}

// nullFSM applies nothing.
type nullFSM struct{ applied atomic.Int64 }

func (f *nullFSM) Apply(*raft.Log) any               { return f.applied.Add(1) }
func (*nullFSM) Snapshot() (raft.FSMSnapshot, error) { return nullSnapshot{}, nil }
func (*nullFSM) Restore(r io.ReadCloser) error       { return r.Close() }

type nullSnapshot struct{}

func (nullSnapshot) Persist(s raft.SnapshotSink) error { return s.Close() }
func (nullSnapshot) Release()                          {}

// raftNode runs raft on a test node the way the group runtime does.
type raftNode struct {
	*testNode
	raft *raft.Raft
	fsm  *nullFSM
	book *AddressBook
}

func (n *raftNode) startRaft(f Formed) {
	conf := raft.DefaultConfig()
	conf.LocalID = n.dir.Identity().ServerID
	conf.Logger = hclog.NewNullLogger()
	n.fsm, n.book = &nullFSM{}, NewAddressBook()
	logs, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	var running atomic.Pointer[raft.Raft]
	trans := GuardTransport(networkTransport(n.testNode, n.book), Guard{CurrentTerm: func() uint64 {
		if r := running.Load(); r != nil {
			return r.CurrentTerm()
		}
		return 0
	}})
	if f.Bootstrap {
		var c raft.Configuration
		for _, m := range f.Identity.Cluster.Members {
			c.Servers = append(c.Servers, raft.Server{ID: m.ServerID, Address: raft.ServerAddress(m.Address)})
		}
		if err := raft.BootstrapCluster(conf, logs, logs, snaps, trans, c); err != nil {
			n.t.Error(err)
		}
		if err := n.dir.MarkBootstrapped(); err != nil {
			n.t.Error(err)
		}
	}
	r, err := raft.NewRaft(conf, n.fsm, logs, logs, snaps, trans)
	if err != nil {
		n.t.Error(err)
		return
	}
	running.Store(r)
	n.raft = r
	n.book.SetFallback(func(id raft.ServerID) (raft.ServerAddress, bool) {
		for _, s := range r.GetConfiguration().Configuration().Servers {
			if s.ID == id {
				return s.Address, true
			}
		}
		return "", false
	})
}

// Three nodes form, elect, replicate and lose their leader, over these streams.
func TestRaft_OverStreams_ThreeNodesReplicateAndFailOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTestNet()
		var nodes []*raftNode
		var plain []*testNode
		for i := 1; i <= 3; i++ {
			n := &raftNode{testNode: newTestNode(t, tn, fmt.Sprintf("n%d", i)).start()}
			nodes, plain = append(nodes, n), append(plain, n.testNode)
		}
		formed := make([]Formed, 3)
		var wg sync.WaitGroup
		for i, n := range plain {
			wg.Go(func() { formed[i], _ = n.form(t.Context(), 3, "n1:7450") })
		}
		wg.Wait()
		for i, n := range nodes {
			n.startRaft(formed[i])
		}
		leader := func(among []*raftNode) *raftNode {
			for {
				for _, n := range among {
					if n.raft.State() == raft.Leader && n.raft.VerifyLeader().Error() == nil {
						return n
					}
				}
				time.Sleep(100 * time.Millisecond) // virtual
			}
		}
		l := leader(nodes)
		big := bytes.Repeat([]byte{7}, 300<<10) // several records
		for range 10 {
			if err := l.raft.Apply(big, 10*time.Second).Error(); err != nil {
				t.Fatal(err)
			}
		}
		if a, id := l.raft.LeaderWithID(); id != l.dir.Identity().ServerID || strings.Contains(string(a), "@") {
			t.Errorf("leader %q %q", a, id)
		}
		var rest []*raftNode
		for _, n := range nodes {
			if n != l {
				rest = append(rest, n)
			}
		}
		tn.setDown(l.addr, true)
		l.raft.Shutdown().Error()
		l.streams.Close()
		next := leader(rest)
		if err := next.raft.Apply([]byte("x"), 10*time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		if a, id := next.raft.LeaderWithID(); id != next.dir.Identity().ServerID || strings.Contains(string(a), "@") {
			t.Errorf("leader %q %q", a, id)
		}
		for _, n := range rest {
			for n.fsm.applied.Load() < 11 {
				time.Sleep(100 * time.Millisecond) // virtual
			}
		}
		for _, n := range rest {
			n.raft.Shutdown().Error()
			n.streams.Close()
		}
		time.Sleep(time.Minute) // raft leaves timers behind that end
	})
}
