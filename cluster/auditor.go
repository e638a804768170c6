package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/member"
	"onceq/fsm"
)

const (
	// gatherMax bounds how long the voters are asked for a digest. Who has not
	// applied the entry by then still judges itself by what the others had.
	gatherMax = 5 * time.Second
	// gatherRetry is how soon a voter is asked again that has not applied it.
	gatherRetry = 100 * time.Millisecond
)

// ErrDiverged ends a node whose state is not that of the other voters at the
// same index of the log, or whose state nobody can vouch for.
var ErrDiverged = errors.New("the replicas of the log do not agree")

// auditor has the replicas compare themselves while this node leads: a digest
// entry at an interval, the values of the voters at its index, and a verdict
// with all of them into the log, by which each node judges itself. The leader
// only collects; it may be the one that is wrong.
type auditor struct {
	g         *group
	every     time.Duration
	gatherMax time.Duration

	audited uint64 // what was applied when the last audit ended; owned by run
}

// run audits until ctx ends.
func (a *auditor) run(ctx context.Context) {
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !a.due() {
			continue
		}
		if err := a.audit(ctx); err != nil && ctx.Err() == nil {
			a.g.log.Debug("compare replicas", "error", err)
		}
	}
}

// due says whether there is something to compare, and somebody to compare with.
func (a *auditor) due() bool {
	if !a.g.lead.serving() || len(voters(a.g.raft)) < 2 {
		return false
	}
	index := a.g.local().index
	return index > a.audited
}

func (a *auditor) audit(ctx context.Context) error {
	index, err := a.propose(ctx, fsm.KindDigest, fsm.DigestPayload())
	if err != nil {
		return err
	}
	v := a.gather(ctx, index)
	if 2*uint32(len(v.Values)) <= v.Voters {
		return fmt.Errorf("%d of %d voters gave their digest at %d", len(v.Values), v.Voters, index)
	}
	for _, x := range v.Values {
		if x.Digest != v.Values[0].Digest {
			a.g.log.Error("replicas differ", "index", index, "digests", v.String())
			break
		}
	}
	_, err = a.propose(ctx, fsm.KindVerdict, fsm.VerdictPayload(v))
	return err
}

// propose puts a command into the log and waits until it is applied here.
func (a *auditor) propose(ctx context.Context, kind fsm.Kind, payload []byte) (index uint64, err error) {
	applied := make(chan outcome, 1)
	a.g.propose(kind, payload, func(o outcome) { applied <- o })
	select {
	case o := <-applied:
		if o.Err != nil {
			return 0, errors.New(o.Err.Text)
		}
		a.audited = o.Index
		return o.Index, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// gather asks every voter for its value at an index, all at once.
func (a *auditor) gather(ctx context.Context, index uint64) fsm.Verdict {
	ctx, cancel := context.WithTimeout(ctx, a.gatherMax)
	defer cancel()
	voters := voters(a.g.raft)
	answers := make([]answer, len(voters))
	var wg sync.WaitGroup
	for i, v := range voters {
		wg.Go(func() { answers[i] = a.digestOf(ctx, v, index) })
	}
	wg.Wait()
	verdict := fsm.Verdict{Index: index, Version: a.g.version.active.Load(), Voters: uint32(len(voters))}
	for i, x := range answers {
		if x.known {
			verdict.Values = append(verdict.Values, fsm.NodeDigest{Node: member.NameOf(voters[i].ID), Digest: x.digest})
		}
	}
	return verdict
}

// answer is what a voter says of an index.
type answer struct {
	digest uint64
	known  bool
}

func (a *auditor) digestOf(ctx context.Context, v raft.Server, index uint64) answer {
	if v.ID == a.g.id {
		digest, known := a.g.digestAt(index)
		return answer{digest: digest, known: known}
	}
	retry := time.NewTicker(gatherRetry)
	defer retry.Stop()
	for {
		if x, ok := a.ask(ctx, v, index); ok {
			return x
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return answer{}
		}
	}
}

// ask returns false when it is to be asked again.
func (a *auditor) ask(ctx context.Context, v raft.Server, index uint64) (answer, bool) {
	s, err := a.g.steward.ask(ctx, a.g.steward.addressOf(v))
	if err != nil || s.ServerID != string(v.ID) {
		return answer{}, false
	}
	digest, known := s.DigestAt(index)
	// Who is past it without a value was restored from a snapshot behind it.
	return answer{digest: digest, known: known}, known || s.AppliedIndex > index
}

func (g *group) digestAt(index uint64) (uint64, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.machine.DigestAt(index)
}

// judge holds a verdict against this node's own value. Called by the goroutine
// that applies, with mu held.
func (g *group) judge(index uint64, v *fsm.Verdict) error {
	own, known := g.machine.DigestAt(v.Index)
	if !known {
		return nil // restored since
	}
	switch v.Judge(g.node, own) {
	case fsm.FindingWrong:
		truth, _ := v.Majority()
		return fmt.Errorf("%w: at index %d the digest of node %s is %016x, and that of most voters %016x (%s). "+
			"Its state is wrong and it must not serve it: run  onceq node wipe %s  and start the node again, it rejoins with what the others have",
			ErrDiverged, v.Index, g.node, own, truth, v, g.dir)
	case fsm.FindingSplit:
		if index <= g.replayed {
			// That was about a state which is gone: this one was made anew from
			// the log. The next audit compares it.
			g.log.Warn("replicas differed before this node was started, none had a majority", "index", v.Index, "digests", v.String())
			return nil
		}
		return fmt.Errorf("%w: at index %d no value has a majority of the %d voters (%s; node %s has %016x). "+
			"Nobody can know which is right, so every one of them stops. Start the nodes again: each makes its state anew from its log. "+
			"One that stops again is the wrong one: run  onceq node wipe %s  on it and start it again",
			ErrDiverged, v.Index, v.Voters, v, g.node, own, g.dir)
	}
	return nil
}
