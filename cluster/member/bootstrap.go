package member

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

// Everything in this file is a pure function of what a node has on disk and
// what the others answered when they were asked. The driver in form.go asks,
// writes and sends; bootstrap_test.go tries the decisions with every kind of
// crash in between.
//
// It is a two-phase commit in which the minter decides. Safety rests on these:
//
//   - A node holds at most one cluster id, durably, and while it does it
//     accepts no other.
//   - The minter goes from minted to committed only when every other founding
//     member has answered that it holds the id, and only a committed minter
//     bootstraps raft. So two clusters would need a node that held two ids.
//   - A minted id may be withdrawn, a committed one never. An accepted id is let
//     go only when the minter itself (the same server id) says that it does not
//     hold it. The question names the id and an id is minted once, so an answer
//     to it is true for ever, however late it comes.

// Seen is what another node answered.
type Seen struct {
	Peer    Peer
	Stage   Stage
	Cluster string        // the id it holds, "" in StageEmpty
	Minter  raft.ServerID // who minted that
	// About is the cluster id that it was asked about, and Held whether it
	// holds that one.
	About string
	Held  bool
}

// Round is what a node knows after it has asked everybody it knows of.
type Round struct {
	Own    Identity
	Expect int      // 0: never bootstrap
	Silent []string // addresses given by the operator that did not answer
	Seen   []Seen   // one for each other node that answered
}

// ActionKind says what to do next.
type ActionKind uint8

const (
	ActionWait     ActionKind = iota // nothing; Reason says for what
	ActionMint                       // make a cluster id for Members, durably
	ActionPropose                    // ask Targets to accept the minted id
	ActionCommit                     // every member has accepted: note that, durably
	ActionWithdraw                   // give the minted id up, durably
	ActionRelease                    // the minter gave up the accepted id: let it go, durably
	ActionMember                     // the accepted id was committed: note that, durably
	ActionJoin                       // ask Targets, members of a formed cluster, to be added
	ActionDone                       // committed or member: go on to raft
)

// Action is a decision.
type Action struct {
	Kind    ActionKind
	Members []Peer
	Targets []Peer
	Reason  string // for people; Wait, Withdraw and Release have one
}

// Decide says what the node has to do after a round.
func Decide(r Round) Action {
	switch r.Own.Stage {
	case StageEmpty:
		return decideEmpty(r)
	case StageMinted:
		return decideMinted(r)
	case StageAccepted:
		return decideAccepted(r)
	}
	return Action{Kind: ActionDone}
}

func decideEmpty(r Round) Action {
	formed := formedSeen(r)
	if r.Own.Former != "" {
		formed = slices.DeleteFunc(formed, func(s Seen) bool { return s.Cluster != r.Own.Former })
		if len(formed) == 0 {
			return Action{Reason: fmt.Sprintf("no member of cluster %s answers, to which this directory belonged", r.Own.Former)}
		}
	}
	if len(formed) > 0 {
		for _, s := range formed[1:] {
			if s.Cluster != formed[0].Cluster {
				return Action{Reason: fmt.Sprintf("nodes %s and %s belong to different clusters (%s and %s): give --join addresses of one cluster only",
					formed[0].Peer.Name, s.Peer.Name, formed[0].Cluster, s.Cluster)}
			}
		}
		a := Action{Kind: ActionJoin}
		for _, s := range formed {
			a.Targets = append(a.Targets, s.Peer)
		}
		return a
	}
	if a, ok := waitForSilent(r); ok {
		return a
	}
	if r.Expect <= 0 {
		return Action{Reason: "no member of a cluster answers, and without --bootstrap-expect this node does not form one"}
	}
	all := []Peer{r.Own.Self()}
	for _, s := range r.Seen {
		if s.Stage != StageEmpty {
			return Action{Reason: fmt.Sprintf("node %s is forming cluster %s", s.Peer.Name, s.Cluster)}
		}
		all = append(all, s.Peer)
	}
	if a, ok := sameName(all); ok {
		return a
	}
	if len(all) < r.Expect {
		return Action{Reason: fmt.Sprintf("%d of %d nodes are here", len(all), r.Expect)}
	}
	sortPeers(all)
	all = all[:r.Expect]
	if all[0].ServerID != r.Own.ServerID {
		return Action{Reason: fmt.Sprintf("node %s has the lowest id and forms the cluster", all[0].Name)}
	}
	return Action{Kind: ActionMint, Members: all}
}

func decideMinted(r Round) Action {
	own := r.Own.Cluster
	var missing []Peer
	var reason string
	for _, m := range own.Members {
		if m.ServerID == r.Own.ServerID {
			continue
		}
		i := slices.IndexFunc(r.Seen, func(s Seen) bool { return s.Peer.ServerID == m.ServerID })
		if i < 0 {
			j := slices.IndexFunc(r.Seen, func(s Seen) bool { return s.Peer.Name == m.Name })
			if j >= 0 {
				return Action{Kind: ActionWithdraw, Reason: fmt.Sprintf("node %s was wiped before the cluster was formed", m.Name)}
			}
			missing = append(missing, m)
			reason = fmt.Sprintf("node %s does not answer", m.Name)
			continue
		}
		s := r.Seen[i]
		switch {
		case s.Stage == StageEmpty:
			missing = append(missing, s.Peer)
			reason = fmt.Sprintf("node %s has not accepted yet", m.Name)
		case s.Cluster == own.ID:
		case s.Stage >= StageCommitted || s.Minter < own.Minter:
			// The other one can not be stopped, or goes first: with one order
			// for all, two minters never wait for each other for ever.
			return Action{Kind: ActionWithdraw, Reason: fmt.Sprintf("node %s holds cluster %s", m.Name, s.Cluster)}
		default:
			missing = append(missing, s.Peer)
			reason = fmt.Sprintf("node %s holds cluster %s and has to let it go", m.Name, s.Cluster)
		}
	}
	if len(missing) == 0 {
		return Action{Kind: ActionCommit}
	}
	return Action{Kind: ActionPropose, Targets: missing, Reason: reason}
}

func decideAccepted(r Round) Action {
	own := r.Own.Cluster
	reason := fmt.Sprintf("waits for %s, which minted cluster %s; if that node is gone for ever, wipe this directory", NameOf(own.Minter), own.ID)
	for _, s := range r.Seen {
		if s.Cluster == own.ID && s.Stage >= StageCommitted {
			return Action{Kind: ActionMember}
		}
		if s.Peer.ServerID == own.Minter && s.About == own.ID && !s.Held {
			return Action{Kind: ActionRelease, Reason: fmt.Sprintf("node %s has withdrawn cluster %s", s.Peer.Name, own.ID)}
		}
	}
	return Action{Reason: reason}
}

// Judge says whether a node may accept a proposed cluster, after its own last
// round (nil: it has not looked around yet). A node that holds the id already
// says yes again, so that a lost answer does no harm.
func Judge(last *Round, own Identity, p ClusterInfo) error {
	if own.Stage != StageEmpty {
		if own.Cluster.ID == p.ID {
			return nil
		}
		return fmt.Errorf("node %s holds cluster %s (%s)", own.Name, own.Cluster.ID, own.Stage)
	}
	if own.Former != "" {
		return fmt.Errorf("node %s belonged to cluster %s and joins only that", own.Name, own.Former)
	}
	if last == nil {
		return fmt.Errorf("node %s has not looked around yet", own.Name)
	}
	if last.Expect <= 0 {
		return fmt.Errorf("node %s is told to join a cluster, not to form one", own.Name)
	}
	if len(p.Members) != last.Expect {
		return fmt.Errorf("node %s expects a cluster of %d nodes, this one has %d", own.Name, last.Expect, len(p.Members))
	}
	if p.ID == "" || p.Incarnation == 0 || p.Members[0].ServerID != p.Minter ||
		!slices.IsSortedFunc(p.Members, comparePeers) ||
		!slices.ContainsFunc(p.Members, func(m Peer) bool { return m.ServerID == own.ServerID }) {
		return fmt.Errorf("proposal of cluster %q contradicts itself or does not have node %s (%s)", p.ID, own.Name, own.ServerID)
	}
	if a, ok := sameName(p.Members); ok {
		return fmt.Errorf("%s", a.Reason)
	}
	if formed := formedSeen(*last); len(formed) > 0 {
		return fmt.Errorf("node %s knows that %s is a member of cluster %s", own.Name, formed[0].Peer.Name, formed[0].Cluster)
	}
	if a, ok := waitForSilent(*last); ok {
		return fmt.Errorf("node %s: %s", own.Name, a.Reason)
	}
	return nil
}

func formedSeen(r Round) (formed []Seen) {
	for _, s := range r.Seen {
		if s.Stage >= StageCommitted {
			formed = append(formed, s)
		}
	}
	return formed
}

// waitForSilent keeps wiped nodes from forming a second cluster while the nodes
// that hold the first one's state are down: whoever the operator named has to
// have a say.
func waitForSilent(r Round) (Action, bool) {
	if len(r.Silent) == 0 {
		return Action{}, false
	}
	return Action{Reason: fmt.Sprintf("%s, given with --join, does not answer and might hold a cluster's state", r.Silent[0])}, true
}

func sameName(ps []Peer) (Action, bool) {
	seen := make(map[string]raft.ServerID, len(ps))
	for _, p := range ps {
		if other, ok := seen[p.Name]; ok && other != p.ServerID {
			return Action{Reason: fmt.Sprintf("two nodes are called %s (%s and %s)", p.Name, other, p.ServerID)}, true
		}
		seen[p.Name] = p.ServerID
	}
	return Action{}, false
}

func comparePeers(a, b Peer) int { return cmp.Compare(a.ServerID, b.ServerID) }

func sortPeers(ps []Peer) { slices.SortFunc(ps, comparePeers) }
