package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
)

const (
	// The address of a leader whose streams have ended is dialed so often, with
	// such pauses: a process that is being torn down listens a little longer than
	// its streams live.
	departureLooks     = 10
	departureLookEvery = 10 * time.Millisecond
	departureLookMax   = 250 * time.Millisecond
	// departureFor is how long what was found out is used. Then an election by
	// silence is under way anyway.
	departureFor = 2 * time.Second
	// The other voters are asked so often: they may notice a moment later, and who
	// comes first must still be asking then.
	successionTries = 50
	successionEvery = 20 * time.Millisecond
	// departuresQueued bounds the streams' ends that wait to be looked at.
	departuresQueued = 16
)

// succession lets the followers elect a leader at once when the process of the
// old one has ended, and not only after its silence has lasted a heartbeat
// timeout and more.
//
// A process that ends leaves a proof: its streams end, and its address refuses
// connections. A machine that is gone, a network that is cut and a process that is
// paused leave none, and stay with raft's time-outs. One node can still be
// deceived, by a firewall that refuses for the leader say, and must not unseat a
// leader that the others hear. So a follower stands only when a majority of
// voters have found the same, which it asks them with raft's own pre-vote; and a
// voter that has found it says yes to at most those whose log is not behind its
// own, ties going to the larger id, so that two do not stand against each other.
// It then makes itself a candidate as if the leader had handed over to it. From
// there on everything is raft's: a vote is given once a term, to a log that is
// not behind. The worst that a mistake can do is an election that nobody needed.
type succession struct {
	g       *group
	streams *member.Streams
	dial    member.DialFunc
	address func(raft.ServerID) (string, bool)
	log     *slog.Logger
	ended   chan raft.ServerID // whose streams have ended

	trans member.GuardedTransport // set before raft runs
	raft  atomic.Pointer[raft.Raft]

	mu   sync.Mutex // guards gone
	gone departure
}

// departure is a leader that this node has found to be gone.
type departure struct {
	leader raft.ServerID
	term   uint64
	until  time.Time
	given  bool // another was told that it may stand
}

func newSuccession(g *group, n *Node, book *member.AddressBook) *succession {
	return &succession{g: g, streams: n.streams, dial: member.DialFunc(n.cfg.Dial), address: book.Address, log: n.log,
		ended: make(chan raft.ServerID, departuresQueued)}
}

// note is told whose streams have ended. It never blocks; one that is dropped
// is left to raft's time-outs.
func (s *succession) note(id raft.ServerID) {
	select {
	case s.ended <- id:
	default:
	}
}

func (s *succession) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		select {
		case id := <-s.ended:
			if term, ok := s.follows(id); ok && s.departed(ctx, id) {
				s.succeed(ctx, id, term, &asking)
			}
		case <-ctx.Done():
			return
		}
	}
}

// follows says whether this node follows id, and in which term.
func (s *succession) follows(id raft.ServerID) (uint64, bool) {
	r := s.raft.Load()
	_, leader := r.LeaderWithID()
	return r.CurrentTerm(), leader == id && id != "" && r.State() == raft.Follower
}

// departed says whether nobody listens where the node was.
func (s *succession) departed(ctx context.Context, id raft.ServerID) bool {
	address, ok := s.address(id)
	if !ok {
		return false
	}
	for range departureLooks {
		looking, cancel := context.WithTimeout(ctx, departureLookMax)
		c, err := s.dial(looking, "tcp", address)
		cancel()
		if errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
		if err == nil {
			c.Close()
		}
		// No answer proves nothing, nor does one: it may come a moment later.
		if !sleep(ctx, departureLookEvery) || s.streams.RaftStreamsFrom(id) > 0 {
			return false
		}
	}
	return false
}

// succeed notes the departure for others that stand, and stands if they let it.
func (s *succession) succeed(ctx context.Context, id raft.ServerID, term uint64, asking *sync.WaitGroup) {
	s.mu.Lock()
	s.gone = departure{leader: id, term: term, until: time.Now().Add(departureFor)}
	s.mu.Unlock()
	s.log.Info("the leader's process has ended", "leader", member.NameOf(id), "term", term)
	voters := s.voters()
	if !slices.ContainsFunc(voters, func(v raft.Server) bool { return v.ID == s.g.id }) {
		return
	}
	for range successionTries {
		if !s.open(id, term) {
			return
		}
		if s.asked(voters, id, term, asking) {
			if !s.open(id, term) {
				return
			}
			s.log.Info("standing for election at once", "term", term+1)
			if err := s.trans.Stand(); err != nil {
				s.log.Debug("stand for election", "error", err)
			}
			return
		}
		if !sleep(ctx, successionEvery) {
			return
		}
	}
}

// open says whether the leader is still missing, and nobody was told to take its
// place.
func (s *succession) open(id raft.ServerID, term uint64) bool {
	now, follows := s.follows(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return follows && now == term && !s.gone.given && s.streams.RaftStreamsFrom(id) == 0
}

// voters are those of the newest configuration.
func (s *succession) voters() []raft.Server { return voters(s.raft.Load()) }

// asked says whether a majority lets this node stand, as far as the other voters
// answer soon.
func (s *succession) asked(voters []raft.Server, leader raft.ServerID, term uint64, asking *sync.WaitGroup) bool {
	pv, ok := s.trans.(raft.WithPreVote)
	index, logTerm, known := s.lastLog()
	if !ok || !known {
		return false
	}
	answers := make(chan bool, len(voters))
	need := len(voters) / 2 // and this node is for itself
	others := 0
	for _, v := range voters {
		if v.ID == s.g.id || v.ID == leader {
			continue
		}
		others++
		asking.Go(func() {
			req := &raft.RequestPreVoteRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(s.g.id),
					Addr: s.trans.EncodePeer(s.g.id, s.trans.LocalAddr())},
				Term: term + 1, LastLogIndex: index, LastLogTerm: logTerm,
			}
			var resp raft.RequestPreVoteResponse
			err := pv.RequestPreVote(v.ID, v.Address, req, &resp)
			answers <- err == nil && resp.Granted
		})
	}
	late := time.NewTimer(departureLookMax)
	defer late.Stop()
	for need > 0 && others >= need {
		select {
		case yes := <-answers:
			others--
			if yes {
				need--
			}
		case <-late.C:
			return false
		}
	}
	return need <= 0
}

// succeeds says whether another may stand: this node has found the same leader
// gone, and its own log does not come first.
func (s *succession) succeeds(req *raft.RequestPreVoteRequest) bool {
	if s.raft.Load() == nil {
		return false
	}
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	id := raft.ServerID(req.ID)
	if gone.leader == "" || id == gone.leader || req.Term != gone.term+1 || time.Now().After(gone.until) {
		return false
	}
	if !s.sameDeparture(gone) || !slices.ContainsFunc(s.voters(), func(v raft.Server) bool { return v.ID == id }) {
		return false
	}
	index, term, known := s.lastLog()
	if !known || !notBehind(req, index, term, s.g.id) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone.leader != gone.leader || s.gone.term != gone.term {
		return false
	}
	s.gone.given = true
	return true
}

func (s *succession) sameDeparture(gone departure) bool {
	term, follows := s.follows(gone.leader)
	return follows && term == gone.term && s.streams.RaftStreamsFrom(gone.leader) == 0
}

// notBehind orders those who would stand by their logs, and equal ones by id.
func notBehind(req *raft.RequestPreVoteRequest, index, term uint64, own raft.ServerID) bool {
	if req.LastLogTerm != term {
		return req.LastLogTerm > term
	}
	if req.LastLogIndex != index {
		return req.LastLogIndex > index
	}
	return strings.Compare(string(req.ID), string(own)) > 0
}

// lastLog is where this node's log ends.
func (s *succession) lastLog() (index, term uint64, known bool) {
	var l raft.Log
	index = s.raft.Load().LastIndex()
	if index == 0 || s.g.store.GetLog(index, &l) != nil {
		return 0, 0, false
	}
	return index, l.Term, true
}

// sleep is false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
