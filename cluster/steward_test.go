package cluster

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
	"onceq/fsm"
	"onceq/fsm/storage"
	"onceq/transport"
	"onceq/transport/wire"
)

// The server ids of these tests: a name and a suffix.
const (
	stewardA  = raft.ServerID("n1-aaaaaaaaaaaa")
	stewardB  = raft.ServerID("n2-bbbbbbbbbbbb")
	stewardB2 = raft.ServerID("n2-cccccccccccc")
	stewardD  = raft.ServerID("n4-dddddddddddd")
)

// stewardOf is the steward of a leader that votes alone, beside others that do not, in
// memory. What gossip sees is up to the test.
func stewardOf(t *testing.T, others []raft.Server, nodes func() []member.NodeView) *steward {
	t.Helper()
	store, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	address, trans := raft.NewInmemTransport("")
	conf := raft.DefaultConfig()
	conf.LocalID, conf.LogLevel = stewardA, "off"
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	servers := append([]raft.Server{{ID: stewardA, Address: address}}, others...)
	if err := raft.BootstrapCluster(conf, store, store, snapshots, trans, raft.Configuration{Servers: servers}); err != nil {
		t.Fatal(err)
	}
	r, err := raft.NewRaft(conf, &raft.MockFSM{}, store, store, snapshots, trans)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Shutdown().Error() })
	select {
	case <-r.LeaderCh():
	case <-time.After(60 * time.Second):
		t.Fatal("it does not lead")
	}
	machine := fsm.New(fsm.Config{Group: groupNumber}, storage.NewMemory())
	g := &group{node: "n1", id: stewardA, raft: r, ended: make(chan struct{}), log: slog.New(slog.DiscardHandler),
		version: newMachineVersion(machine.Version(), machine)}
	g.lead = newLeadership(g)
	g.lead.inTerm.Store(1)
	return newSteward(g, (&net.Dialer{}).DialContext, nodes)
}

func (s *steward) ids() (ids []raft.ServerID) {
	for _, v := range s.g.raft.GetConfiguration().Configuration().Servers {
		ids = append(ids, v.ID)
	}
	return ids
}

// addAlone is add of a node that never votes, since nobody is there for raft: it is
// waited for no longer than until it is a member.
func (s *steward) addAlone(t *testing.T, node string) *wire.ErrorReply {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	before, answer := len(s.ids()), make(chan *wire.ErrorReply, 1)
	go func() { answer <- s.add(ctx, node, 0) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case e := <-answer:
			return e
		case <-tick.C:
			if len(s.ids()) > before {
				cancel()
			}
		}
	}
}

// A member is where gossip has seen it last. Where it was when it joined, another node
// may be by now, and is no new life of it.
func TestJoin_WhereAMemberWasOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		at    string // where gossip has seen the member last, "" if never
		alive bool
		stays bool
	}{
		{"it lives elsewhere", "y:1", true, true},
		{"it is being started again elsewhere", "y:1", false, true},
		{"it was there to the end", "x:1", false, false},
		{"gossip knows nothing of it", "", false, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			s := stewardOf(t, []raft.Server{{ID: stewardB, Address: "x:1", Suffrage: raft.Nonvoter}}, func() []member.NodeView {
				if c.at == "" {
					return nil
				}
				return []member.NodeView{{Peer: member.Peer{Name: "n2", ServerID: stewardB, Address: c.at}, Alive: c.alive}}
			})
			if err := s.join(t.Context(), member.Peer{Name: "n4", ServerID: stewardD, Address: "x:1"}); err != nil {
				t.Fatalf("a new node is kept out: %v", err)
			}
			is := make(map[raft.ServerID]raft.ServerAddress)
			for _, v := range s.g.raft.GetConfiguration().Configuration().Servers {
				is[v.ID] = v.Address
			}
			want := map[raft.ServerID]raft.ServerAddress{stewardA: is[stewardA], stewardD: "x:1"}
			if c.stays {
				want[stewardB] = raft.ServerAddress(c.at)
			}
			if !maps.Equal(is, want) {
				t.Errorf("members %v, want %v", is, want)
			}
		})
	}
}

// Members that have gone from one address to the next are written down from the last on;
// two that have changed places cannot be.
func TestJoin_WhereMembersHaveMovedUp(t *testing.T) {
	t.Parallel()
	const stewardC = raft.ServerID("n3-000000000003")
	for what, c := range map[string]struct {
		b, c string
		says string
	}{
		"one after the other": {"y:1", "z:1", ""},
		"in each other's":     {"y:1", "x:1", "exchanged their addresses"},
		"two in one place":    {"y:1", "y:1", "is there, as far as gossip knows"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := stewardOf(t, []raft.Server{{ID: stewardB, Address: "x:1", Suffrage: raft.Nonvoter}, {ID: stewardC, Address: "y:1", Suffrage: raft.Nonvoter}}, func() []member.NodeView {
				return []member.NodeView{
					{Peer: member.Peer{Name: "n2", ServerID: stewardB, Address: c.b}, Alive: true},
					{Peer: member.Peer{Name: "n3", ServerID: stewardC, Address: c.c}, Alive: true},
				}
			})
			err := s.join(t.Context(), member.Peer{Name: "n4", ServerID: stewardD, Address: "x:1"})
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("join: %v, want %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			is := make(map[raft.ServerID]raft.ServerAddress)
			for _, v := range s.g.raft.GetConfiguration().Configuration().Servers {
				is[v.ID] = v.Address
			}
			want := map[raft.ServerID]raft.ServerAddress{stewardA: is[stewardA], stewardB: "y:1", stewardC: "z:1", stewardD: "x:1"}
			if !maps.Equal(is, want) {
				t.Errorf("members %v, want %v", is, want)
			}
		})
	}
}

// statusOf is a node that tells nothing but its status.
type statusOf wire.NodeStatus

func (h statusOf) Welcome() wire.Welcome              { return wire.Welcome{Node: h.Node} }
func (h statusOf) Connected(*transport.ServerConn)    {}
func (h statusOf) Disconnected(*transport.ServerConn) {}
func (h statusOf) Request(c *transport.ServerConn, corr uint32, op wire.Op, _ []byte) {
	c.Reply(corr, op, encoded(wire.NodeStatus(h)))
}

func serveStatus(t *testing.T, status wire.NodeStatus) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, ended := transport.NewServer(statusOf(status), transport.ServerConfig{}), make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// An operator brings in nobody whom the cluster would refuse if it came by itself.
func TestAdd_AnOlderBuild_IsRefused(t *testing.T) {
	t.Parallel()
	newest := fsm.New(fsm.Config{}, storage.NewMemory()).Version()
	for _, c := range []struct {
		what   string
		status wire.NodeStatus
		says   string // "" if it may come in
	}{
		{"as new as the cluster", wire.NodeStatus{Node: "n4", ServerID: string(stewardD), MachineSupports: newest}, ""},
		{"older", wire.NodeStatus{Node: "n4", ServerID: string(stewardD), MachineSupports: newest - 1}, "start it with a newer build"},
		{"another is there", wire.NodeStatus{Node: "n2", ServerID: string(stewardB), MachineSupports: newest}, "another node answers"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			peer := member.Peer{Name: "n4", ServerID: stewardD, Address: serveStatus(t, c.status)}
			s := stewardOf(t, nil, func() []member.NodeView { return []member.NodeView{{Peer: peer, Alive: true}} })
			e := s.addAlone(t, "n4")
			in := len(s.ids()) == 2
			if in != (c.says == "") {
				t.Errorf("members %v: %v", s.ids(), e)
			}
			if e == nil || !strings.Contains(e.Text, c.says) || c.says != "" && e.Code != wire.CodeMembership {
				t.Errorf("answer %+v, want %q", e, c.says)
			}
		})
	}
}

// What gossip sees changes at any time: who is found is who comes in.
func TestAdd_GossipLooksOnce(t *testing.T) {
	t.Parallel()
	newest := fsm.New(fsm.Config{}, storage.NewMemory()).Version()
	peer := member.Peer{Name: "n4", ServerID: stewardD,
		Address: serveStatus(t, wire.NodeStatus{Node: "n4", ServerID: string(stewardD), MachineSupports: newest})}
	looks := 0
	s := stewardOf(t, nil, func() []member.NodeView {
		if looks++; looks == 2 {
			return nil
		}
		return []member.NodeView{{Peer: member.Peer{Name: "n1", ServerID: stewardA, Address: "a:1"}, Alive: true}, {Peer: peer, Alive: true}}
	})
	e := s.addAlone(t, "n4")
	if ids := s.ids(); len(ids) != 2 || ids[1] != stewardD {
		t.Errorf("members %v: %v", ids, e)
	}
}

// A name may be there twice, as what a node was and what it is; an id is there once.
func TestFind_ByNameOrServerID(t *testing.T) {
	t.Parallel()
	s := stewardOf(t, []raft.Server{
		{ID: stewardB, Address: "x:1", Suffrage: raft.Nonvoter}, {ID: stewardB2, Address: "y:1", Suffrage: raft.Nonvoter},
	}, func() []member.NodeView { return nil })
	for node, want := range map[string]int{"n2": 2, string(stewardB): 1, string(stewardB2): 1, "n1": 1, "n": 0, "bbbbbbbbbbbb": 0} {
		found := s.find(node)
		if len(found) != want || want == 1 && node != "n1" && string(found[0].ID) != node {
			t.Errorf("%s: %v, want %d", node, found, want)
		}
	}
	if e := s.remove(string(stewardB), 0); e != nil {
		t.Fatal(e)
	}
	if ids := s.ids(); len(ids) != 2 || ids[1] != stewardB2 {
		t.Errorf("members %v", ids)
	}
}

// A voter that is elsewhere goes on voting.
func TestJoin_WhereALeaderWasOnce(t *testing.T) {
	t.Parallel()
	s := stewardOf(t, nil, func() []member.NodeView {
		return []member.NodeView{{Peer: member.Peer{Name: "n1", ServerID: stewardA, Address: "y:1"}, Alive: true}}
	})
	was := s.g.raft.GetConfiguration().Configuration().Servers[0].Address
	if err := s.join(t.Context(), member.Peer{Name: "n4", ServerID: stewardD, Address: string(was)}); err != nil {
		t.Fatal(err)
	}
	want := []raft.Server{{ID: stewardA, Address: "y:1"}, {ID: stewardD, Address: was, Suffrage: raft.Nonvoter}}
	if is := s.g.raft.GetConfiguration().Configuration().Servers; !slices.Equal(is, want) {
		t.Errorf("members %+v, want %+v", is, want)
	}
}

// A server that votes counts for the quorum, so it has to have what was committed when
// it came, and to be the one that came: a wiped node at its address is another.
func TestMayVote_OnlyWhoHasCaughtUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		answers string
		applied uint64
		want    bool
	}{
		{"empty", "n4-a", 0, false},
		{"an entry is missing", "n4-a", 99, false},
		{"has all that was committed when it came", "n4-a", 100, true},
		{"another answers at its address", "n4-b", 100, false},
	} {
		err := mayVote("n4-a", wire.NodeStatus{ServerID: c.answers, AppliedIndex: c.applied}, 100)
		if (err == nil) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
