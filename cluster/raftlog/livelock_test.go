package raftlog

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// linkDelay is what a request takes. The livelock does not wait between its rounds, so without it virtual time would stand still.
const linkDelay = time.Millisecond

// lossyLink loses the reply to the first request that carries entries after a snapshot was installed: the follower has stored them.
type lossyLink struct {
	forward
	mu       sync.Mutex
	installs int
	lost     int
}

func (k *lossyLink) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (k *lossyLink) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, r io.Reader) error {
	k.mu.Lock()
	k.installs++
	k.mu.Unlock()
	time.Sleep(linkDelay)
	return k.Transport.InstallSnapshot(id, to, req, resp, r)
}

func (k *lossyLink) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	time.Sleep(linkDelay)
	err := k.Transport.AppendEntries(id, to, req, resp)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil && resp.Success && len(req.Entries) > 0 && k.installs > 0 && k.lost == 0 {
		k.lost++
		*resp = raft.AppendEntriesResponse{}
		return errors.New("connection reset by peer")
	}
	return err
}

func (k *lossyLink) counts() (installs, lost int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.installs, k.lost
}

// withoutHeader takes the answer for the snapshot's last entry away.
type withoutHeader struct{ *Store }

func (s withoutHeader) GetLog(i uint64, l *raft.Log) error {
	err := s.Store.GetLog(i, l)
	if err == nil && len(l.Extensions) == 1 {
		return raft.ErrLogNotFound
	}
	return err
}

// One lost reply after InstallSnapshot. With the library alone leader and follower exchange the same snapshot for ever.
func TestLivelock_OneLostReplyAfterASnapshot(t *testing.T) {
	const many = 5
	for _, c := range []struct {
		name     string
		bare     bool
		header   bool
		watch    bool
		livelock bool
		back     bool
	}{
		{name: "library alone", bare: true, livelock: true, back: true},
		{name: "without the header", livelock: true},                    // the state machine at least stays where it is
		{name: "without the header, with the second line", watch: true}, // a newer snapshot helps
		{name: "cured", header: true, watch: true},                      // one install, and the second line has nothing to do
		{name: "cured, first line alone", header: true},                 //
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := nodeOptions{bare: c.bare}
				if !c.header && !c.bare {
					o.log = func(s *Store, _ raft.LogStore) raft.LogStore { return withoutHeader{s} }
				}
				link := &lossyLink{}
				repeated := make(chan RepeatedInstall, 10_000)
				leading := o
				leading.out = func(t raft.Transport) raft.Transport {
					link.forward = forward{t}
					if c.watch {
						return WatchInstalls(expose(link), func(r RepeatedInstall) { repeated <- r })
					}
					return expose(link)
				}
				a := startNode(t, "a", newDisk(), leading)
				follower := startNode(t, "c", newDisk(), o)
				if err := a.BootstrapCluster(leaderAndLearner()).Error(); err != nil {
					t.Fatal(err)
				}
				a.waitLeader(t)
				for i := range 50 {
					a.apply(t, fmt.Sprintf("before %d", i))
				}
				if err := a.Snapshot().Error(); err != nil {
					t.Fatal(err)
				}
				for i := range 30 {
					a.apply(t, fmt.Sprintf("after %d", i))
				}
				go func() { // the second line
					for r := range repeated {
						if r.Peer != "c" || r.Installs < 2 {
							t.Errorf("reported %+v", r)
						}
						a.Barrier(time.Minute).Error()
						a.Snapshot().Error()
					}
				}()
				connect(a, follower)
				for range 1000 {
					if _, lost := link.counts(); lost > 0 {
						break
					}
					time.Sleep(10 * linkDelay)
				}
				a.apply(t, "and it goes on")
				caught := caughtUp(a, follower, 5*time.Second)
				installs, lost := link.counts()
				_, back := follower.fsm.counts()
				t.Logf("%d installs, state machine went back %d times, caught up: %v", installs, back, caught)
				if lost != 1 {
					t.Fatalf("%d replies were lost: the test does not test", lost)
				}
				switch {
				case c.livelock && (caught || installs < many):
					t.Errorf("no livelock: this variant must show what the cure cures")
				case !c.livelock && !caught:
					t.Errorf("the follower does not catch up")
				case c.header && installs != 1:
					t.Errorf("%d installs, want 1", installs)
				}
				if (back > 0) != c.back {
					t.Errorf("the follower's state machine went back %d times", back)
				}
				a.fatals.wantNone(t)
				follower.fatals.wantNone(t)
				a.stop(t)
				follower.stop(t)
				close(repeated)
			})
		})
	}
}

// entries is a log of commands behind a configuration at 1.
func entries(to, term uint64, what string) []*raft.Log {
	out := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(leaderAndLearner())}}
	for i := uint64(2); i <= to; i++ {
		out = append(out, own(i, term, fmt.Sprintf("%s %d", what, i)))
	}
	return out
}

func texts(logs []*raft.Log) (out []string) {
	for _, l := range logs[1:] {
		out = append(out, string(l.Data))
	}
	return out
}

// fill writes a log and a snapshot onto a disk, with or without checksums.
func (d *disk) fill(t *testing.T, bare bool, term uint64, logs []*raft.Log, snap, snapTerm uint64, content []string) {
	t.Helper()
	if !bare {
		s := Wrap(d.mem, d.mem, Options{Logger: quiet, Fatal: func(err error) { t.Error(err) }})
		defer s.Close()
		if len(logs) > 0 {
			mustStore(t, s, logs...)
		}
		if err := s.SetUint64([]byte("CurrentTerm"), term); err != nil {
			t.Fatal(err)
		}
	} else {
		if err := d.mem.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
		if err := d.mem.SetUint64([]byte("CurrentTerm"), term); err != nil {
			t.Fatal(err)
		}
	}
	if snap == 0 {
		return
	}
	sink, err := d.snaps.Create(1, snap, snapTerm, leaderAndLearner(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := listSnapshot(content).Persist(sink); err != nil {
		t.Fatal(err)
	}
}

// naiveHeader answers with a header whenever the log lacks the snapshot's last entry.
type naiveHeader struct {
	raft.LogStore
	index, term uint64
}

func (s naiveHeader) GetLog(i uint64, l *raft.Log) error {
	err := s.LogStore.GetLog(i, l)
	if err == raft.ErrLogNotFound && i == s.index {
		*l = raft.Log{Index: s.index, Term: s.term, Type: raft.LogNoop}
		return nil
	}
	return err
}

// A leader whose snapshot ends at S and whose log ends at S-1, as after a crash between the two steps of an install, and a follower
// whose log ends at S-1. A header for S given to the leader's own replication replaces the command that was at S.
func TestHeader_IsNeverReplicatedAsTheEntry(t *testing.T) {
	const snap = 20
	for _, naive := range []bool{true, false} {
		t.Run(fmt.Sprintf("naive=%v", naive), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := entries(snap, 1, "command")
				da, dc := newDisk(), newDisk()
				da.fill(t, naive, 1, all[:snap-1], snap, 1, texts(all))
				dc.fill(t, naive, 1, entries(snap-1, 1, "command"), 0, 0, nil)
				o := nodeOptions{bare: naive}
				follower := startNode(t, "c", dc, o)
				if naive {
					o.log = func(_ *Store, l raft.LogStore) raft.LogStore { return naiveHeader{l, snap, 1} }
				}
				a := startNode(t, "a", da, o)
				connect(a, follower)
				a.waitLeader(t)
				a.apply(t, "the next")
				same := caughtUp(a, follower, time.Minute)
				t.Logf("leader %d, follower %d commands", len(a.fsm.list()), len(follower.fsm.list()))
				if same == naive {
					t.Errorf("replicas are the same: %v", same)
				}
				if naive && follower.AppliedIndex() < a.AppliedIndex() {
					t.Errorf("the follower is at %d of %d: it must have caught up and be wrong, or this is not the divergence", follower.AppliedIndex(), a.AppliedIndex())
				}
				a.fatals.wantNone(t)
				follower.fatals.wantNone(t)
				a.stop(t)
				follower.stop(t)
			})
		})
	}
}

// A follower whose log conflicts with the leader's and reaches beyond the leader's snapshot. raft empties that log, keeps its end
// in memory, and refuses every append for it: the library alone sends the snapshot for ever. Here the follower starts again.
func TestConflictingTailBeyondTheSnapshot(t *testing.T) {
	const snap = 30
	for _, c := range []struct {
		bare   bool
		beyond uint64
	}{{true, 15}, {true, 0}, {false, 15}, {false, 0}} {
		bare := c.bare
		t.Run(fmt.Sprintf("bare=%v, beyond=%d", bare, c.beyond), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				committed := entries(snap, 2, "committed")
				da, dc := newDisk(), newDisk()
				da.fill(t, bare, 2, nil, snap, 2, texts(committed))
				dc.fill(t, bare, 1, entries(snap+c.beyond, 1, "never committed"), 0, 0, nil)
				o := nodeOptions{bare: bare}
				link := &lossyLink{lost: 1} // counts, and loses nothing
				leading := o
				leading.out = func(t raft.Transport) raft.Transport {
					link.forward = forward{t}
					return expose(link)
				}
				if bare { // the library with a store like raft-wal
					o.log = func(_ *Store, l raft.LogStore) raft.LogStore { return monotonic{l} }
				}
				follower := startNode(t, "c", dc, o)
				a := startNode(t, "a", da, leading)
				connect(a, follower)
				a.waitLeader(t)
				a.apply(t, "the next")
				caught := caughtUp(a, follower, 5*time.Second)
				installs, _ := link.counts()
				t.Logf("%d installs, caught up: %v", installs, caught)
				if bare {
					if caught || installs < 5 {
						t.Errorf("no livelock: this variant must show it")
					}
				} else {
					follower.fatals.wantOne(t, ErrRestart)
					follower.stop(t)
					follower = startNode(t, "c", dc, o)
					connect(a, follower)
					if !caughtUp(a, follower, time.Minute) {
						t.Errorf("the follower does not catch up after its restart")
					}
					if got := strings.Join(follower.fsm.list(), ","); strings.Contains(got, "never") {
						t.Errorf("the follower applied %s", got)
					}
					follower.fatals.wantNone(t)
				}
				a.fatals.wantNone(t)
				a.stop(t)
				follower.stop(t)
			})
		})
	}
}

type monotonic struct{ raft.LogStore }

func (monotonic) IsMonotonic() bool { return true }
