package cluster

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"onceq/fsm/storage"
	"onceq/transport/wire"
)

const (
	// leaveMax bounds how long a node that ends in order waits for gossip to
	// have told the others.
	leaveMax = 500 * time.Millisecond
)

// run starts the group's goroutines; doc.go lists them.
func (n *Node) run(g *group) {
	observer := g.topology.observe(g.raft)
	n.wg.Go(func() { g.lead.run(n.end, func(f func()) { n.wg.Go(f) }) })
	n.wg.Go(func() { g.ticker.run(n.end) })
	n.wg.Go(func() { g.reads.run(n.end) })
	n.wg.Go(func() { g.steward.run(n.ctx) })
	n.wg.Go(func() { g.auditor.run(n.ctx) })
	n.wg.Go(func() {
		g.topology.run(n.end)
		g.raft.DeregisterObserver(observer)
	})
	n.wg.Go(func() { g.succession.run(n.ctx) })
	n.wg.Go(func() { g.cureInstalls(n.end) })
	n.wg.Go(func() { g.snaps.run(g, n.end) })
	if g.disk != nil {
		n.wg.Go(func() { g.disk.run(n.end, n.fatal) })
		n.wg.Go(func() { g.scrub(n.ctx, n.store) })
	}
}

// spawn runs a request that changes the membership; false when there are too
// many or the node is ending.
func (n *Node) spawn(f func(ctx context.Context)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing || n.running >= membershipRequestsMax {
		return false
	}
	n.running++
	n.wg.Go(func() {
		defer func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.running--
		}()
		f(n.ctx)
	})
	return true
}

// fatal ends the node's part in the cluster: what it would do from here on
// cannot be trusted. In production cfg.Fatal does not return.
func (n *Node) fatal(err error) {
	if n.failed.CompareAndSwap(nil, &err) {
		n.log.Error("fatal", "error", err)
		n.cfg.Fatal(err)
	}
}

// Err returns what ended the node, nil when nothing did.
func (n *Node) Err() error {
	if p := n.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// Close ends the node in order: it hands over the leadership, tells clients,
// leaves gossip and closes everything. It may be called more than once.
func (n *Node) Close() error {
	n.shutdown(true)
	return n.closeErr
}

// Kill ends the node without handing anything over, as a crash would, as far as
// that goes within one process.
func (n *Node) Kill() { n.shutdown(false) }

func (n *Node) shutdown(inOrder bool) {
	n.closeOnce.Do(func() {
		n.mu.Lock()
		n.closing = true
		n.mu.Unlock()
		g := n.group.Load()
		if inOrder && g != nil {
			n.leave(g)
		}
		n.closeErr = n.teardown()
		close(n.done)
	})
	<-n.done
}

// leave hands over. Requests are refused from the beginning, so what is in
// flight can end; then the last stamp, then the transfer, where there is another
// voter. If nobody takes over the group has no quorum, and nothing is lost by ending.
func (n *Node) leave(g *group) {
	switch {
	case !g.lead.serving():
	case !g.otherVoters():
		g.drain()
	default:
		if err := g.handOver("", ""); err != nil {
			n.log.Warn("hand over", "error", err)
		}
	}
	g.proposer.setPhase(closed)
	bye := wire.ErrorReply{Code: wire.CodeShuttingDown, Retriable: true, Text: "node " + n.cfg.Name + " is shutting down"}
	topology := encoded(g.topology.current())
	for _, c := range n.hub.all() {
		c.Push(wire.OpTopology, topology)
		c.Close(bye)
	}
	if gossip := n.gossip.Load(); gossip != nil {
		if err := gossip.Leave(leaveMax); err != nil {
			n.log.Debug("leave gossip", "error", err)
		}
	}
}

// teardown closes everything, each thing before what it uses:
//
//  1. nothing is applied any more, since a library that shuts down may skip a
//     batch and deliver the next one;
//  2. raft, with its peer connections cut, which it would wait for;
//  3. what waits for raft: proposals without an answer end as unknown;
//  4. clients, who have their last answers by now;
//  5. gossip, streams, the port;
//  6. the log, and last the lock of the directory.
func (n *Node) teardown() error {
	var errs []error
	g := n.opened
	if n.mux == nil && n.cfg.Listener != nil {
		errs = append(errs, n.cfg.Listener.Close()) // it was handed over, and nothing has taken it
	}
	if g != nil {
		g.stopped.Store(true)
	}
	close(n.end)
	n.cancel()
	if n.raft != nil {
		f := n.raft.Shutdown()
		// Not its streams alone: the library would log that it cannot accept any.
		errs = append(errs, ignoreClosed(n.raftNet.Close()))
		errs = append(errs, f.Error())
	}
	close(n.ended)
	if g != nil {
		g.proposer.close()
	}
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	if gossip := n.gossip.Load(); gossip != nil {
		errs = append(errs, gossip.Close())
	}
	if n.streams != nil {
		errs = append(errs, n.streams.Close())
	}
	if n.mux != nil {
		errs = append(errs, ignoreClosed(n.mux.Close()))
	}
	n.wg.Wait()
	errs = append(errs, n.closeBodies())
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}

// ignoreClosed: closing what its user has closed already is no error.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// inOneTerm looks, again when the term has changed meanwhile: a node that had become the
// leader in between would call itself that of a term in which another led.
func inOneTerm(term func() uint64, look func()) uint64 {
	for {
		t := term()
		if look(); term() == t {
			return t
		}
	}
}

// Status is what the node knows of itself.
func (n *Node) Status() wire.NodeStatus {
	s := wire.NodeStatus{Node: n.cfg.Name, Cluster: n.cluster, Version: n.cfg.Version, Role: "joining", Uptime: time.Since(n.begun)}
	g := n.group.Load()
	if g == nil {
		return s
	}
	at := g.local()
	s.ServerID, s.Incarnation = string(g.id), g.life.incarnation()
	s.Leader, _ = g.topology.leader()
	s.Term = inOneTerm(g.raft.CurrentTerm, func() { s.Role, s.Serving = g.role(), g.lead.serving() })
	s.CommitIndex, s.LastLogIndex = g.store.HeldBack(g.raft.CommitIndex()), g.raft.LastIndex()
	s.AppliedIndex, s.SnapshotIndex = at.applied, g.snapshotIndex()
	s.MachineVersion, s.MachineSupports = g.version.active.Load(), g.version.supports
	for _, d := range at.digests {
		s.DigestIndex, s.Digest = d.Index, d.Digest
		s.Digests = append(s.Digests, wire.DigestReply(d))
	}
	s.FreezeLast, s.FreezeMax = g.snaps.stalls()
	s.SnapshotsTaken, s.SnapshotsReceived = g.snaps.counts()
	if g.disk != nil {
		s.AppendP50, s.AppendP99 = g.store.AppendTimes()
		if damage := g.store.SnapshotDamage(); damage != nil {
			s.SnapshotDamage = damage.Error()
		}
	}
	if b, ok := n.bodies.(*storage.Pebble); ok {
		st := b.Stats()
		s.BodiesStalled, s.BodyCompactions = st.Stalled, st.Compactions
	}
	s.Transfers = n.transfers.list()
	s.Sessions, s.Consumers, s.Messages = at.counts.Sessions, at.counts.Consumers, at.counts.Messages
	if d := g.disk; d != nil {
		s.Disk, s.DiskFree, s.DiskTotal = diskLevel(d.own.Load()).String(), d.free.Load(), d.total.Load()
		s.DiskBallast = d.ballast.size()
	}
	return s
}

// snapshotIndex is the index of the newest snapshot on this node.
func (g *group) snapshotIndex() uint64 {
	n, err := strconv.ParseUint(g.raft.Stats()["last_snapshot_index"], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// role is raft's state, or "joining" for a node that has no vote yet.
func (g *group) role() string {
	switch g.raft.State() {
	case raft.Leader:
		return "leader"
	case raft.Candidate:
		return "candidate"
	}
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.ID == g.id && s.Suffrage == raft.Voter {
			return "follower"
		}
	}
	return "joining"
}
