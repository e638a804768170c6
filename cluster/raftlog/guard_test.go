package raftlog

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

func request(prev, prevTerm, term uint64, logs ...*raft.Log) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("a"), Addr: []byte("a")},
		Term:         term,
		PrevLogEntry: prev,
		PrevLogTerm:  prevTerm,
		Entries:      logs,
	}
}

func TestCheckAppend(t *testing.T) {
	flipped := sealed(6, 2, "x")
	flipped.Term ^= 1
	for _, c := range []struct {
		name string
		req  *raft.AppendEntriesRequest
		want error
	}{
		{"heartbeat", request(0, 0, 2), nil},
		{"nothing new", request(5, 2, 2), nil},
		{"good", request(4, 2, 2, sealed(5, 2, "x"), sealed(6, 2, "y")), nil},
		{"older entries from a newer leader", request(0, 0, 9, sealed(1, 1, "x"), sealed(2, 4, "y")), nil},
		{"no checksum", request(4, 2, 2, sealed(5, 2, "x"), own(6, 2, "y")), ErrNoChecksum},
		{"flipped term", request(5, 2, 9, flipped), ErrChecksum},
		{"gap", request(4, 2, 2, sealed(5, 2, "x"), sealed(7, 2, "y")), ErrBadAppend},
		{"not behind the previous entry", request(4, 2, 2, sealed(6, 2, "x")), ErrBadAppend},
		{"from the future", request(4, 2, 2, sealed(5, 3, "x")), ErrBadAppend},
		{"no entry", request(4, 2, 2, nil), ErrBadAppend},
		{"too large", request(4, 2, 2, sealed(5, 2, string(make([]byte, EntryBytesMax)))), ErrEntryTooLarge},
	} {
		if err := checkAppend(c.req); !errors.Is(err, c.want) || (c.want == nil && err != nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A bit of an entry's term is flipped on the way to a follower that has that entry already. raft takes it for a conflict, deletes
// what it has acknowledged, and only then stores, or refuses to.
func TestGuard_FlippedTerm_DoesNotCostTheAcknowledgedSuffix(t *testing.T) {
	for _, guarded := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := startNode(t, "c", newDisk(), nodeOptions{bare: !guarded})
			_, peer := raft.NewInmemTransport("a")
			peer.Connect("c", n.link)
			send := func(req *raft.AppendEntriesRequest) (raft.AppendEntriesResponse, error) {
				var resp raft.AppendEntriesResponse
				err := peer.AppendEntries("c", "c", req, &resp)
				return resp, err
			}
			var logs []*raft.Log
			for i := uint64(1); i <= 10; i++ {
				logs = append(logs, sealed(i, 1, "acknowledged"))
			}
			if resp, err := send(request(0, 0, 5, logs...)); err != nil || !resp.Success {
				t.Fatalf("good entries: %+v, %v", resp, err)
			}
			bad := sealed(5, 1, "acknowledged")
			bad.Term ^= 4 // 5, which is not from the future
			resp, err := send(request(4, 1, 5, bad))
			last, lerr := n.disk.mem.LastIndex()
			if lerr != nil {
				t.Fatal(lerr)
			}
			if guarded {
				if !errors.Is(err, ErrChecksum) || last != 10 || n.store.Refused() != 1 {
					t.Errorf("with the guard: %+v, %v, log ends at %d, %d refused", resp, err, last, n.store.Refused())
				}
				if resp, err := send(request(10, 1, 5, sealed(11, 5, "next"))); err != nil || !resp.Success {
					t.Errorf("the follower does not go on: %+v, %v", resp, err)
				}
				n.fatals.wantNone(t)
			} else if last != 5 {
				t.Errorf("without the guard the log ends at %d: this variant must show the damage", last)
			}
			n.stop(t)
			peer.Close()
		})
	}
}

// The entries of a pipeline are refused without ending the sender.
func TestGuard_PipelinedRequest_IsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, "c", newDisk(), nodeOptions{})
		_, peer := raft.NewInmemTransport("a")
		peer.Connect("c", n.link)
		pipe, err := peer.AppendEntriesPipeline("c", "c")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pipe.AppendEntries(request(0, 0, 1, own(1, 1, "no checksum")), &raft.AppendEntriesResponse{}); err != nil {
			t.Fatal(err)
		}
		if f := <-pipe.Consumer(); !errors.Is(f.Error(), ErrNoChecksum) || f.Response().Success {
			t.Errorf("answered %+v, %v", f.Response(), f.Error())
		}
		pipe.Close()
		n.stop(t)
		peer.Close()
	})
}

// heartbeats is a transport with a fast path for heartbeats.
type heartbeats struct {
	raft.Transport
	cb func(raft.RPC)
}

func (h *heartbeats) SetHeartbeatHandler(cb func(raft.RPC)) { h.cb = cb }

func TestGuard_HeartbeatFastPath(t *testing.T) {
	_, inner := raft.NewInmemTransport("c")
	fast, mem := &heartbeats{Transport: inner}, raft.NewInmemStore()
	s := Wrap(mem, mem, Options{Logger: quiet})
	defer s.Close()
	if err := s.SetUint64([]byte(raftCurrentTerm), 1); err != nil {
		t.Fatal(err)
	}
	g := s.Guard(fast)
	defer g.(raft.WithClose).Close()
	seen := 0
	g.SetHeartbeatHandler(func(raft.RPC) { seen++ })
	answers := make(chan raft.RPCResponse, 1)
	fast.cb(raft.RPC{Command: request(0, 0, 1), RespChan: answers})
	if seen != 1 {
		t.Fatal("a heartbeat was held up")
	}
	fast.cb(raft.RPC{Command: request(0, 0, 1, own(1, 1, "no checksum")), RespChan: answers})
	if a := <-answers; seen != 1 || !errors.Is(a.Error, ErrNoChecksum) {
		t.Fatalf("entries slipped past the guard: %d, %v", seen, a.Error)
	}
	for _, term := range []uint64{2, 0} { // raft's main loop has to see them
		go fast.cb(raft.RPC{Command: request(0, 0, term), RespChan: answers})
		if rpc := <-g.Consumer(); seen != 1 || rpc.Command.(*raft.AppendEntriesRequest).Term != term {
			t.Fatalf("a heartbeat of term %d: %d on the fast path, %+v on the other", term, seen, rpc.Command)
		}
	}
	g.SetHeartbeatHandler(nil)
	if fast.cb != nil {
		t.Fatal("the handler was not taken away")
	}
}

// plain hides everything optional of a transport.
type plain struct{ raft.Transport }

func TestWrappers_ForwardTheOptionalInterfaces(t *testing.T) {
	mem := raft.NewInmemStore()
	s := Wrap(mem, mem, Options{Logger: quiet})
	defer s.Close()
	for name, wrap := range map[string]func(raft.Transport) raft.Transport{
		"Guard":         s.Guard,
		"WatchInstalls": func(t raft.Transport) raft.Transport { return WatchInstalls(t, func(RepeatedInstall) {}) },
		"both": func(t raft.Transport) raft.Transport {
			return WatchInstalls(s.Guard(t), func(RepeatedInstall) {})
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, a := raft.NewInmemTransport("a")
			_, b := raft.NewInmemTransport("b")
			defer b.Close()
			wrapped := wrap(a)
			if _, ok := wrapped.(raft.LoopbackTransport); !ok {
				t.Fatal("pre-vote, peers or Close got lost")
			}
			wb := wrap(b)
			wrapped.(raft.WithPeers).Connect("b", wb) // the loopback transport accepts its own kind only
			go func() {
				rpc := <-wb.Consumer()
				rpc.Respond(&raft.RequestPreVoteResponse{Granted: true}, nil)
			}()
			var resp raft.RequestPreVoteResponse
			if err := wrapped.(raft.WithPreVote).RequestPreVote("b", "b", &raft.RequestPreVoteRequest{}, &resp); err != nil || !resp.Granted {
				t.Fatalf("pre-vote: %+v, %v", resp, err)
			}
			wrapped.(raft.WithPeers).Disconnect("b")
			if err := wrapped.(raft.WithPreVote).RequestPreVote("b", "b", &raft.RequestPreVoteRequest{}, &resp); err == nil {
				t.Fatal("Disconnect was not passed on")
			}
			wrapped.(raft.WithPeers).DisconnectAll()
			for _, w := range []raft.Transport{wrapped, wrapped, wb} {
				if err := w.(raft.WithClose).Close(); err != nil {
					t.Fatal(err)
				}
			}
			without := wrap(plain{a})
			if _, ok := without.(raft.WithPreVote); ok {
				t.Fatal("raft would take pre-vote for promised")
			}
			without.(raft.WithClose).Close()
		})
	}
}

// installing answers InstallSnapshot as it is told.
type installing struct {
	raft.Transport
	success bool
	err     error
}

func (i *installing) InstallSnapshot(_ raft.ServerID, _ raft.ServerAddress, _ *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, _ io.Reader) error {
	resp.Success = i.success
	return i.err
}

func TestWatchInstalls_ReportsRepetitions(t *testing.T) {
	_, inner := raft.NewInmemTransport("a")
	defer inner.Close()
	link := &installing{Transport: inner}
	var got []RepeatedInstall
	w := WatchInstalls(link, func(r RepeatedInstall) { got = append(got, r) })
	send := func(peer raft.ServerID, index uint64, success bool, err error) {
		link.success, link.err = success, err
		var resp raft.InstallSnapshotResponse
		if e := w.InstallSnapshot(peer, "x", &raft.InstallSnapshotRequest{LastLogIndex: index, LastLogTerm: 3}, &resp, nil); !errors.Is(e, err) || resp.Success != success {
			t.Fatalf("passed on %v, %v", resp, e)
		}
	}
	send("b", 10, true, nil)
	send("c", 10, false, errDisk)
	send("b", 20, true, nil)
	if len(got) != 0 {
		t.Fatalf("reported %+v", got)
	}
	send("b", 20, true, nil)
	send("c", 10, true, nil)
	send("c", 10, true, nil)
	want := []RepeatedInstall{
		{Peer: "b", Index: 20, Term: 3, Installs: 2, Succeeded: 1},
		{Peer: "c", Index: 10, Term: 3, Installs: 2, Succeeded: 0},
		{Peer: "c", Index: 10, Term: 3, Installs: 3, Succeeded: 1},
	}
	if len(got) != len(want) {
		t.Fatalf("reported %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("reported %+v, want %+v", got[i], want[i])
		}
	}
	for i := range 3 * watchedPeersMax {
		send(raft.ServerID(rune(0x1000+i)), 1, true, nil)
	}
	if n := len(innermostInstalls(w).peers); n > watchedPeersMax {
		t.Errorf("remembers %d peers", n)
	}
}

func innermostInstalls(t raft.Transport) *installs {
	for {
		switch w := t.(type) {
		case *installs:
			return w
		case withPreVote:
			t = w.wrapper
		}
	}
}

// A heartbeat of a higher term that raft is at when the node ends would find its
// stable store closed, and raft panics when it cannot keep a term.
func TestGuard_Close_WaitsForTheHeartbeatInRaftAndLetsNoneInAfterwards(t *testing.T) {
	_, inner := raft.NewInmemTransport("d")
	fast, mem := &heartbeats{Transport: inner}, raft.NewInmemStore()
	s := Wrap(mem, mem, Options{Logger: quiet})
	defer s.Close()
	if err := s.SetUint64([]byte(raftCurrentTerm), 1); err != nil {
		t.Fatal(err)
	}
	g := s.Guard(fast)
	inside, leave := make(chan struct{}), make(chan struct{})
	g.SetHeartbeatHandler(func(raft.RPC) {
		close(inside)
		<-leave
	})
	go fast.cb(raft.RPC{Command: request(0, 0, 1), RespChan: make(chan raft.RPCResponse, 1)})
	<-inside
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		g.(raft.WithClose).Close()
	}()
	select {
	case <-closed:
		t.Fatal("closed while a heartbeat is in raft")
	default:
	}
	close(leave)
	<-closed
	answers := make(chan raft.RPCResponse, 1)
	fast.cb(raft.RPC{Command: request(0, 0, 1), RespChan: answers})
	if a := <-answers; !errors.Is(a.Error, raft.ErrTransportShutdown) {
		t.Fatalf("answer after the end: %v", a.Error)
	}
}
