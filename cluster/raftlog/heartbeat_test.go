package raftlog

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// willing is a transport whose peers grant every vote and take every entry, with the fast path of raft's NetworkTransport.
type willing struct {
	heartbeats
	in chan raft.RPC
}

func (w *willing) Consumer() <-chan raft.RPC { return w.in }

func (w *willing) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (w *willing) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	*resp = raft.AppendEntriesResponse{Term: req.Term, Success: true, LastLog: req.PrevLogEntry + uint64(len(req.Entries))}
	return nil
}

func (w *willing) RequestVote(_ raft.ServerID, _ raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	*resp = raft.RequestVoteResponse{Term: req.Term, Granted: true}
	return nil
}

// beat sends a heartbeat of b's, and returns where the answer comes.
func (w *willing) beat(term uint64) <-chan raft.RPCResponse {
	answer := make(chan raft.RPCResponse, 1)
	req := request(0, 0, term)
	req.ID, req.Addr = []byte("b"), []byte("b")
	go w.cb(raft.RPC{Command: req, RespChan: answer})
	return answer
}

type committedFSM struct {
	*listFSM
	store *Store
}

func (f committedFSM) Apply(l *raft.Log) any { return f.store.Committed(l.Index) }

// willingLeader leads two peers that agree with everything, from a disk that stands still when let is set.
func willingLeader(t *testing.T) (r *raft.Raft, s *Store, w *willing, disk *faulty, end func()) {
	t.Helper()
	f := &fatals{}
	disk = &faulty{InmemStore: raft.NewInmemStore()}
	s = Wrap(disk, disk, Options{Logger: quiet, Fatal: f.record, Parallel: true, AppendTimeout: time.Hour})
	snaps, err := s.WrapSnapshots(NewMemorySnapshots())
	if err != nil {
		t.Fatal(err)
	}
	_, inner := raft.NewInmemTransport("a")
	w = &willing{heartbeats{Transport: inner}, make(chan raft.RPC)}
	trans := s.Guard(w)
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "a", hclog.NewNullLogger()
	if err := raft.BootstrapCluster(conf, s, s, snaps, trans, raft.Configuration{Servers: servers("a", "b", "c")()}); err != nil {
		t.Fatal(err)
	}
	if r, err = raft.NewRaft(conf, committedFSM{&listFSM{}, s}, s, s, snaps, trans); err != nil {
		t.Fatal(err)
	}
	for r.State() != raft.Leader {
		time.Sleep(10 * time.Millisecond)
	}
	if err := r.Barrier(0).Error(); err != nil {
		t.Fatal(err)
	}
	return r, s, w, disk, func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		f.wantNone(t)
		time.Sleep(time.Minute) // raft's timers
	}
}

// A leader whose disk stands still hears of the next term, and is asked for its vote in the one after. On raft's fast path the former would
// wait for the disk beside the latter, and take it back: the node has voted in a term, and takes entries of the one before.
func TestHeartbeat_OfAHigherTerm_TheTermNeverGoesBack(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			r, _, w, disk, end := willingLeader(t)
			term := r.CurrentTerm()
			disk.hang = make(chan struct{})
			r.Apply([]byte("x"), 0)
			synctest.Wait()
			beat := w.beat(term + 1)
			time.Sleep(time.Second)
			vote := make(chan raft.RPCResponse, 1)
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				w.in <- raft.RPC{Command: &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("c"), Addr: []byte("c")},
					Term: term + 2, LastLogIndex: 100, LastLogTerm: term + 1}, RespChan: vote}
			}()
			synctest.Wait()
			close(disk.hang)
			<-asked
			granted := (<-vote).Response.(*raft.RequestVoteResponse).Granted // not if the heartbeat came first
			<-beat
			if now := r.CurrentTerm(); granted && now < term+2 {
				t.Errorf("voted in term %d, and in term %d", term+2, now)
			}
			end()
		})
	}
}

// On the fast path raft takes the new term beside its main loop, which goes on to append in it: an entry of another's term.
func TestHeartbeat_OfAHigherTerm_NothingIsAppendedInThatTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s, w, _, end := willingLeader(t)
		term := r.CurrentTerm()
		<-w.beat(term + 1)
		_ = r.Apply([]byte("x"), 0).Error()
		var l raft.Log
		if err := s.GetLog(r.LastIndex(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Term > term {
			t.Errorf("entry %d is of term %d, which another leads", l.Index, l.Term)
		}
		end()
	})
}

// A node that was started again in its term has the fast path at once.
func TestHeartbeat_AfterARestart_TakesTheFastPath(t *testing.T) {
	mem := raft.NewInmemStore()
	s := Wrap(mem, mem, Options{Logger: quiet})
	if err := s.SetUint64([]byte(raftCurrentTerm), 7); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = Wrap(mem, mem, Options{Logger: quiet})
	defer s.Close()
	if term, err := s.GetUint64([]byte(raftCurrentTerm)); err != nil || term != 7 || s.term.Load() != 7 {
		t.Errorf("term %d, %v; heartbeats of term %d are taken", term, err, s.term.Load())
	}
}

// A heartbeat of a candidate's own term makes it a follower, on raft's fast path, and writes that term once more: never behind the next one.
func TestHeartbeat_OfTheTermOfACandidate_IsOverBeforeTheNextTerm(t *testing.T) {
	t.Parallel()
	f := &fatals{}
	mem := raft.NewInmemStore()
	s := Wrap(mem, mem, Options{Logger: quiet, Fatal: f.record})
	defer s.Close()
	_, inner := raft.NewInmemTransport("a")
	w := &willing{heartbeats{Transport: inner}, make(chan raft.RPC)}
	trans := s.Guard(w)
	defer trans.(raft.WithClose).Close()
	set := func(term uint64) {
		if err := s.SetUint64([]byte(raftCurrentTerm), term); err != nil {
			t.Error(err)
		}
	}
	set(5)
	risen := make(chan struct{})
	trans.SetHeartbeatHandler(func(rpc raft.RPC) {
		go func() {
			defer close(risen)
			set(6)
		}()
		time.Sleep(50 * time.Millisecond) // it has time to, were it not to wait
		if term := s.term.Load(); term != 5 {
			t.Errorf("in term %d while a heartbeat of 5 is in raft", term)
		}
		set(5)
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	})
	<-w.beat(5)
	<-risen
	if term, err := s.GetUint64([]byte(raftCurrentTerm)); term != 6 || err != nil {
		t.Errorf("term %d, %v", term, err)
	}
	f.wantNone(t)
	if err := s.SetUint64([]byte(raftCurrentTerm), 5); err == nil {
		t.Error("the term went back")
	}
}
