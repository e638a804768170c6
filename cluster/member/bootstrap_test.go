package member

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// world is a number of nodes and every message between them, with nothing in
// between but the decisions of bootstrap.go. A step is one message or one
// durable write, and a node may crash between any two.
type world struct {
	t      *rapid.T
	expect int
	seeds  bool // every node was given the addresses of all
	nodes  []*simNode
	ids    int
	sent   []simProposal // every proposal ever sent: each may arrive late or again
	formed []string      // ids committed, in order
}

type simNode struct {
	own     Identity
	wiped   int
	round   *Round          // being collected
	asked   map[int]bool    // who was asked in it
	last    *Round          // for Judge; lost in a crash
	founder map[string]bool // ids that this identity minted or accepted
}

type simProposal struct {
	to raft.ServerID
	c  ClusterInfo
}

func newWorld(t *rapid.T, n, expect int, seeds bool) *world {
	w := &world{t: t, expect: expect, seeds: seeds}
	for i := range n {
		w.nodes = append(w.nodes, &simNode{})
		w.wipe(i)
		w.nodes[i].wiped = 0
	}
	return w
}

func (w *world) wipe(i int) {
	n := w.nodes[i]
	n.wiped++
	name := fmt.Sprintf("n%d", i)
	// The suffix is random, and so is which life of a node sorts first.
	suffix := rapid.IntRange(0, 0xffff).Draw(w.t, "suffix")
	n.own = Identity{Name: name, ServerID: raft.ServerID(fmt.Sprintf("%s-%08x%04x", name, suffix, n.wiped)), Address: name + ":1"}
	n.founder = make(map[string]bool)
	w.crash(i)
}

func (w *world) crash(i int) {
	n := w.nodes[i]
	n.round, n.asked, n.last = nil, nil, nil
}

func (w *world) bySid(id raft.ServerID) *simNode {
	for _, n := range w.nodes {
		if n.own.ServerID == id {
			return n
		}
	}
	return nil
}

// ask has node i ask node j. What it learns is what j has on disk right now.
func (w *world) ask(i, j int) {
	n := w.nodes[i]
	if n.round == nil {
		n.round, n.asked = &Round{Own: n.own, Expect: w.expect}, make(map[int]bool)
	}
	if i == j || n.asked[j] {
		return
	}
	n.asked[j] = true
	about := ""
	if n.own.Stage == StageAccepted {
		about = n.own.Cluster.ID
	}
	o := w.nodes[j].own
	n.round.Seen = append(n.round.Seen, Seen{
		Peer: o.Self(), Stage: o.Stage, Cluster: o.Cluster.ID, Minter: o.Cluster.Minter, About: about, Held: o.Cluster.ID == about,
	})
}

// finish ends node i's round and carries the decision out, as form.go does.
func (w *world) finish(i int) {
	n := w.nodes[i]
	if n.round == nil {
		return
	}
	r := *n.round
	r.Own = n.own
	if w.seeds {
		for j := range w.nodes {
			if j != i && !n.asked[j] {
				r.Silent = append(r.Silent, w.nodes[j].own.Address)
			}
		}
	}
	n.round, n.last = nil, &r
	a := Decide(r)
	switch a.Kind {
	case ActionMint:
		w.ids++
		n.own.Stage = StageMinted
		n.own.Cluster = ClusterInfo{ID: fmt.Sprintf("c%d", w.ids), Incarnation: 1, Minter: n.own.ServerID, Members: slices.Clone(a.Members)}
		n.founder[n.own.Cluster.ID] = true
	case ActionPropose:
		for _, p := range a.Targets {
			w.sent = append(w.sent, simProposal{to: p.ServerID, c: n.own.Cluster})
		}
	case ActionCommit:
		n.own.Stage = StageCommitted
		w.committed(n.own.Cluster)
	case ActionWithdraw, ActionRelease:
		delete(n.founder, n.own.Cluster.ID)
		n.own.Stage, n.own.Cluster = StageEmpty, ClusterInfo{}
	case ActionMember:
		n.own.Stage = StageMember
	case ActionJoin:
		for _, p := range a.Targets {
			if m := w.bySid(p.ServerID); m != nil && m.own.Stage >= StageCommitted {
				n.own.Stage, n.own.Cluster = StageMember, m.own.Cluster
				break
			}
		}
	}
}

// deliver hands proposal k to the node it was sent to, if that still exists.
func (w *world) deliver(k int) {
	p := w.sent[k]
	n := w.bySid(p.to)
	if n == nil {
		return
	}
	if err := Judge(n.last, n.own, p.c); err == nil && n.own.Stage == StageEmpty {
		n.own.Stage, n.own.Cluster = StageAccepted, p.c
		n.founder[p.c.ID] = true
	}
}

// committed checks the one thing that must never happen: a second cluster while
// a founding member of the first is there with what it knows.
func (w *world) committed(c ClusterInfo) {
	for _, other := range w.formed {
		for _, n := range w.nodes {
			if n.founder[other] && n.own.Cluster.ID == other {
				w.t.Fatalf("cluster %s %v is formed and %s holds cluster %s, formed before", c.ID, names(c.Members), n.own.Name, other)
			}
		}
	}
	if len(c.Members) != w.expect {
		w.t.Fatalf("cluster of %d nodes, expected %d", len(c.Members), w.expect)
	}
	w.formed = append(w.formed, c.ID)
}

func (w *world) step(wipes bool) {
	i := rapid.IntRange(0, len(w.nodes)-1).Draw(w.t, "node")
	kinds := 10
	if wipes {
		kinds = 11
	}
	switch k := rapid.IntRange(0, kinds-1).Draw(w.t, "kind"); {
	case k < 3:
		w.ask(i, rapid.IntRange(0, len(w.nodes)-1).Draw(w.t, "asked"))
	case k < 5: // a round in which some do not answer
		for j := range w.nodes {
			if rapid.IntRange(0, 3).Draw(w.t, "answers") > 0 {
				w.ask(i, j)
			}
		}
	case k < 7:
		w.ask(i, i)
		w.finish(i)
	case k < 9:
		if len(w.sent) > 0 {
			w.deliver(rapid.IntRange(0, len(w.sent)-1).Draw(w.t, "proposal"))
		}
	case k < 10:
		w.crash(i)
	default:
		w.wipe(i)
	}
}

func (w *world) run(wipes bool) {
	for range rapid.IntRange(0, 150).Draw(w.t, "steps") {
		w.step(wipes)
	}
}

// calm lets everybody talk to everybody, without crashes. What was sent before arrives
// once more; a network that brings a proposal again and again, always ahead of a newer
// one, would have a node accept one that was withdrawn for ever.
func (w *world) calm() {
	arrived := 0
	for range 40 {
		for i := range w.nodes {
			for j := range w.nodes {
				w.ask(i, j)
			}
			w.finish(i)
			for ; arrived < len(w.sent); arrived++ {
				w.deliver(arrived)
			}
		}
	}
}

// Nodes that see different parts of the others, crash at any point, and hear
// everything late and twice form one cluster, and form it in the end. There are
// fewer than twice as many nodes as expected, so two clusters would share one.
func TestBootstrap_CrashesAndPartialViews_OneClusterForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		expect := rapid.IntRange(1, 4).Draw(t, "expect")
		n := rapid.IntRange(expect, 2*expect-1).Draw(t, "nodes")
		w := newWorld(t, n, expect, rapid.Bool().Draw(t, "seeds"))
		w.run(false)
		w.calm()
		if len(w.formed) != 1 {
			t.Fatalf("clusters formed: %v", w.formed)
		}
		for _, n := range w.nodes {
			if n.own.Stage < StageCommitted || n.own.Cluster.ID != w.formed[0] {
				t.Errorf("%s is %s of %q, formed: %v", n.own.Name, n.own.Stage, n.own.Cluster.ID, w.formed)
			}
		}
	})
}

// Wiped nodes never form a second cluster beside what is left of the first,
// when each node was told where the others are, however many are expected.
func TestBootstrap_WipesWithSeeds_NoSecondCluster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "nodes")
		w := newWorld(t, n, rapid.IntRange(1, n).Draw(t, "expect"), true)
		w.run(true)
		w.calm()
	})
}

// Nor without that, when as many are expected as there are.
func TestBootstrap_WipesAllExpected_NoSecondCluster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "nodes")
		w := newWorld(t, n, n, false)
		w.run(true)
		w.calm()
	})
}

// empty is a node without state as another sees it.
func empty(name string) Seen { return Seen{Peer: testPeer(name)} }

func ownEmpty(name string) Identity {
	p := testPeer(name)
	return Identity{Name: name, ServerID: p.ServerID, Address: p.Address}
}

func TestDecide_FourNodesExpectThree_AcceptorKeepsTheFirst(t *testing.T) {
	a := Decide(Round{Own: ownEmpty("a"), Expect: 3, Seen: []Seen{empty("b"), empty("c")}})
	d := Decide(Round{Own: ownEmpty("d"), Expect: 3, Seen: []Seen{empty("b"), empty("c")}})
	b := Decide(Round{Own: ownEmpty("b"), Expect: 3, Seen: []Seen{empty("c"), empty("d")}})
	if a.Kind != ActionMint || d.Kind != ActionWait || b.Kind != ActionMint {
		t.Fatalf("a %v, b %v, d %v", a, b, d)
	}
	first, second := testCluster("a", "b", "c"), testCluster("b", "c", "d")
	second.ID = "c2"
	c := ownEmpty("c")
	view := &Round{Own: c, Expect: 3, Seen: []Seen{empty("a"), empty("b"), empty("d")}}
	if err := Judge(view, c, second); err != nil {
		t.Fatal(err)
	}
	c.Stage, c.Cluster = StageAccepted, second
	if err := Judge(view, c, first); err == nil {
		t.Error("accepted two clusters")
	}
	if err := Judge(nil, c, second); err != nil {
		t.Error("a repeat of what was accepted:", err)
	}
}

func TestDecide_ThreeOfFiveWiped_OldOnesDown_Waits(t *testing.T) {
	for name, r := range map[string]Round{
		"expect 5":                     {Expect: 5},
		"expect 3 with all in --join":  {Expect: 3, Silent: []string{"d:7450", "e:7450"}},
		"old node answers, other down": {Expect: 3, Silent: []string{"e:7450"}, Seen: []Seen{{Peer: testPeer("d"), Stage: StageMember, Cluster: "old"}}},
	} {
		r.Own = ownEmpty("a")
		r.Seen = append(r.Seen, empty("b"), empty("c"))
		if a := Decide(r); a.Kind == ActionMint {
			t.Errorf("%s: minted", name)
		}
		b := ownEmpty("b")
		r.Own = b
		if err := Judge(&r, b, testCluster("a", "b", "c")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDecide_Waiting_SaysForWhat(t *testing.T) {
	member := func(name, cluster string) Seen {
		return Seen{Peer: testPeer(name), Stage: StageMember, Cluster: cluster}
	}
	twice := empty("b")
	twice.Peer.ServerID = "b-111111111111"
	accepted := ownEmpty("b")
	accepted.Stage, accepted.Cluster = StageAccepted, testCluster("a", "b", "c")
	for want, r := range map[string]Round{
		"1 of 3 nodes are here":              {Own: ownEmpty("a"), Expect: 3},
		"node a has the lowest id":           {Own: ownEmpty("b"), Expect: 2, Seen: []Seen{empty("a")}},
		"two nodes are called b":             {Own: ownEmpty("a"), Expect: 2, Seen: []Seen{empty("b"), twice}},
		"belong to different clusters":       {Own: ownEmpty("a"), Expect: 3, Seen: []Seen{member("b", "x"), member("c", "y")}},
		"without --bootstrap-expect":         {Own: ownEmpty("a")},
		"given with --join, does not answer": {Own: ownEmpty("a"), Expect: 1, Silent: []string{"z:1"}},
		"wipe this directory":                {Own: accepted, Expect: 3},
	} {
		a := Decide(r)
		if a.Kind != ActionWait || !strings.Contains(a.Reason, want) {
			t.Errorf("%v %q, want to wait with %q", a.Kind, a.Reason, want)
		}
	}
}

func TestJudge_Nonsense_IsRefused(t *testing.T) {
	own := ownEmpty("b")
	view := &Round{Own: own, Expect: 3}
	for name, change := range map[string]func(*ClusterInfo){
		"other size":       func(c *ClusterInfo) { c.Members = c.Members[:2] },
		"without the node": func(c *ClusterInfo) { c.Members[1] = testPeer("bb") },
		"its old self":     func(c *ClusterInfo) { c.Members[1].ServerID = "b-111111111111" },
		"not the lowest":   func(c *ClusterInfo) { c.Minter = c.Members[1].ServerID },
		"no id":            func(c *ClusterInfo) { c.ID = "" },
		"one name twice":   func(c *ClusterInfo) { c.Members[2] = c.Members[1]; c.Members[2].ServerID = "b-999999999999" },
		"unsorted":         func(c *ClusterInfo) { slices.Reverse(c.Members[1:]) },
	} {
		c := testCluster("a", "b", "c")
		if err := Judge(view, own, c); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := Judge(view, own, c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := Judge(&Round{Own: own}, own, ClusterInfo{ID: "x"}); err == nil {
		t.Error("accepted although it was told to join only")
	}
}

// An acceptor lets go only on the word of the minter itself that it no longer
// holds this very id. Each of the other answers leaves open that the minter has
// counted on the acceptor.
func TestDecide_Accepted_LetsGoOnlyWhenTheMinterDid(t *testing.T) {
	own := ownEmpty("b")
	own.Stage, own.Cluster = StageAccepted, testCluster("a", "b", "c")
	id := own.Cluster.ID
	minter, rewritten := testPeer("a"), testPeer("a")
	rewritten.ServerID = "a-111111111111"
	for name, c := range map[string]struct {
		seen Seen
		want ActionKind
	}{
		"minter still holds it":      {Seen{Peer: minter, Stage: StageMinted, Cluster: id, About: id, Held: true}, ActionWait},
		"minter has given it up":     {Seen{Peer: minter, About: id}, ActionRelease},
		"minter holds another now":   {Seen{Peer: minter, Stage: StageMinted, Cluster: "c2", About: id}, ActionRelease},
		"asked about another":        {Seen{Peer: minter, About: "c2"}, ActionWait},
		"asked before it accepted":   {Seen{Peer: minter}, ActionWait},
		"minter was wiped":           {Seen{Peer: rewritten, About: id}, ActionWait},
		"somebody else has let go":   {Seen{Peer: testPeer("c"), About: id}, ActionWait},
		"minter committed":           {Seen{Peer: minter, Stage: StageCommitted, Cluster: id, About: id, Held: true}, ActionMember},
		"somebody else is a member":  {Seen{Peer: testPeer("c"), Stage: StageMember, Cluster: id, About: id, Held: true}, ActionMember},
		"somebody else accepted too": {Seen{Peer: testPeer("c"), Stage: StageAccepted, Cluster: id, About: id, Held: true}, ActionWait},
	} {
		if a := Decide(Round{Own: own, Expect: 3, Seen: []Seen{c.seen}}); a.Kind != c.want {
			t.Errorf("%s: action %d, want %d", name, a.Kind, c.want)
		}
	}
}

// The minter commits when every other member has been seen to hold the id, and
// not a moment sooner.
func TestDecide_Minted_CommitsOnlyWithAll(t *testing.T) {
	own := ownEmpty("a")
	own.Stage, own.Cluster = StageMinted, testCluster("a", "b", "c")
	holds := func(name string) Seen {
		return Seen{Peer: testPeer(name), Stage: StageAccepted, Cluster: own.Cluster.ID, Minter: own.Cluster.Minter}
	}
	other := func(name string, stage Stage, minter raft.ServerID) Seen {
		return Seen{Peer: testPeer(name), Stage: stage, Cluster: "c2", Minter: minter}
	}
	wiped := empty("c")
	wiped.Peer.ServerID = "c-111111111111"
	for name, c := range map[string]struct {
		seen []Seen
		want ActionKind
	}{
		"nobody answers":              {nil, ActionPropose},
		"one has accepted":            {[]Seen{holds("b")}, ActionPropose},
		"one has, one is empty":       {[]Seen{holds("b"), empty("c")}, ActionPropose},
		"both have":                   {[]Seen{holds("b"), holds("c")}, ActionCommit},
		"one was wiped":               {[]Seen{holds("b"), wiped}, ActionWithdraw},
		"one is in another cluster":   {[]Seen{holds("b"), other("c", StageMember, "z-000000000000")}, ActionWithdraw},
		"one holds a higher minter's": {[]Seen{holds("b"), other("c", StageAccepted, "z-000000000000")}, ActionPropose},
		"one holds a lower minter's":  {[]Seen{holds("b"), other("c", StageAccepted, "Z-000000000000")}, ActionWithdraw},
	} {
		if a := Decide(Round{Own: own, Expect: 3, Seen: c.seen}); a.Kind != c.want {
			t.Errorf("%s: action %d, want %d", name, a.Kind, c.want)
		}
	}
}

// A node that lost its log joins its own cluster under a new id; it neither
// forms nor accepts another one, whoever is or is not in sight.
func TestDecide_Renewed_OnlyJoinsItsCluster(t *testing.T) {
	own := ownEmpty("a")
	own.Former = "mine"
	member := func(name, cluster string) Seen {
		return Seen{Peer: testPeer(name), Stage: StageMember, Cluster: cluster}
	}
	for name, c := range map[string]struct {
		seen []Seen
		want ActionKind
	}{
		"alone":              {nil, ActionWait},
		"with empty ones":    {[]Seen{empty("b"), empty("c")}, ActionWait},
		"with another's":     {[]Seen{member("b", "other"), empty("c")}, ActionWait},
		"with its own":       {[]Seen{member("b", "mine"), empty("c")}, ActionJoin},
		"with its and other": {[]Seen{member("b", "other"), member("c", "mine")}, ActionJoin},
	} {
		a := Decide(Round{Own: own, Expect: 3, Seen: c.seen})
		if a.Kind != c.want {
			t.Errorf("%s: action %d, want %d", name, a.Kind, c.want)
		}
		for _, p := range a.Targets {
			if p.Name == "b" && name == "with its and other" {
				t.Errorf("%s: asks %s", name, p.Name)
			}
		}
	}
	if err := Judge(&Round{Own: own, Expect: 3}, own, testCluster("a", "b", "c")); err == nil {
		t.Error("accepted another cluster")
	}
}
