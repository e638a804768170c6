package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"onceq/jepsen/faultdisk"
	"onceq/jepsen/proc"
)

// fieldDisk is what nodes keep. Faults of it never overlap, so what one node has
// lost the others have.
const fieldDisk = "disk"

func diskFaults() []Fault {
	needs := []Need{NeedFUSE}
	return []Fault{
		{Name: "power-loss", What: "the power of one node's disk is cut: what was not fsynced is forgotten or torn", Needs: needs, Away: One, Field: fieldDisk, Weight: 3, run: powerLoss},
		{Name: "power-loss-all", What: "the power of all disks is cut at once", Needs: needs, Away: Majority, Field: fieldDisk, Weight: 2, run: powerLossAll},
		{Name: "part-kill", What: "while a follower is cut off the power of another node is lost, at times of a leader whose disk is slow; both meet and must know all that was confirmed", Needs: []Need{NeedHosts, NeedFUSE, NeedThree}, Away: Majority, Field: fieldDisk, Weight: 1, run: partKill},
		{Name: "disk-error", What: "a write or fsync of a node fails (EIO): it must end, and comes back on a disk that works", Needs: needs, Away: One, Field: fieldDisk, Weight: 2, run: diskError},
		{Name: "disk-error-needed", What: "a write or fsync of a follower's log fails (EIO) while no entry is confirmed without that follower: it must end", Needs: []Need{NeedFUSE, NeedThree}, Away: Majority, Field: fieldDisk, Weight: 1, run: diskErrorNeeded},
		{Name: "disk-read-error", What: "a node cannot read files of its own (EIO), mostly as it starts: what it cannot read is not taken for missing, and it comes back on a disk that works", Needs: needs, Away: One, Field: fieldDisk, Weight: 2, run: diskReadError},
		{Name: "disk-full", What: "a node's disk is full (ENOSPC) in the middle of a write: it must end, and comes back when there is room", Needs: needs, Away: One, Field: fieldDisk, Weight: 2, run: diskFull},
		{Name: "disk-hang", What: "a node's disk, mostly the leader's, answers nothing any more: the node must end", Needs: needs, Away: One, Field: fieldDisk, Weight: 2, run: diskHang},
		{Name: "disk-slow", What: "a node's disk is slow", Needs: needs, Away: Nobody, Field: fieldDisk, Weight: 2, run: diskSlow},
	}
}

func (t *Target) disk(node string) *faultdisk.Disk { return t.Disks[node] }

// powerLoss cuts the power of one disk and ends its node, which may have noticed.
// Some cuts come right before a change that the node makes, of whatever file: the
// narrow moments are there.
func powerLoss(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	if r.IntN(2) == 0 {
		return t.blackout(ctx, r, []string{node})
	}
	t.Cluster.Expect(node, true)
	defer t.Cluster.Expect(node, false)
	loss := ""
	if r.IntN(2) == 0 {
		loss = fmt.Sprintf("tear %d", r.Uint64())
	}
	n := 1 + r.IntN(plannedMost)
	if err := t.disk(node).CutBefore(n, loss); err != nil {
		return node, false, err.Error()
	}
	at, err := "", error(nil)
	t.heed(ctx, enough, func() bool {
		at, err = t.disk(node).CutAt()
		return at != "" || err != nil
	})
	if err == nil && at == "" {
		err = t.disk(node).CutPower() // it makes no changes; the plan goes with the power
	}
	err = errors.Join(err, t.Cluster.Kill(node), t.disk(node).PowerOn())
	t.Cluster.Expect(node, false)
	t.start(node)
	t.try(err)
	return node, err == nil && at != "", fmt.Sprintf("before change %d (%s) %s", n, at, loss)
}

// plannedMost is about as many changes as a node makes in a few seconds.
const plannedMost = 1000

func powerLossAll(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	return t.blackout(ctx, r, t.Cluster.Names())
}

func (t *Target) blackout(ctx context.Context, r *rand.Rand, names []string) (string, bool, string) {
	how, seeds := "what was not fsynced is forgotten", map[string]uint64{}
	if r.IntN(2) == 0 {
		how = "what was not fsynced is torn"
		for _, n := range names {
			seeds[n] = r.Uint64()
		}
	}
	pending := make([]string, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		t.Cluster.Expect(n, true)
		wg.Go(func() {
			if seed, torn := seeds[n]; torn {
				pending[i], errs[i] = t.pendingOf(n), t.disk(n).TearPower(seed)
			} else {
				pending[i], errs[i] = t.pendingOf(n), t.disk(n).CutPower()
			}
		})
	}
	wg.Wait()
	for i, n := range names {
		errs[i] = errors.Join(errs[i], t.Cluster.Kill(n))
	}
	wait(ctx, between(r, 0, 3*time.Second))
	for i, n := range names {
		errs[i] = errors.Join(errs[i], t.disk(n).PowerOn())
		t.Cluster.Expect(n, false)
	}
	order := slices.Clone(names)
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, n := range order {
		t.start(n)
		wait(ctx, between(r, 0, 500*time.Millisecond))
	}
	err := errors.Join(errs...)
	t.try(err)
	lost := slices.ContainsFunc(pending, func(p string) bool { return hasPending(p) })
	return strings.Join(names, ","), err == nil && lost, fmt.Sprintf("%s: %s", how, strings.Join(pending, "; "))
}

// partKill makes a quorum of those who know least: a follower that was cut off
// for a while, and a node whose disk forgot what was not fsynced. The rest stands
// still meanwhile.
func partKill(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	leader := t.Leader()
	rest := t.others(leader)
	if leader == "" || len(rest) < 2 {
		return "", false, "nobody leads"
	}
	r.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	lagging := rest[:Minority.of(len(rest)+1)]
	l := linkSet{}
	l.apart(lagging, t.others(lagging...))
	t.apply(l, true)
	wait(ctx, between(r, 500*time.Millisecond, 5*time.Second))
	lost := t.count(l).Lost
	// What the others have the leader's disk need not have yet.
	slow := time.Duration(0)
	var err error
	if r.IntN(2) == 0 {
		slow = between(r, 20*time.Millisecond, 300*time.Millisecond)
		_, err = t.disk(leader).Do(fmt.Sprintf("slow fsync %v", slow))
		wait(ctx, between(r, 300*time.Millisecond, time.Second))
	}
	// The power goes at one of those that confirmed with the leader; the leader and
	// the others of them are not heard until the rest has gone on.
	victim := append([]string{leader}, rest[len(lagging):]...)[r.IntN(len(rest)+1-len(lagging))]
	if slow > 0 {
		victim = leader
	}
	still := t.still(t.others(append(lagging, victim)...))
	t.Cluster.Expect(victim, true)
	defer t.Cluster.Expect(victim, false)
	pending := t.pendingOf(victim)
	err = errors.Join(err, t.disk(victim).CutPower(), t.Cluster.Kill(victim), t.disk(victim).PowerOn(), t.disk(leader).Heal())
	t.Cluster.Expect(victim, false)
	t.apply(l, false)
	t.start(victim)
	led := ""
	t.heed(ctx, 8*time.Second, func() bool { led = t.Leader(); return led != "" && !slices.Contains(still, led) && led != leader })
	t.goOn(still)
	t.try(err)
	return victim, err == nil && lost > 0, fmt.Sprintf("%v was cut off (%d packets), an fsync of %s took %v, %s; then led: %s", lagging, lost, leader, slow, pending, led)
}

// hasPending says whether what pendingOf has told is anything.
func hasPending(told string) bool {
	var node string
	var files, names int
	n, err := fmt.Sscanf(told, "%s %d files, %d names", &node, &files, &names)
	return n == 3 && err == nil && files+names > 0
}

// pendingOf says what of a node's disk is not durable.
func (t *Target) pendingOf(node string) string {
	text, err := t.disk(node).Do("where")
	if err != nil {
		return err.Error()
	}
	counts, _, _ := strings.Cut(text, ":")
	return node + " " + counts
}

// enough is how long a node may take to notice that its disk is broken, and any
// node to come back.
const enough = 60 * time.Second

// breakDisk makes a rule for a node's disk that the node must not survive, heals
// when it is gone, and starts it.
func (t *Target) breakDisk(ctx context.Context, r *rand.Rand, node, rule string) (string, bool, string) {
	healing := context.WithoutCancel(ctx)
	t.Cluster.Expect(node, true)
	defer t.Cluster.Expect(node, false)
	hits := func() int {
		n, err := t.hits(node)
		t.try(err)
		return n
	}
	before, began := hits(), time.Now()
	if _, err := t.disk(node).Do(rule); err != nil {
		return node, false, err.Error()
	}
	// Also when the time of the run is over: a node that was not waited for has not
	// gone on.
	ended, failed := false, 0
	t.heed(healing, enough, func() bool {
		s, _ := t.Cluster.State(node)
		ended, failed = s == proc.Down, hits()-before
		return ended || failed == 0 && time.Since(began) > idleMost
	})
	took := time.Since(began).Seconds()
	wait(ctx, between(r, 0, 3*time.Second))
	t.try(t.disk(node).Heal())
	if !ended {
		if failed > 0 {
			t.wentOn(node, fmt.Sprintf("%s: %d times", rule, failed))
		}
		return node, false, fmt.Sprintf("%s: it goes on after %.0f s, %d operations were hit", rule, took, failed)
	}
	t.Cluster.Expect(node, false)
	t.start(node)
	back := t.answers(healing, node)
	return node, true, fmt.Sprintf("%s: it ended after %.2f s; answers again: %v", rule, took, back)
}

// idleMost is how long to wait for an operation that a rule is about.
const idleMost = 15 * time.Second

// hits is how often rules were applied on a node's disk.
func (t *Target) hits(node string) (int, error) {
	text, err := t.disk(node).Do("stats")
	return hitsOf(text), err
}

// hitsOf sums how often rules were applied, by the disk's counts.
func hitsOf(stats string) int {
	sum := 0
	for _, word := range strings.Fields(stats) {
		_, n, _ := strings.Cut(word, "=")
		n, _, _ = strings.Cut(n, "/")
		if k, err := strconv.Atoi(n); err == nil {
			sum += k
		}
	}
	return sum
}

// answers waits until a node answers.
func (t *Target) answers(ctx context.Context, node string) bool {
	return t.heed(ctx, enough, func() bool { return t.Answers(ctx, node) })
}

// logError is a rule by which a disk fails a node's log.
func logError(r *rand.Rand) string {
	return fmt.Sprintf("%s match *.wal skip %d", failure(r), r.IntN(20))
}

// failure begins a rule by which a disk fails what is written.
func failure(r *rand.Rand) string {
	if r.IntN(2) == 0 {
		// Each one: the kernel may send a write in parts, and a part that fails after
		// another has succeeded is a short write and no error. Who tries the rest again
		// and succeeds has all on disk.
		return "fail write EIO"
	}
	return "fail fsync EIO times 1"
}

func diskError(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	switch r.IntN(3) {
	case 0:
		return t.breakDisk(ctx, r, node, logError(r))
	case 1:
		return t.breakDisk(ctx, r, node, fmt.Sprintf("%s match highwater skip %d", failure(r), r.IntN(5)))
	}
	// Terms and votes are written when there is an election.
	var electing sync.WaitGroup
	defer electing.Wait()
	electing.Go(func() {
		wait(ctx, 100*time.Millisecond)
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
		defer cancel()
		_ = t.Transfer(asking, "") // without it there is one sooner or later
	})
	return t.breakDisk(ctx, r, node, failure(r)+" match stable.db")
}

// readByStart are files that a node reads as it starts; * is any.
var readByStart = []string{"*", "identity", "highwater", "stable.db", "wal-meta.db", "*.wal", "meta.json", "state.bin", "*.sst"}

// readMost is how long to wait for a read that fails, or for the node to end.
const readMost = 10 * time.Second

// diskReadError fails what a node reads. While it runs most is in memory, its own or
// the system's, so mostly it is started anew. That it goes on is no violation: the
// system reads ahead, and nobody may ask for that.
func diskReadError(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node, rule := t.one(r), "fail read EIO"
	healing := context.WithoutCancel(ctx)
	t.Cluster.Expect(node, true)
	defer t.Cluster.Expect(node, false)
	before, err := t.hits(node)
	starts := r.IntN(4) > 0
	if starts {
		rule += " match " + readByStart[r.IntN(len(readByStart))]
		err = errors.Join(err, t.Cluster.Kill(node))
	}
	if err == nil {
		_, err = t.disk(node).Do(rule)
	}
	if err != nil {
		t.try(t.disk(node).Heal())
		t.start(node)
		return node, false, err.Error()
	}
	if starts {
		t.start(node)
	}
	ended, failed := false, 0
	t.heed(healing, readMost, func() bool {
		s, _ := t.Cluster.State(node)
		hits, err := t.hits(node)
		t.try(err)
		ended, failed = s == proc.Down, hits-before
		return ended
	})
	wait(ctx, between(r, 0, 2*time.Second))
	t.try(t.disk(node).Heal())
	// A read that failed just before may end it only now.
	back := t.heed(healing, enough, func() bool { t.start(node); return t.Answers(healing, node) })
	return node, failed > 0, fmt.Sprintf("%s: %d reads failed, it was started: %v, ended: %v, answers again: %v", rule, failed, starts, ended, back)
}

// diskErrorNeeded lets as many followers stand still as the others can do without, so
// that each entry waits for the one whose disk fails. It is a follower: a leader that
// cannot write its log is ended by raft itself.
func diskErrorNeeded(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	leader := t.Leader()
	rest := t.others(leader)
	if leader == "" || len(rest) < 2 {
		return "", false, "nobody leads"
	}
	node, spared := needed(rest, r)
	still := t.still(spared)
	defer t.goOn(still)
	node, seen, text := t.breakDisk(ctx, r, node, logError(r))
	return node, seen, fmt.Sprintf("%s; %v stood still", text, still)
}

// needed draws one of a leader's followers, and those without whom it is needed.
func needed(followers []string, r *rand.Rand) (node string, spared []string) {
	r.Shuffle(len(followers), func(i, j int) { followers[i], followers[j] = followers[j], followers[i] })
	return followers[0], followers[1 : 1+Minority.of(len(followers)+1)]
}

func diskFull(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	return t.breakDisk(ctx, r, t.one(r), fmt.Sprintf("fail write,create ENOSPC skip %d", r.IntN(50)))
}

func diskHang(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	op := []string{"write", "fsync", "write,fsync"}[r.IntN(3)]
	return t.breakDisk(ctx, r, t.one(r), fmt.Sprintf("hang %s match *.wal skip %d", op, r.IntN(20)))
}

// diskSlow stays below the time after which a node gives its disk up.
func diskSlow(ctx context.Context, t *Target, r *rand.Rand) (string, bool, string) {
	node := t.one(r)
	d := between(r, 5*time.Millisecond, 200*time.Millisecond)
	before, err := t.hits(node)
	if err == nil {
		_, err = t.disk(node).Do(fmt.Sprintf("slow fsync,write %v", d))
	}
	if err != nil {
		return node, false, err.Error()
	}
	wait(ctx, between(r, 2*time.Second, 8*time.Second))
	hits, err := t.hits(node)
	t.try(errors.Join(err, t.disk(node).Heal()))
	return node, err == nil && hits > before, fmt.Sprintf("%v for each of %d writes and fsyncs", d, hits-before)
}
