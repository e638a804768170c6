package raftlog

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// ahead is a Store that lets raft go ahead of its disk, which stands still from the start: let lets one append end.
type ahead struct {
	*Store
	disk   *faulty
	fatals *fatals
}

func newAhead(t *testing.T, stored ...*raft.Log) *ahead {
	t.Helper()
	f, disk := &fatals{}, &faulty{InmemStore: raft.NewInmemStore()}
	a := &ahead{Wrap(disk, disk, Options{Owner: "a", Logger: quiet, Fatal: f.record, Parallel: true}), disk, f}
	mustStore(t, a.Store, stored...)
	if err := a.Committed(math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	disk.hang = make(chan struct{})
	return a
}

// servers are who votes.
func servers(ids ...raft.ServerID) func() []raft.Server {
	var all []raft.Server
	for _, id := range ids {
		all = append(all, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	return func() []raft.Server { return all }
}

func (a *ahead) let() { a.disk.hang <- struct{}{} }

func (a *ahead) end(t *testing.T) {
	t.Helper()
	close(a.disk.hang)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	a.fatals.wantNone(t)
}

// onDisk is where the log on the disk ends.
func (a *ahead) onDisk(t *testing.T) uint64 {
	t.Helper()
	last, err := a.disk.InmemStore.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// waits fails unless what waits until release was called, in virtual time, and then succeeds.
func waits(t *testing.T, what string, op func() error, release func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- op() }()
	synctest.Wait()
	select {
	case err := <-done:
		t.Fatalf("%s did not wait for the disk: %v", what, err)
	default:
	}
	release()
	if err := <-done; err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestParallel_OwnCommands_AreThereForFollowersBeforeTheyAreDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		logs := owns(11, 12, 1)
		mustStore(t, a.Store, logs...)
		wantBounds(t, a.Store, 1, 12)
		for _, want := range logs {
			var l raft.Log
			if err := a.GetLog(want.Index, &l); err != nil || VerifyEntry(&l) != nil {
				t.Errorf("entry %d: %v, %v", want.Index, err, VerifyEntry(&l))
			}
		}
		if last := a.onDisk(t); last != 10 {
			t.Errorf("the disk has everything up to %d", last)
		}
		if err := a.Committed(10); err != nil {
			t.Error(err)
		}
		waits(t, "Committed", func() error { return a.Committed(11) }, a.let)
		for _, want := range logs {
			wantEntry(t, a.Store, want)
		}
		a.end(t)
	})
}

// raft acts on these without Apply, or they are a peer's, to whom they are confirmed next.
func TestParallel_EverythingElse_IsDurableWhenItIsStored(t *testing.T) {
	typed := func(typ raft.LogType) *raft.Log { return &raft.Log{Index: 12, Term: 1, Type: typ, Data: []byte("x")} }
	for name, l := range map[string]*raft.Log{
		"configuration": typed(raft.LogConfiguration),
		"noop":          typed(raft.LogNoop),
		"barrier":       typed(raft.LogBarrier),
		"of a peer":     sealed(12, 1, "x"),
		"too large":     own(12, 1, string(make([]byte, parallelBytesMax-recentLogBytes+1))),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAhead(t, owns(1, 10, 1)...)
				mustStore(t, a.Store, own(11, 1, "on its way"))
				waits(t, name, func() error { return a.StoreLogs([]*raft.Log{l}) }, func() { a.let(); a.let() })
				if last := a.onDisk(t); last != 12 {
					t.Errorf("the disk has everything up to %d", last)
				}
				a.end(t)
			})
		})
	}
}

// A term is when a node votes, stands for election, or answers to another leader.
func TestParallel_ANewTerm_IsDurableBehindTheLogOfTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		mustStore(t, a.Store, own(11, 1, "on its way"))
		waits(t, "the term", func() error { return a.SetUint64([]byte(raftCurrentTerm), 2) }, a.let)
		a.end(t)
	})
}

func TestParallel_DeleteRange_WaitsForWhatItDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		mustStore(t, a.Store, owns(11, 12, 1)...)
		if err := a.DeleteRange(1, 5); err != nil { // compaction of what is durable
			t.Fatal(err)
		}
		wantBounds(t, a.Store, 6, 12)
		waits(t, "a conflict", func() error { return a.DeleteRange(11, 12) }, a.let)
		wantBounds(t, a.Store, 6, 10)
		wantMissing(t, a.Store, 11)
		a.end(t)
	})
}

func TestParallel_TheBackgroundRead_WaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		mustStore(t, a.Store, own(11, 1, "on its way"))
		waits(t, "Scrub", func() error {
			read, err := a.Scrub(t.Context(), time.Millisecond)
			if err == nil && read != 11 {
				err = fmt.Errorf("%d of 11 entries were read", read)
			}
			return err
		}, func() { time.Sleep(time.Second); a.let() })
		a.end(t)
	})
}

func TestParallel_EmptyLog_BeginsWithWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t)
		mustStore(t, a.Store, own(1, 1, "x"))
		wantBounds(t, a.Store, 1, 1)
		a.let()
		synctest.Wait()
		wantBounds(t, a.Store, 1, 1)
		a.end(t)
	})
}

// What is on its way has to be in memory, all of it, and memory is bounded.
func TestParallel_BeyondItsBound_StoreLogsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, own(1, 1, "x"))
		large := func(i uint64) []*raft.Log { return []*raft.Log{own(i, 1, string(make([]byte, parallelBytesMax/4)))} }
		last := uint64(1)
		for range 3 { // the fourth does not fit, since an entry costs a little beside its data
			last++
			mustStore(t, a.Store, large(last)...)
		}
		for i := uint64(1); i <= last; i++ {
			if !a.recent.get(i, new(raft.Log)) {
				t.Errorf("entry %d is not in memory", i)
			}
		}
		waits(t, "what does not fit", func() error { return a.StoreLogs(large(last + 1)) }, a.let)
		a.end(t)
	})
}

// While the disk writes one entry, others gather, and share the next append.
func TestParallel_WhatGathers_IsOneAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, own(1, 1, "x"))
		mustStore(t, a.Store, own(2, 1, "first"))
		synctest.Wait() // it is being written
		for i := uint64(3); i <= 9; i++ {
			mustStore(t, a.Store, own(i, 1, "gathers"))
		}
		a.let()
		synctest.Wait()
		if last := a.onDisk(t); last != 2 {
			t.Errorf("the disk has everything up to %d", last)
		}
		a.let()
		synctest.Wait()
		if last := a.onDisk(t); last != 9 {
			t.Errorf("the disk has everything up to %d", last)
		}
		a.end(t)
	})
}

// sends is a transport that notes what commit index leaves.
type sends struct {
	raft.Transport
	commits []uint64
}

type sendsPipeline struct{ *sends }

func (s *sends) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) error {
	s.commits = append(s.commits, args.LeaderCommitIndex)
	return nil
}

func (s *sends) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return sendsPipeline{s}, nil
}

func (p sendsPipeline) AppendEntries(args *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	return nil, p.sends.AppendEntries("", "", args, nil)
}
func (p sendsPipeline) Consumer() <-chan raft.AppendFuture { return nil }
func (p sendsPipeline) Close() error                       { return nil }

func (a *ahead) answers(id raft.ServerID, term, last uint64) {
	a.answered(id, request(last-1, term, term, sealed(last, term, "x")), &raft.AppendEntriesResponse{Term: term, Success: true})
}

// Two of three have the entry, whatever the leader's disk does.
func TestParallel_AMajorityOfTheOthers_IsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 4)...)
		a.SetVoters(servers("a", "b", "c"))
		mustStore(t, a.Store, owns(11, 14, 4)...)
		done := make(chan error, 1)
		go func() { done <- a.Committed(12) }()
		waits := func(why string, held uint64) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("%s is enough: %v", why, err)
			default:
			}
			if got := a.HeldBack(14); got != held {
				t.Errorf("%s: what is committed is told up to %d, want %d", why, got, held)
			}
		}
		a.answers("b", 4, 13)
		waits("one follower", 10)
		a.answers("d", 4, 13)
		waits("one that has no vote", 10)
		a.answers("a", 4, 13)
		waits("this node's own word", 10)
		a.answered("c", request(12, 4, 4, sealed(13, 4, "x")), &raft.AppendEntriesResponse{Term: 4})
		waits("a refusal", 10)
		a.answered("c", request(13, 4, 4), &raft.AppendEntriesResponse{Term: 4, Success: true})
		waits("an answer to a heartbeat", 10)
		a.answers("c", 3, 13)
		waits("what a follower had in the term before", 10)
		a.answers("c", 4, 11)
		waits("less than the entry", 11)
		a.answers("c", 4, 12)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		a.answers("c", 4, 11) // late
		if got := a.HeldBack(14); got != 12 {
			t.Errorf("what is committed is told up to %d", got)
		}
		if last := a.onDisk(t); last != 10 {
			t.Errorf("the disk has everything up to %d", last)
		}
		a.end(t)
	})
}

// What followers answered to this node in a term in which it led before proves nothing now: another leader may have taken it back.
func TestParallel_AnswersOfAnOlderTerm_DoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		a.SetVoters(servers("a", "b", "c"))
		a.answers("b", 4, 13)
		a.answers("c", 4, 13)
		mustStore(t, a.Store, owns(11, 12, 6)...)
		if got := a.HeldBack(12); got != 10 {
			t.Errorf("what is committed is told up to %d, want 10", got)
		}
		a.answers("b", 6, 14) // with c, by what it answered in the term before, it would be a majority
		if got := a.HeldBack(12); got != 10 {
			t.Errorf("with one answer of this term what is committed is told up to %d, want 10", got)
		}
		waits(t, "Committed", func() error { return a.Committed(12) }, a.let)
		a.end(t)
	})
}

// So many others are a majority without this node.
func TestParallel_OthersThatAreNeeded(t *testing.T) {
	for voters, needed := range map[int]int{2: 2, 3: 2, 4: 3, 5: 3} {
		synctest.Test(t, func(t *testing.T) {
			a := newAhead(t, owns(1, 10, 1)...)
			all := []raft.ServerID{"a", "b", "c", "d", "e"}
			a.SetVoters(servers(all[:voters]...))
			mustStore(t, a.Store, owns(11, 12, 1)...)
			for others, id := range all[1:voters] {
				want := uint64(10)
				if others+1 >= needed {
					want = 12
				}
				if a.answers(id, 1, 12); a.HeldBack(12) != want {
					t.Errorf("%d voters, %d others: %d is told, want %d", voters, others+1, a.HeldBack(12), want)
				}
			}
			a.end(t)
		})
	}
}

// The answers of a pipeline count before raft sees them, in their order, and its goroutine ends with it.
func TestParallel_Pipeline_TellsWhatItsFollowerHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		a.SetVoters(servers("a", "b"))
		_, link := raft.NewInmemTransport("a")
		_, peer := raft.NewInmemTransport("b")
		link.Connect("b", peer)
		g := a.Guard(link)
		go func() {
			for range 2 {
				rpc := <-peer.Consumer()
				rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true}, nil)
			}
		}()
		pipeline, err := g.AppendEntriesPipeline("b", "b")
		if err != nil {
			t.Fatal(err)
		}
		for i := uint64(11); i <= 12; i++ {
			if _, err := pipeline.AppendEntries(request(i-1, 1, 1, sealed(i, 1, "x")), &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
		}
		for i := uint64(11); i <= 12; i++ {
			f := <-pipeline.Consumer()
			if got := f.Request().Entries[0].Index; got != i {
				t.Errorf("the answer for %d came where that for %d belongs", got, i)
			}
			a.parallel.mu.Lock()
			if has := a.parallel.matched["b"]; has < i {
				t.Errorf("raft sees the answer for %d, and %d is noted", i, has)
			}
			a.parallel.mu.Unlock()
		}
		if err := errors.Join(pipeline.Close(), pipeline.Close(), g.(raft.WithClose).Close()); err != nil {
			t.Error(err)
		}
		a.end(t)
	})
}

// raft counts the leader in before its disk has the entry. A follower would apply what may be lost with this process.
func TestParallel_TheCommitIndex_LeavesWhenTheEntryIsDurableHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		_, link := raft.NewInmemTransport("a")
		out := &sends{Transport: link}
		g := a.Guard(out)
		pipeline, err := g.AppendEntriesPipeline("b", "b")
		if err != nil {
			t.Fatal(err)
		}
		send := func(commit uint64) {
			t.Helper()
			if err := g.AppendEntries("b", "b", &raft.AppendEntriesRequest{LeaderCommitIndex: commit}, &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
			if _, err := pipeline.AppendEntries(&raft.AppendEntriesRequest{LeaderCommitIndex: commit}, &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
		}
		mustStore(t, a.Store, owns(11, 12, 1)...)
		send(0)
		send(9)
		send(11)
		send(12)
		a.let()
		synctest.Wait()
		send(12)
		if got, want := fmt.Sprint(out.commits), "[0 0 9 9 10 10 10 10 12 12]"; got != want {
			t.Errorf("the commit indexes that left are %s, want %s", got, want)
		}
		a.end(t)
		if err := errors.Join(pipeline.Close(), g.(raft.WithClose).Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestParallel_AppendThatFails_IsFatal_AndNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		mustStore(t, a.Store, own(11, 1, "x"))
		ended := make(chan error, 4)
		go func() { ended <- a.Committed(11) }()
		go func() { ended <- a.SetUint64([]byte(raftCurrentTerm), 2) }()
		go func() { ended <- a.DeleteRange(11, 11) }()
		go func() { ended <- a.StoreLogs([]*raft.Log{sealed(12, 1, "y")}) }()
		synctest.Wait()
		a.disk.fail = "StoreLogs"
		close(a.disk.hang)
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, ErrFailed) || !errors.Is(err, errDisk) {
				t.Errorf("%v, want the error of the disk", err)
			}
		}
		a.fatals.wantOne(t, errDisk)
		if err := a.StoreLogs([]*raft.Log{own(12, 1, "y")}); !errors.Is(err, ErrFailed) {
			t.Errorf("stored after the failure: %v", err)
		}
		if err := a.Close(); !errors.Is(err, errDisk) {
			t.Errorf("Close = %v", err)
		}
	})
}

func TestParallel_AppendThatHangs_IsFatal_AndNobodyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		mustStore(t, a.Store, own(11, 1, "x"))
		if err := a.Committed(11); !errors.Is(err, ErrHung) {
			t.Errorf("Committed = %v", err)
		}
		a.fatals.wantOne(t, ErrHung)
		close(a.disk.hang)
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestParallel_Close_WritesWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		mustStore(t, a.Store, own(11, 1, "x"))
		waits(t, "Close", a.Close, a.let)
		if last := a.onDisk(t); last != 11 {
			t.Errorf("the disk has everything up to %d", last)
		}
		a.fatals.wantNone(t)
	})
}

// held is a log store that stands still until it is let go.
type held struct {
	raft.LogStore
	let  chan struct{}
	fail error
}

func (h *held) StoreLogs(logs []*raft.Log) error {
	<-h.let
	if h.fail != nil {
		return h.fail
	}
	return h.LogStore.StoreLogs(logs)
}

// The high-water file never runs ahead of the disk: after a power cut its node would be refused for what it never acknowledged.
// And a stop whose last append has failed is not one in order.
func TestParallel_HighWater_KnowsWhatIsDurable(t *testing.T) {
	for _, kind := range []string{KindWAL, KindBolt} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			f := &fatals{}
			s, err := Open(Options{Dir: dir, Kind: kind, Logger: quiet, Fatal: f.record, Owner: "n1-a", Parallel: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.OpenSnapshots(t.TempDir(), 2); err != nil {
				t.Fatal(err)
			}
			mustStore(t, s, owns(1, 10, 1)...)
			if err := s.Committed(10); err != nil {
				t.Fatal(err)
			}
			disk := &held{LogStore: s.log, let: make(chan struct{})}
			s.log = disk
			mustStore(t, s, own(11, 1, "x"))
			noted := func() HighWater {
				s.high.mu.Lock()
				defer s.high.mu.Unlock()
				return s.high.mark
			}
			if m := noted(); m.Index != 10 {
				t.Errorf("%d is noted, and 10 is durable", m.Index)
			}
			disk.fail = errDisk
			close(disk.let)
			if err := s.Close(); !errors.Is(err, errDisk) {
				t.Errorf("Close = %v", err)
			}
			if m := noted(); m.Index != 10 || m.Clean {
				t.Errorf("noted at the end: %+v", m)
			}
		})
	}
}

// What a snapshot brought is not taken back by an append that ends after it.
func TestParallel_HighWater_IsNotLoweredByALateAppend(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir, Logger: quiet, Fatal: (&fatals{}).record, Owner: "n1-a", Parallel: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.OpenSnapshots(t.TempDir(), 2); err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, owns(1, 10, 1)...)
	if err := s.Committed(10); err != nil {
		t.Fatal(err)
	}
	if err := s.snapshotDone(&raft.SnapshotMeta{Index: 50, Term: 2}); err != nil {
		t.Fatal(err)
	}
	s.acknowledged(own(11, 1, "late"))
	s.high.mu.Lock()
	defer s.high.mu.Unlock()
	if m := s.high.mark; m.Index != 50 || m.Term != 2 {
		t.Errorf("noted: %+v", m)
	}
}

// A stop in order over a disk that hangs ends as the watchdog has it, and not never.
func TestParallel_Close_OverADiskThatHangs_IsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(t, owns(1, 10, 1)...)
		mustStore(t, a.Store, own(11, 1, "x"))
		closed := make(chan error, 1)
		go func() { closed <- a.Close() }()
		synctest.Wait()
		if err := a.StoreLogs([]*raft.Log{own(12, 1, "nobody would write it")}); !errors.Is(err, ErrClosed) {
			t.Errorf("stored while it closes: %v", err)
		}
		time.Sleep(time.Hour)
		a.fatals.wantOne(t, ErrHung)
		close(a.disk.hang)
		<-closed
	})
}
