package cluster

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"onceq/cluster/raftlog"
	"onceq/fsm"
	"onceq/transport/wire"
)

// fakeRaft holds proposals until a test commits or fails them.
type fakeRaft struct {
	mu      sync.Mutex
	entries [][]byte
	futures []*fakeFuture
	down    bool // what comes is refused, as the library does
}

type fakeFuture struct {
	raft.ApplyFuture
	err chan error
}

func (f *fakeFuture) Error() error { return <-f.err }

func (r *fakeRaft) Apply(cmd []byte, _ time.Duration) raft.ApplyFuture {
	f := &fakeFuture{err: make(chan error, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		f.err <- raft.ErrRaftShutdown
	}
	r.entries = append(r.entries, cmd)
	r.futures = append(r.futures, f)
	return f
}

// shutdown ends what is in flight and whatever comes after it: an answer makes a worker
// take what waits.
func (r *fakeRaft) shutdown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = true
	for _, f := range r.futures {
		select {
		case f.err <- raft.ErrRaftShutdown:
		default:
		}
	}
}

func (r *fakeRaft) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

type proposerTest struct {
	*proposer
	raft   *fakeRaft
	behind atomic.Bool // the disk

	mu   sync.Mutex // guards outs
	outs map[string]outcome
}

// out returns the answer to a command, if there is one.
func (pt *proposerTest) out(name string) (outcome, bool) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	o, ok := pt.outs[name]
	return o, ok
}

func (pt *proposerTest) answers() int {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	return len(pt.outs)
}

func newProposerTest(t *testing.T) *proposerTest {
	clk := newClock(monotonic())
	clk.start(0)
	pt := &proposerTest{raft: &fakeRaft{}, outs: make(map[string]outcome)}
	p := newProposer(proposerConfig{
		clock: clk, mono: clk.mono, wall: func() int64 { return time.Now().UnixNano() }, ended: make(chan struct{}),
		refusal:  func() *wire.ErrorReply { return &wire.ErrorReply{Code: wire.CodeNotLeader, Retriable: true} },
		classify: raftlog.Classify, hold: pt.behind.Load,
	})
	pt.proposer = p
	p.start(pt.raft)
	t.Cleanup(func() {
		pt.raft.shutdown()
		p.close()
	})
	return pt
}

func (pt *proposerTest) ask(t *testing.T, name string, kind fsm.Kind, bytes int) {
	pt.submit(kind, make([]byte, bytes), func(o outcome) {
		pt.mu.Lock()
		defer pt.mu.Unlock()
		if _, twice := pt.outs[name]; twice {
			t.Errorf("%s is answered twice", name)
		}
		pt.outs[name] = o
	})
}

// commit applies the i-th proposal, as the library would: Apply, then the
// future.
func (pt *proposerTest) commit(i, results int) {
	pt.raft.mu.Lock()
	number, _ := fsm.EntryProposal(pt.raft.entries[i])
	future := pt.raft.futures[i]
	pt.raft.mu.Unlock()
	pt.applied(uint64(i+1), &fsm.Effects{Proposal: number, Results: make([]fsm.Result, results)})
	future.err <- nil
}

func TestProposer_OneAtLowLoadManyAtHigh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		pt.setPhase(serving)
		pt.ask(t, "first", fsm.KindPublish, 10)
		synctest.Wait()
		if n := pt.raft.count(); n != 1 {
			t.Fatalf("%d proposals for one publish with nothing in flight", n)
		}
		for i := range 500 {
			pt.ask(t, fmt.Sprint("batched ", i), fsm.KindPublish, 10)
		}
		synctest.Wait()
		if n := pt.raft.count(); n != 1 {
			t.Fatalf("%d proposals, want the first in flight and the rest, which is small, waiting", n)
		}
		pt.commit(0, 1)
		synctest.Wait()
		if n := pt.raft.count(); n != 2 {
			t.Fatalf("%d proposals after the first ended", n)
		}
		pt.commit(1, 500)
		synctest.Wait()
		if pt.answers() != 501 {
			t.Fatalf("%d answers, want 501", pt.answers())
		}
	})
}

// Large entries are written while others are replicated, up to a number.
func TestProposer_LargeEntriesOverlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		pt.setPhase(serving)
		for i := range publishLaneInFlight + 3 {
			pt.ask(t, fmt.Sprint("large ", i), fsm.KindPublish, entryBytesWorth)
			synctest.Wait()
		}
		if n := pt.raft.count(); n != publishLaneInFlight {
			t.Fatalf("%d proposals, want %d", n, publishLaneInFlight)
		}
		pt.commit(0, 1)
		synctest.Wait()
		if n := pt.raft.count(); n != publishLaneInFlight+1 {
			t.Fatalf("%d proposals after one ended, want one more, of all that waits", n)
		}
		pt.commit(publishLaneInFlight, 3)
		synctest.Wait()
		if pt.answers() != 4 {
			t.Fatalf("%d answers, want 4", pt.answers())
		}
	})
}

// An ack costs no entry of its own while publishes are on their way, and each
// command gets its own result.
func TestProposer_SettlesRideWithPublishes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		pt.setPhase(serving)
		pt.ask(t, "first", fsm.KindSettle, 10)
		synctest.Wait()
		pt.ask(t, "publish", fsm.KindPublish, 10)
		pt.ask(t, "settle", fsm.KindSettle, 10)
		synctest.Wait()
		pt.commit(0, 1)
		synctest.Wait()
		if n := pt.raft.count(); n != 2 {
			t.Fatalf("%d proposals, want the settle and the publish in one", n)
		}
		number, _ := fsm.EntryProposal(pt.raft.entries[1])
		results := []fsm.Result{{Status: fsm.StatusLeaseLost}, {Status: fsm.StatusOK}}
		pt.applied(2, &fsm.Effects{Proposal: number, Results: results})
		for name, want := range map[string]fsm.Status{"settle": fsm.StatusLeaseLost, "publish": fsm.StatusOK} {
			if o, _ := pt.out(name); o.Result == nil || o.Result.Status != want {
				t.Errorf("%s: %+v, want %v: settles come first in an entry", name, o, want)
			}
		}
	})
}

// What does not fit an entry together goes one after the other, whoever keeps
// coming.
func TestProposer_SettlesDoNotKeepALargePublishOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		pt.setPhase(preparing)
		pt.ask(t, "large", fsm.KindPublish, entryBytesMax-entryOverhead-restoreOverhead-fsm.CommandBytes(0))
		for i := range 3 {
			pt.ask(t, fmt.Sprint("settle ", i), fsm.KindSettle, entryBytesGoal-fsm.CommandBytes(0))
		}
		pt.setPhase(serving)
		synctest.Wait()
		var bytes []int
		for _, e := range pt.raft.entries {
			if len(e) > entryBytesMax {
				t.Errorf("an entry of %d bytes, more than fits", len(e))
			}
			bytes = append(bytes, len(e))
		}
		if len(bytes) < 2 || bytes[0] > 2*entryBytesGoal || bytes[1] < 2*entryBytesGoal {
			t.Errorf("entries of %d bytes, want settles and then the publish", bytes)
		}
	})
}

func TestProposer_SettlesHaveTheirOwnRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		pt.setPhase(serving)
		refused := 0
		for i := 0; refused == 0; i++ {
			name := fmt.Sprint("publish ", i)
			pt.ask(t, name, fsm.KindPublish, 1<<20)
			if o, answered := pt.out(name); answered {
				if o.Err == nil || o.Err.Code != wire.CodeOverloaded || !o.Err.Retriable {
					t.Fatalf("refused with %+v", o.Err)
				}
				refused++
			}
			if i > 2*publishLaneBytesMax>>20 {
				t.Fatal("publishes are never refused")
			}
		}
		synctest.Wait()
		before := pt.raft.count()
		pt.ask(t, "ack", fsm.KindSettle, 30)
		synctest.Wait()
		if pt.raft.count() != before+1 {
			t.Fatal("a settle waits behind publishes")
		}
		pt.commit(before, 1)
		synctest.Wait()
		if o, _ := pt.out("ack"); o.Err != nil || o.Result == nil {
			t.Fatalf("ack: %+v", o)
		}
	})
}

func TestProposer_WhatRaftsErrorsProve(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want wire.Code
	}{
		{raft.ErrNotLeader, wire.CodeNotLeader},
		{raft.ErrLeadershipTransferInProgress, wire.CodeNotLeader},
		{raft.ErrEnqueueTimeout, wire.CodeNotLeader},
		{raft.ErrLeadershipLost, wire.CodeOutcomeUnknown},
		{raft.ErrAbortedByRestore, wire.CodeOutcomeUnknown},
		{raft.ErrRaftShutdown, wire.CodeOutcomeUnknown},
		{nil, wire.CodeOutcomeUnknown}, // answered without having been applied here: the node is closing
	} {
		synctest.Test(t, func(t *testing.T) {
			pt := newProposerTest(t)
			pt.setPhase(serving)
			pt.ask(t, "it", fsm.KindPublish, 10)
			synctest.Wait()
			pt.raft.futures[0].err <- tc.err
			synctest.Wait()
			if o, _ := pt.out("it"); o.Err == nil || o.Err.Code != tc.want {
				t.Errorf("%v: answered %+v, want %v", tc.err, o, tc.want)
			}
			// The entry may still be applied later; nobody waits for it.
			pt.commit(0, 1)
		})
	}
}

func TestProposer_NothingIsProposedBeforeTheNodeServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		pt.ask(t, "following", fsm.KindPublish, 10)
		if o, _ := pt.out("following"); o.Err == nil || o.Err.Code != wire.CodeNotLeader {
			t.Fatalf("at a follower: %+v", o)
		}
		pt.setPhase(preparing)
		pt.ask(t, "early", fsm.KindPublish, 10)
		synctest.Wait()
		if pt.raft.count() != 0 || pt.answers() != 1 {
			t.Fatal("proposed or answered before the first entry of the term was applied")
		}
		pt.setPhase(serving)
		synctest.Wait()
		if pt.raft.count() != 1 {
			t.Fatal("not proposed when serving")
		}
		pt.ask(t, "waiting", fsm.KindOpenSession, 10)
		synctest.Wait()
		for i := range 2 {
			pt.ask(t, fmt.Sprint("more ", i), fsm.KindOpenSession, 10)
			synctest.Wait()
		}
		last := "more 1"
		if _, answered := pt.out(last); answered {
			t.Fatal("answered early")
		}
		pt.setPhase(following)
		if o, _ := pt.out(last); o.Err == nil || o.Err.Code != wire.CodeNotLeader {
			t.Fatalf("waiting in its lane when the leadership ended: %+v", o)
		}
		if _, answered := pt.out("waiting"); answered {
			t.Fatal("what is in flight is answered by its future alone")
		}
	})
}

// TestProposer_AnothersEntryAnswersNobody: entries of other leaders are applied
// while ours wait for their futures.
func TestProposer_AnothersEntryAnswersNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		other := newProposerTest(t)
		for _, p := range []*proposerTest{pt, other} {
			p.setPhase(serving)
			p.ask(t, "it", fsm.KindPublish, 10)
		}
		synctest.Wait()
		number, _ := fsm.EntryProposal(other.raft.entries[0])
		pt.applied(1, &fsm.Effects{Proposal: number, Results: make([]fsm.Result, 1)})
		if pt.answers() != 0 {
			t.Fatal("answered by another leader's entry")
		}
	})
}

func TestProposer_Drain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		pt.setPhase(serving)
		pt.ask(t, "in flight", fsm.KindPublish, 10)
		synctest.Wait()
		idle := pt.drain()
		pt.ask(t, "late", fsm.KindPublish, 10)
		if o, _ := pt.out("late"); o.Err == nil || o.Err.Code != wire.CodeShuttingDown {
			t.Fatalf("while draining: %+v", o)
		}
		select {
		case <-idle:
			t.Fatal("idle with a proposal in flight")
		default:
		}
		pt.commit(0, 1)
		<-idle
		pt.stamp()
		idle = pt.drain()
		synctest.Wait()
		if pt.raft.count() != 2 {
			t.Fatalf("%d proposals, want the last stamp as the second", pt.raft.count())
		}
		pt.commit(1, 0)
		<-idle
		pt.resume()
		pt.ask(t, "again", fsm.KindPublish, 10)
		synctest.Wait()
		if pt.raft.count() != 3 {
			t.Fatal("not proposed after service was resumed")
		}
	})
}

// While the disk is behind, publishes wait where they can be counted and
// refused; what makes room goes on.
func TestProposer_DiskBehind_HoldsPublishesAndNotSettles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pt := newProposerTest(t)
		pt.behind.Store(true)
		pt.setPhase(serving)
		pt.ask(t, "publish", fsm.KindPublish, 100)
		pt.ask(t, "settle", fsm.KindSettle, 100)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := pt.raft.count(); n != 1 {
			t.Fatalf("%d entries were proposed, want the settle alone", n)
		}
		pt.commit(0, 1)
		pt.behind.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := pt.raft.count(); n != 2 {
			t.Fatalf("%d entries were proposed after the disk had caught up", n)
		}
		pt.commit(1, 1)
		synctest.Wait()
		if pt.answers() != 2 {
			t.Errorf("%d answers", pt.answers())
		}
	})
}
