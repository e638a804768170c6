package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"onceq/jepsen/hosts"
)

func networkFaults() []Fault {
	needs := []Need{NeedHosts, NeedThree}
	return []Fault{
		{Name: "partition-one", What: "a node, mostly the leader, is cut off from the others; clients reach all", Needs: needs, Away: One, Field: fieldNetwork, Weight: 3, run: partitionOne},
		{Name: "partition-host", What: "a node, mostly the leader, is cut off from the others and from clients", Needs: needs, Away: One, Field: fieldNetwork, Weight: 2, run: partitionHost},
		{Name: "partition-halves", What: "a minority, mostly with the leader, and a majority do not reach each other", Needs: needs, Away: Minority, Field: fieldNetwork, Weight: 2, run: partitionHalves},
		{Name: "partition-one-way", What: "what a node sends does not arrive, or what is sent to it", Needs: needs, Away: One, Field: fieldNetwork, Weight: 3, run: partitionOneWay},
		{Name: "partition-ring", What: "each node reaches a majority, and no two the same", Needs: []Need{NeedHosts, NeedFour}, Away: One, Field: fieldNetwork, Weight: 2, run: partitionRing},
		{Name: "partition-bridge", What: "two parts that do not reach each other, and one node that both reach", Needs: needs, Away: One, Field: fieldNetwork, Weight: 2, run: partitionBridge},
		{Name: "partition-flap", What: "a node is cut off and reached again, about each second", Needs: needs, Away: One, Field: fieldNetwork, Weight: 2, run: partitionFlap},
		{Name: "packet-loss", What: "5 to 20 % of the packets between nodes are lost, some come twice", Needs: needs, Away: Nobody, Field: fieldNetwork, Weight: 2, run: packetLoss},
		{Name: "packet-delay", What: "packets between nodes are late and overtake each other", Needs: needs, Away: Nobody, Field: fieldNetwork, Weight: 2, run: packetDelay},
		{Name: "packet-corrupt", What: "bits of what nodes send each other are flipped, and the checksum of TCP fits", Needs: needs, Away: Nobody, Field: fieldNetwork, Weight: 1, run: packetCorrupt},
	}
}

// A link goes from one node to another.
type linkSet map[[2]string]hosts.Rule

func (l linkSet) both(a, b string, r hosts.Rule) {
	l[[2]string{a, b}], l[[2]string{b, a}] = r, r
}

// apart cuts two sets of nodes off from each other.
func (l linkSet) apart(a, b []string) {
	for _, x := range a {
		for _, y := range b {
			if x != y {
				l.both(x, y, hosts.Rule{Cut: true})
			}
		}
	}
}

// apply makes the rules, or takes them back.
func (t *Target) apply(l linkSet, on bool) {
	names := t.Cluster.Names()
	for link, rule := range l {
		if !on {
			rule = hosts.Rule{}
		}
		t.Hosts.Set(slices.Index(names, link[0]), slices.Index(names, link[1]), rule)
	}
}

// impair makes the rules for d and says what they did.
func (t *Target) impair(ctx context.Context, l linkSet, d time.Duration) (did hosts.Count, led string) {
	before, leader := t.count(l), t.Leader()
	t.apply(l, true)
	t.heed(ctx, d, func() bool {
		if now := t.Leader(); now != "" && now != leader {
			led, leader = led+" then "+now, now
		}
		return false
	})
	t.apply(l, false)
	did = t.count(l)
	did.Lost -= before.Lost
	did.Passed -= before.Passed
	did.Changed -= before.Changed
	did.Repeated -= before.Repeated
	did.Late -= before.Late
	return did, strings.TrimPrefix(led, " then ")
}

func (t *Target) count(l linkSet) (sum hosts.Count) {
	names := t.Cluster.Names()
	for link := range l {
		c := t.Hosts.Count(slices.Index(names, link[0]), slices.Index(names, link[1]))
		sum.Lost += c.Lost
		sum.Passed += c.Passed
		sum.Changed += c.Changed
		sum.Repeated += c.Repeated
		sum.Late += c.Late
	}
	return sum
}

// partition cuts links for a while.
func (t *Target) partition(ctx context.Context, r *rand.Rand, node string, l linkSet) (string, bool, string) {
	// Some are over before anybody notices, some last longer than anybody waits.
	d := between(r, time.Second, 8*time.Second)
	if r.IntN(4) == 0 {
		d += 8 * time.Second
	}
	did, led := t.impair(ctx, l, d)
	text := fmt.Sprintf("%d packets were lost on %d links in %.1f s", did.Lost, len(l), d.Seconds())
	if led != "" {
		text += ", led meanwhile: " + led
	}
	return node, did.Lost > 0, text
}

// others are all nodes but some.
func (t *Target) others(but ...string) []string {
	return slices.DeleteFunc(t.Cluster.Names(), func(n string) bool { return slices.Contains(but, n) })
}

func partitionOne(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node, l := t.one(r), linkSet{}
	l.apart([]string{node}, t.others(node))
	return t.partition(ctx, r, node, l)
}

func partitionHost(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node, l := t.one(r), linkSet{}
	l.apart([]string{node}, t.others(node))
	t.strand(node, true)
	defer t.strand(node, false)
	return t.partition(ctx, r, node, l)
}

// strand keeps clients from a node: nothing passes in either direction, and what
// was on its way arrives when it is over, as on a network that was broken.
func (t *Target) strand(node string, on bool) {
	t.Net.Refuse(node, on)
	t.Net.Hold(node, toServer, on)
	t.Net.Hold(node, toClient, on)
}

func unreachable(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.Leader()
	if node == "" {
		return "", false, "nobody leads"
	}
	before := t.Net.Stood(node)
	t.strand(node, true)
	defer t.strand(node, false)
	wait(ctx, between(r, time.Second, 10*time.Second))
	stood := t.Net.Stood(node) - before
	return node, stood > 0, fmt.Sprintf("%d frames stood still", stood)
}

func partitionHalves(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	first := t.one(r)
	rest := t.others(first)
	r.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	minority := append([]string{first}, rest[:Minority.of(len(rest)+1)-1]...)
	l := linkSet{}
	l.apart(minority, t.others(minority...))
	return t.partition(ctx, r, strings.Join(minority, ","), l)
}

func partitionOneWay(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node, l := t.one(r), linkSet{}
	out := r.IntN(2) == 0
	others := t.others(node)
	if r.IntN(3) == 0 { // one link alone
		others = others[r.IntN(len(others)):][:1]
	}
	for _, o := range others {
		if out {
			l[[2]string{node, o}] = hosts.Rule{Cut: true}
		} else {
			l[[2]string{o, node}] = hosts.Rule{Cut: true}
		}
	}
	node, seen, text := t.partition(ctx, r, node, l)
	return node, seen, map[bool]string{true: "what it sent to ", false: "what came from "}[out] + strings.Join(others, ",") + ": " + text
}

func partitionRing(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	names := t.Cluster.Names()
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return t.partition(ctx, r, strings.Join(names, ","), ring(names))
}

// ring cuts all links but those to so many of the next and previous nodes that
// each has a majority.
func ring(names []string) linkSet {
	l := linkSet{}
	n := len(names)
	near := (n/2 + 1) / 2 // on each side; with the node itself a majority
	for i, a := range names {
		for j, b := range names {
			if i != j && (j-i+n)%n > near && (i-j+n)%n > near {
				l[[2]string{a, b}] = hosts.Rule{Cut: true}
			}
		}
	}
	return l
}

func partitionBridge(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	bridge := t.one(r)
	rest := t.others(bridge)
	r.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	l := linkSet{}
	l.apart(rest[:len(rest)/2], rest[len(rest)/2:])
	return t.partition(ctx, r, bridge, l)
}

func partitionFlap(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node, l := t.one(r), linkSet{}
	l.apart([]string{node}, t.others(node))
	lost := uint64(0)
	n := 4 + r.IntN(8)
	for range n {
		did, _ := t.impair(ctx, l, between(r, 300*time.Millisecond, 1500*time.Millisecond))
		lost += did.Lost
		if !wait(ctx, between(r, 300*time.Millisecond, 1500*time.Millisecond)) {
			break
		}
	}
	return node, lost > 0, fmt.Sprintf("%d packets were lost in %d cuts", lost, n)
}

// some are the links of one node with all others, or all links.
func (t *Target) some(r *rand.Rand, rule hosts.Rule) (string, linkSet) {
	node, l := t.one(r), linkSet{}
	for _, a := range t.Cluster.Names() {
		for _, b := range t.others(a) {
			l[[2]string{a, b}] = rule
		}
	}
	if r.IntN(2) == 0 {
		return "", l
	}
	for link := range l {
		if link[0] != node && link[1] != node {
			delete(l, link)
		}
	}
	return node, l
}

func packetLoss(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node, l := t.some(r, hosts.Rule{Loss: 50 + r.IntN(151), Duplicate: r.IntN(100)})
	did, _ := t.impair(ctx, l, between(r, 2*time.Second, 8*time.Second))
	return node, did.Lost > 0, fmt.Sprintf("%d of %d packets were lost, %d came twice", did.Lost, did.Lost+did.Passed, did.Repeated)
}

// packetDelay stays below the time after which a node wants to vote: slow is not
// dead.
func packetDelay(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	d := between(r, 5*time.Millisecond, 100*time.Millisecond)
	node, l := t.some(r, hosts.Rule{Delay: d, Jitter: d / 2})
	did, led := t.impair(ctx, l, between(r, 2*time.Second, 8*time.Second))
	text := fmt.Sprintf("%d packets were late by %v to %v", did.Late, d, d+d/2)
	if led != "" {
		text += ", led meanwhile: " + led
	}
	return node, did.Late > 0, text
}

func packetCorrupt(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node, l := t.some(r, hosts.Rule{Corrupt: 1 + r.IntN(20)})
	did, _ := t.impair(ctx, l, between(r, 2*time.Second, 6*time.Second))
	return node, did.Changed > 0, fmt.Sprintf("%d of %d packets were changed", did.Changed, did.Passed)
}
