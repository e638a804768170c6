package nemesis

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"onceq/client"
)

func memberFaults() []Fault {
	return []Fault{
		{Name: "transfer", What: "leadership is handed over", Field: fieldMembers, Weight: 3, run: transfer},
		{Name: "rolling", What: "each node is restarted in order, one after the other is back", Needs: []Need{NeedThree}, Away: One, Field: fieldDisk, Weight: 1, run: rolling},
		{Name: "upgrade", What: "the nodes began with an older build; each is restarted in order with the newer one, one after the other is back", Needs: []Need{NeedThree, NeedOlder}, Away: One, Field: fieldDisk, Weight: 1, run: upgrade},
		{Name: "lag", What: "a follower is away until its log is forgotten, comes back by a snapshot and leads", Needs: []Need{NeedThree}, Away: One, Field: fieldDisk, Weight: 2, run: lag},
		{Name: "member-remove", What: "a node, mostly the leader, is removed, wiped and joins again", Needs: []Need{NeedThree}, Away: One, Field: fieldDisk, Weight: 1, run: memberRemove},
		{Name: "member-add", What: "one more node joins, leads, and is removed", Needs: []Need{NeedThree, NeedSpare}, Away: One, Field: fieldDisk, Weight: 1, run: memberAdd},
	}
}

// fieldMembers is who is in the cluster and who leads it.
const fieldMembers = "members"

func transfer(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	from := t.Leader()
	others := slices.DeleteFunc(t.Cluster.Names(), func(n string) bool { return n == from })
	to := others[r.IntN(len(others))]
	if r.IntN(2) == 0 {
		to = ""
	}
	trying, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := t.Transfer(trying, to)
	for trying.Err() == nil {
		if l := t.Leader(); l != "" && l != from && from != "" {
			return from, true, fmt.Sprintf("%s leads after %s", l, from)
		}
		wait(trying, 50*time.Millisecond)
	}
	return from, false, fmt.Sprintf("to %q: %v", to, err)
}

// members asks who the members are.
func (t *Target) members(ctx context.Context) (client.Members, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var ms client.Members
	err := t.Admin(ctx, func(a *client.Admin) (err error) {
		ms, err = a.Members(ctx)
		return err
	})
	return ms, err
}

// serverID is who a node is among the members, "" when it is none.
func (t *Target) serverID(ctx context.Context, node string) string {
	ms, err := t.members(ctx)
	t.try(err)
	for _, m := range ms.Members {
		if m.Node == node {
			return m.ServerID
		}
	}
	return ""
}

// isVoter says why a node does not vote. Under the server id that it had before it
// was wiped, it is none.
func (t *Target) isVoter(ctx context.Context, node, before string) error {
	ms, err := t.members(ctx)
	if err != nil {
		return err
	}
	found := fmt.Errorf("%s is no voter", node)
	for _, m := range ms.Members {
		switch {
		case m.Node != node:
		case m.ServerID == before || !m.Alive:
			return fmt.Errorf("an old self of %s is still a member", node)
		case m.Voter:
			found = nil
		}
	}
	return found
}

// votes waits until a node is a voter.
func (t *Target) votes(ctx context.Context, node, before string) error {
	var err error
	if !t.heed(ctx, enough, func() bool { err = t.isVoter(ctx, node, before); return err == nil }) {
		return fmt.Errorf("%s does not vote after %v: %w", node, enough, err)
	}
	return nil
}

// askTimeout bounds one question to the cluster.
const askTimeout = 5 * time.Second

// rolling restarts each node in order, the next one when the last one is back.
func rolling(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	return t.roll(ctx, r, func(string) {}, func(string) {})
}

// upgrade is a rolling restart with another build. Builds of two versions serve
// together meanwhile, and lead one after the other: who leads after a restart is
// chance, so a node that has the newer one is also handed the leadership.
func upgrade(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	if t.Newer == "" {
		return "", false, "there is no newer build"
	}
	changed := 0
	node, seen, text := t.roll(ctx, r, func(node string) {
		if t.Cluster.Replace(node, t.Newer) {
			changed++
		}
		if r.IntN(2) == 0 {
			wait(ctx, between(r, 0, 2*time.Second)) // mixed
		}
	}, func(node string) {
		if changed == 0 || r.IntN(3) == 0 {
			return
		}
		leading, cancel := context.WithTimeout(ctx, askTimeout)
		_ = t.Transfer(leading, node) // it may lead already, or others may be faster
		cancel()
		wait(ctx, between(r, time.Second, 3*time.Second))
	})
	return node, seen && changed > 0, fmt.Sprintf("%d had the older build; %s", changed, text)
}

// roll restarts each node in order, the next one when the last one is back. down is
// called while a node is down, back when it is back.
func (t *Target) roll(ctx context.Context, r *rand.Rand, down, back func(node string)) (string, bool, string) {
	names := t.Cluster.Names()
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	began := time.Now()
	for i, n := range names {
		if err := t.Cluster.Stop(n); err != nil {
			t.start(n)
			return n, false, err.Error()
		}
		down(n)
		t.start(n)
		catching, cancel := context.WithTimeout(context.WithoutCancel(ctx), enough)
		err := t.CaughtUp(catching)
		cancel()
		if err != nil {
			return n, false, fmt.Sprintf("after %d nodes: %v", i+1, err)
		}
		back(n)
	}
	return strings.Join(names, ","), true, fmt.Sprintf("each was restarted, in %.1f s", time.Since(began).Seconds())
}

// memberRemove removes a node, mostly the leader, and lets it come back as a new
// member.
func memberRemove(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	if why := t.fragile(ctx); why != "" {
		return "", false, why
	}
	node := t.one(r)
	healing := context.WithoutCancel(ctx)
	led, before := t.Leader() == node, t.serverID(ctx, node)
	removing, cancel := context.WithTimeout(healing, enough)
	err := t.Admin(removing, func(a *client.Admin) error { return a.RemoveMember(removing, node) })
	cancel()
	if err != nil && t.isVoter(healing, node, "") == nil {
		return node, false, fmt.Sprintf("remove: %v", err)
	}
	// It still runs, and must not disturb the others.
	wait(ctx, between(r, 0, 4*time.Second))
	if err := t.Cluster.Stop(node); err != nil {
		t.try(err)
	}
	text, err := t.rejoin(healing, node, before)
	if err != nil {
		return node, false, err.Error()
	}
	return node, true, fmt.Sprintf("removed (it led: %v), %s", led, text)
}

// memberAdd brings the spare node in, and mostly lets it lead, before it is
// removed again.
func memberAdd(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	spare, healing := t.Cluster.Spare(), context.WithoutCancel(ctx)
	began := time.Now()
	if err := t.Cluster.Start(spare); err != nil {
		return spare, false, err.Error()
	}
	err := t.votes(healing, spare, "")
	text := fmt.Sprintf("it votes after %.1f s", time.Since(began).Seconds())
	if err == nil && r.IntN(3) != 0 {
		leading, cancel := context.WithTimeout(healing, askTimeout)
		if terr := t.Transfer(leading, spare); terr == nil {
			text += ", and leads"
		}
		cancel()
	}
	wait(ctx, between(r, 500*time.Millisecond, 4*time.Second))
	return spare, err == nil, text + t.dismiss(healing, r)
}

// dismiss removes the spare node for good.
func (t *Target) dismiss(ctx context.Context, r *rand.Rand) string {
	spare := t.Cluster.Spare()
	if r.IntN(2) == 0 { // it dies first
		t.try(t.Cluster.Kill(spare))
	}
	var err error
	gone := t.heed(ctx, enough, func() bool {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		err = t.Admin(asking, func(a *client.Admin) error { return a.RemoveMember(asking, spare) })
		return err == nil
	})
	t.try(t.Cluster.Kill(spare))
	t.try(os.RemoveAll(t.Cluster.DataDir(spare)))
	t.try(os.MkdirAll(t.Cluster.DataDir(spare), 0o755))
	if !gone {
		return fmt.Sprintf("; it cannot be removed: %v", err)
	}
	return "; removed"
}

// lag keeps a follower away until the others have forgotten the log that it
// lacks: it comes back by a snapshot. Then it is made to lead, so that what is in
// the snapshot has to do.
func lag(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	var followers []string
	for _, n := range t.others(t.Leader()) {
		if t.maybeTake(n) {
			followers = append(followers, n)
		}
	}
	if len(followers) == 0 || t.Leader() == "" {
		return "", false, "there is no follower to keep away"
	}
	node := followers[r.IntN(len(followers))]
	had, installed := t.Applied(node), t.inLog(node, installedSnapshot)
	if err := t.Cluster.Kill(node); err != nil {
		return node, false, err.Error()
	}
	far := t.heed(ctx, lagMost, func() bool { return t.Snapshot(t.Leader()) > had+lagEntries })
	behind := t.Snapshot(t.Leader())
	t.start(node)
	if !far {
		return node, false, fmt.Sprintf("it has %d, and the newest snapshot is at %d: the others may still have the log", had, behind)
	}
	healing := context.WithoutCancel(ctx)
	catching, cancel := context.WithTimeout(healing, enough)
	defer cancel()
	if err := t.CaughtUp(catching); err != nil {
		return node, false, err.Error()
	}
	if t.inLog(node, installedSnapshot) == installed {
		return node, false, fmt.Sprintf("it had %d, the snapshot was at %d, and it came back without one", had, behind)
	}
	text := fmt.Sprintf("it had %d and came back by a snapshot", had)
	leading, cancel := context.WithTimeout(healing, askTimeout)
	defer cancel()
	if err := t.Transfer(leading, node); err == nil {
		text += ", and leads"
	}
	return node, true, text
}

const (
	// lagEntries is more than what stays in the log behind a snapshot, with as
	// little of it as runs allow.
	lagEntries = 1024
	// installedSnapshot is what the library says when it took a snapshot from
	// another node.
	installedSnapshot = "Installed remote snapshot"
)

// inLog counts the lines of a node's log that have a text.
func (t *Target) inLog(node, text string) int {
	b, err := os.ReadFile(t.Cluster.Log(node))
	t.try(err)
	return bytes.Count(b, []byte(text))
}

// lagMost bounds how long a follower is kept away.
const lagMost = 30 * time.Second
