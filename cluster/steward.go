package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
	"onceq/transport"
	"onceq/transport/wire"
)

const (
	// stewardRetry is how soon the steward looks again at members that are not
	// where they should be.
	stewardRetry = 250 * time.Millisecond
	// configTimeout bounds how long a change of the configuration waits to be
	// started.
	configTimeout = 10 * time.Second
	// peerStatusTimeout bounds asking another node how far it has applied.
	peerStatusTimeout = 2 * time.Second
	// acquireBound is how long an operator's request waits for another change to end.
	acquireBound = 5 * time.Second
)

// steward looks after the membership while this node leads: it promotes nodes
// that joined as non-voters when they have caught up, and removes the old self
// of a node that was wiped. Changes are made one at a time and only if the
// members that would remain have a living quorum.
type steward struct {
	g     *group
	nodes func() []member.NodeView
	dial  member.DialFunc
	wake  chan struct{} // cap 1
	busy  chan struct{} // cap 1: held by whoever changes the configuration

	// came is, for each non-voter, the commit index when it was first seen by
	// this leader. Owned by run.
	came map[raft.ServerID]uint64
	// raiseAt is when to look at the members' versions again. Owned by run.
	raiseAt time.Duration
}

func newSteward(g *group, dial member.DialFunc, nodes func() []member.NodeView) *steward {
	return &steward{g: g, nodes: nodes, dial: dial, wake: make(chan struct{}, 1),
		busy: make(chan struct{}, 1), came: make(map[raft.ServerID]uint64)}
}

func (s *steward) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run looks after the members until ctx ends.
func (s *steward) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	timer.Stop()
	for {
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if !s.g.lead.serving() {
			clear(s.came)
			timer.Stop()
			continue
		}
		if s.look(ctx) {
			timer.Reset(stewardRetry)
		}
	}
}

// look does what is due and says whether something is left to do.
func (s *steward) look(ctx context.Context) (again bool) {
	servers := s.g.raft.GetConfiguration().Configuration().Servers
	present := make(map[raft.ServerID]bool)
	for _, v := range servers {
		if v.Suffrage == raft.Voter {
			continue
		}
		present[v.ID] = true
		if _, ok := s.came[v.ID]; !ok {
			s.came[v.ID] = s.g.raft.CommitIndex()
		}
		if err := s.promote(ctx, v); err != nil {
			s.g.log.Debug("promote", "server", v.ID, "error", err)
			again = true
		}
	}
	for id := range s.came {
		if !present[id] {
			delete(s.came, id)
		}
	}
	return s.raise(ctx) || again
}

// promote makes a non-voter a voter when it has applied what was committed when
// it came. Before that it would count for the quorum without being able to
// help it.
func (s *steward) promote(ctx context.Context, v raft.Server) error {
	status, err := s.ask(ctx, s.addressOf(v))
	if err != nil {
		return fmt.Errorf("ask node: %w", err)
	}
	if err := mayVote(v.ID, status, s.came[v.ID]); err != nil {
		return err
	}
	release, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	c := s.g.raft.GetConfiguration()
	if err := c.Error(); err != nil {
		return err
	}
	// The configuration may have changed since it was looked at; adding a voter
	// that was just removed would bring it back.
	for _, now := range c.Configuration().Servers {
		if now.ID == v.ID && now.Suffrage != raft.Voter {
			f := bound(s.g.raft.AddVoter(v.ID, now.Address, c.Index(), configTimeout), s.g.ended)
			if err := f.Error(); err != nil {
				return fmt.Errorf("add voter: %w", err)
			}
			s.g.log.Info("promoted to voter", "server", v.ID)
		}
	}
	return nil
}

// mayVote says what keeps a server from a vote, by what answers at its address; came
// is what was committed when the server was first seen.
func mayVote(id raft.ServerID, status wire.NodeStatus, came uint64) error {
	if status.ServerID != string(id) {
		return fmt.Errorf("another node answers: %s", status.ServerID)
	}
	if status.AppliedIndex < came {
		return fmt.Errorf("has applied %d of %d", status.AppliedIndex, came)
	}
	return nil
}

// retireOldSelf removes what a node was before it was wiped: it comes back under
// a new id, at the same address or another, and the old id will never answer
// again. A member that has only been at the address once stays, and is written
// down where it is now. Called with busy held.
func (s *steward) retireOldSelf(p member.Peer) error {
	alive := s.alive()
	for _, old := range s.g.raft.GetConfiguration().Configuration().Servers {
		if old.ID == p.ServerID {
			continue
		}
		at := s.addressOf(old)
		if member.NameOf(old.ID) != p.Name && at != p.Address {
			if string(old.Address) == p.Address {
				if err := s.moved(old.ID, at, 0); err != nil {
					return fmt.Errorf("note that %s, which was at %s once, is at %s: %w", old.ID, p.Address, at, err)
				}
			}
			continue
		}
		if alive[old.ID] {
			// Two nodes with one name, or gossip has not noticed the end yet.
			return fmt.Errorf("server %s of that name or address is alive, as far as gossip knows", old.ID)
		}
		if err := s.removeServer(old.ID); err != nil {
			return fmt.Errorf("remove %s, which %s replaces: %w", old.ID, p.ServerID, err)
		}
		s.g.log.Info("removed the old self of a node that came back empty", "server", old.ID, "now", p.ServerID)
	}
	return nil
}

// moved changes a member's address in the configuration, in which raft takes no two
// members of one address: who was there before is written down where it is now first.
// Whether they vote stays as it is. Called with busy held.
func (s *steward) moved(id raft.ServerID, address string, hops int) error {
	c := s.g.raft.GetConfiguration()
	if err := c.Error(); err != nil {
		return err
	}
	servers := c.Configuration().Servers
	if !slices.ContainsFunc(servers, func(v raft.Server) bool { return v.ID == id }) {
		return nil // removed meanwhile, and not to be brought in by this
	}
	for _, other := range servers {
		if other.ID == id || string(other.Address) != address {
			continue
		}
		switch at := s.addressOf(other); {
		case at == address:
			return fmt.Errorf("%s is there, as far as gossip knows", other.ID)
		case hops >= len(servers):
			return fmt.Errorf("members have exchanged their addresses: start %s at another one", other.ID)
		default:
			if err := s.moved(other.ID, at, hops+1); err != nil {
				return fmt.Errorf("%s, which was there, is at %s: %w", other.ID, at, err)
			}
		}
	}
	if c = s.g.raft.GetConfiguration(); c.Error() != nil {
		return c.Error()
	}
	f := bound(s.g.raft.AddNonvoter(id, raft.ServerAddress(address), c.Index(), configTimeout), s.g.ended)
	if err := f.Error(); err != nil {
		return err
	}
	s.g.log.Info("a member is elsewhere now", "server", id, "address", address)
	return nil
}

// errUnsafe is returned for a change that would leave less than a quorum alive.
var errUnsafe = errors.New("the members that remain would have no living quorum")

// removeServer removes a server if a quorum of the rest is alive. Called with
// busy held.
func (s *steward) removeServer(id raft.ServerID) error {
	c := s.g.raft.GetConfiguration()
	if err := c.Error(); err != nil {
		return err
	}
	var remain []raft.Server
	for _, v := range c.Configuration().Servers {
		if v.ID != id && v.Suffrage == raft.Voter {
			remain = append(remain, v)
		}
	}
	living := s.living(remain)
	if voters := len(remain); voters == 0 || living < voters/2+1 {
		return fmt.Errorf("%w: %d of %d alive", errUnsafe, living, voters)
	}
	f := bound(s.g.raft.RemoveServer(id, c.Index(), configTimeout), s.g.ended)
	return f.Error()
}

// living counts those of servers that answer now, this one included. Gossip notices an
// end seconds after it, and a removal in between leaves too few: the configuration holds
// when it is appended, and who is gone is then needed to elect anybody.
func (s *steward) living(servers []raft.Server) (n int) {
	ctx, cancel := context.WithTimeout(context.Background(), peerStatusTimeout)
	defer cancel()
	answers := make(chan bool)
	for _, v := range servers {
		go func() {
			if v.ID == s.g.id {
				answers <- true
				return
			}
			status, err := s.ask(ctx, s.addressOf(v))
			answers <- err == nil && status.ServerID == string(v.ID)
		}()
	}
	for range servers {
		if <-answers {
			n++
		}
	}
	return n
}

// join takes a new node in as non-voter. It may be asked again by the same node.
func (s *steward) join(ctx context.Context, p member.Peer) error {
	release, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	c := s.g.raft.GetConfiguration()
	if err := c.Error(); err != nil {
		return err
	}
	for _, v := range c.Configuration().Servers {
		if v.ID == p.ServerID {
			return nil
		}
	}
	if err := s.retireOldSelf(p); err != nil {
		return err
	}
	if c = s.g.raft.GetConfiguration(); c.Error() != nil {
		return c.Error()
	}
	if n := len(c.Configuration().Servers); n >= membersMax {
		return fmt.Errorf("the cluster has %d members, at most %d", n, membersMax)
	}
	f := bound(s.g.raft.AddNonvoter(p.ServerID, raft.ServerAddress(p.Address), c.Index(), configTimeout), s.g.ended)
	if err := f.Error(); err != nil {
		return err
	}
	s.g.log.Info("joined as non-voter", "server", p.ServerID, "address", p.Address)
	s.poke()
	return nil
}

// acquire waits for the right to change the configuration.
func (s *steward) acquire(ctx context.Context) (release func(), err error) {
	select {
	case s.busy <- struct{}{}:
		return func() { <-s.busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// acquireSoon is acquire for an operator's request, which housekeeping (a join that
// is taken in, the versions that are asked for) holds up for a moment only.
func (s *steward) acquireSoon() (release func(), ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), acquireBound)
	defer cancel()
	release, err := s.acquire(ctx)
	return release, err == nil
}

// maybeAcquire is acquire without waiting.
func (s *steward) maybeAcquire() (release func(), ok bool) {
	select {
	case s.busy <- struct{}{}:
		return func() { <-s.busy }, true
	default:
		return nil, false
	}
}

// alive says which servers gossip sees, this one included.
func (s *steward) alive() map[raft.ServerID]bool {
	m := map[raft.ServerID]bool{s.g.id: true}
	for _, v := range s.nodes() {
		if v.Alive {
			m[v.ServerID] = true
		}
	}
	return m
}

// addressOf returns where a server is now, which need not be where it was when
// it joined.
func (s *steward) addressOf(v raft.Server) string {
	for _, n := range s.nodes() {
		if n.ServerID == v.ID && n.Address != "" {
			return n.Address
		}
	}
	return string(v.Address)
}

// ask asks a node what it knows of itself.
func (s *steward) ask(ctx context.Context, address string) (wire.NodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, peerStatusTimeout)
	defer cancel()
	nc, err := s.dial(ctx, "tcp", address)
	if err != nil {
		return wire.NodeStatus{}, err
	}
	c, err := transport.Connect(ctx, nc, transport.ClientConfig{
		Hello: wire.Hello{Version: wire.Version, Client: "node " + s.g.node},
	})
	if err != nil {
		return wire.NodeStatus{}, err
	}
	defer c.Close()
	_, payload, err := c.Call(ctx, wire.OpNodeStatus, encoded(wire.NodeStatusRequest{}))
	if err != nil {
		return wire.NodeStatus{}, err
	}
	return wire.DecodeNodeStatus(payload)
}
