package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
	"onceq/transport/wire"
)

const (
	// drainMax is how long in-flight requests may take to end before a
	// leadership is handed over; what is left ends as unknown.
	drainMax = time.Second
	// promoteMax bounds how long a client waits for a promotion.
	promoteMax = 60 * time.Second
)

func errMembership(format string, args ...any) *wire.ErrorReply {
	return &wire.ErrorReply{Code: wire.CodeMembership, Text: fmt.Sprintf(format, args...)}
}

// members is raft's configuration with what gossip knows of each member.
func (s *steward) members() wire.Members {
	_, leader := s.g.raft.LeaderWithID()
	c := s.g.raft.GetConfiguration()
	m := wire.Members{Leader: member.NameOf(leader), Index: c.Index()}
	alive := s.alive()
	for _, v := range c.Configuration().Servers {
		m.Members = append(m.Members, wire.Member{
			Node: member.NameOf(v.ID), ServerID: string(v.ID), Address: s.addressOf(v),
			Voter: v.Suffrage == raft.Voter, Alive: alive[v.ID], Leader: v.ID == leader,
		})
	}
	return m
}

// find returns the servers of a node's name in the configuration, or the one whose
// id this is.
func (s *steward) find(node string) (found []raft.Server) {
	for _, v := range s.g.raft.GetConfiguration().Configuration().Servers {
		if string(v.ID) == node {
			return []raft.Server{v}
		}
		if member.NameOf(v.ID) == node {
			found = append(found, v)
		}
	}
	return found
}

// add brings a node in that gossip knows, and waits until it is a voter.
func (s *steward) add(ctx context.Context, node string, seen uint64) *wire.ErrorReply {
	if !s.g.lead.serving() {
		return s.g.refusal()
	}
	found := s.find(node)
	if len(found) == 0 {
		if refused := s.changedSince(seen); refused != nil {
			return refused
		}
		p, refused := s.newcomer(ctx, node)
		if refused != nil {
			return refused
		}
		if err := s.join(ctx, p); err != nil {
			return s.changeFailed(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, promoteMax)
	defer cancel()
	timer := time.NewTicker(stewardRetry)
	defer timer.Stop()
	for {
		for _, v := range s.find(node) {
			if v.Suffrage == raft.Voter {
				return nil
			}
		}
		s.poke()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return errMembership("node %q has joined and has not caught up yet; the leader promotes it when it has", node)
		}
		if !s.g.lead.serving() {
			return s.g.refusal()
		}
	}
}

// newcomer returns a node that gossip knows and that may come in: it has to know as
// new a machine as the cluster has, like one that asks to be taken in.
func (s *steward) newcomer(ctx context.Context, node string) (member.Peer, *wire.ErrorReply) {
	nodes := s.nodes() // once: gossip may know others a moment later
	i := slices.IndexFunc(nodes, func(v member.NodeView) bool { return v.Name == node && v.Alive })
	if i < 0 {
		return member.Peer{}, &wire.ErrorReply{Code: wire.CodeNoNode, Text: fmt.Sprintf("no node %q: it is neither a member nor seen by gossip", node)}
	}
	p := nodes[i].Peer
	status, err := s.ask(ctx, p.Address)
	if err == nil && status.ServerID != string(p.ServerID) {
		err = fmt.Errorf("another node answers at %s", p.Address)
	}
	if err != nil {
		return p, errMembership("node %q has not said what it can apply: %v", node, err)
	}
	if err := s.g.version.takes(member.JoinRequest{Peer: p, Machine: status.MachineSupports}); err != nil {
		return p, errMembership("%v", err)
	}
	return p, nil
}

// remove takes a node out of the cluster.
func (s *steward) remove(node string, seen uint64) *wire.ErrorReply {
	if !s.g.lead.serving() {
		return s.g.refusal()
	}
	release, ok := s.acquireSoon()
	if !ok {
		return errMembership("another change of the membership is under way")
	}
	defer release()
	found := s.find(node)
	if len(found) == 0 {
		return &wire.ErrorReply{Code: wire.CodeNoNode, Text: fmt.Sprintf("no member %q", node)}
	}
	if refused := s.changedSince(seen); refused != nil {
		return refused
	}
	for _, v := range found {
		if v.ID == s.g.id && !s.g.otherVoters() {
			return errMembership("node %q is the only member that votes, so it stays: what is in the cluster is on it alone; add another first", node)
		}
		if v.ID == s.g.id {
			// The next leader removes this node: a leader that removes itself
			// would commit by the votes of the others and be gone in the middle
			// of answering.
			if err := s.g.handOver("", ""); err != nil {
				return errMembership("node %q leads, and handing over failed: %v", node, err)
			}
			return s.g.refusal()
		}
		if err := s.removeServer(v.ID); err != nil {
			return s.changeFailed(err)
		}
		s.g.log.Info("removed", "server", v.ID)
	}
	return nil
}

// changedSince refuses a change whose sender has seen other members than there are:
// it may be a late copy.
func (s *steward) changedSince(seen uint64) *wire.ErrorReply {
	if now := s.g.raft.GetConfiguration().Index(); seen != 0 && seen != now {
		return errMembership("the members have changed since they were looked at: look again")
	}
	return nil
}

// transfer hands the leadership to a node, "" lets raft choose.
func (s *steward) transfer(node string) *wire.ErrorReply {
	if !s.g.lead.serving() {
		return s.g.refusal()
	}
	release, ok := s.acquireSoon()
	if !ok {
		return errMembership("a change of the membership is under way")
	}
	defer release()
	var id raft.ServerID
	var address raft.ServerAddress
	if node != "" {
		if node == s.g.node || node == string(s.g.id) {
			return nil
		}
		for _, v := range s.find(node) {
			if v.Suffrage == raft.Voter {
				id, address = v.ID, v.Address
			}
		}
		if id == "" {
			return &wire.ErrorReply{Code: wire.CodeNoNode, Text: fmt.Sprintf("no voting member %q", node)}
		}
		if !s.alive()[id] {
			return errMembership("node %q does not answer", node)
		}
	}
	if !s.g.otherVoters() {
		return errMembership("node %q is the only member that votes: there is nobody to hand over to", s.g.node)
	}
	if err := s.g.handOver(id, address); err != nil {
		return errMembership("transfer: %v", err)
	}
	return nil
}

func (s *steward) changeFailed(err error) *wire.ErrorReply {
	switch {
	case errors.Is(err, errUnsafe):
		return errMembership("refused: %v", err)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return s.g.refusal()
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return errUnknown(err.Error())
	default:
		return errMembership("%v", err)
	}
}

// handOver ends this node's leadership in order: no new requests, what is in
// flight ends (drainMax), a last stamp so that no time is lost, then the
// transfer. A transfer that fails resumes service. "" lets raft choose.
func (g *group) handOver(id raft.ServerID, address raft.ServerAddress) error {
	g.drain()
	var f raft.Future
	if id == "" {
		f = g.raft.LeadershipTransfer()
	} else {
		f = g.raft.LeadershipTransferToServer(id, address)
	}
	if err := bound(f, g.ended).Error(); err != nil {
		g.proposer.resume()
		return err
	}
	return nil
}

// otherVoters says whether there is anybody to hand over to.
func (g *group) otherVoters() bool {
	return slices.ContainsFunc(g.raft.GetConfiguration().Configuration().Servers,
		func(v raft.Server) bool { return v.ID != g.id && v.Suffrage == raft.Voter })
}

// drain lets what is in flight end, and then stamps the log a last time.
func (g *group) drain() {
	timer := time.NewTimer(g.drainMax)
	defer timer.Stop()
	select {
	case <-g.proposer.drain():
	case <-timer.C:
		return
	}
	g.proposer.stamp()
	select {
	case <-g.proposer.drain():
	case <-timer.C:
	}
}
