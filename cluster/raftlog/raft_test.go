package raftlog

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The names of raft's keys are not exported: this fails when an upgrade changes them and votes would be two writes again.
func TestStable_RealVote_IsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, "a", newDisk(), nodeOptions{})
		if err := n.BootstrapCluster(leaderAndLearner()).Error(); err != nil {
			t.Fatal(err)
		}
		n.waitLeader(t)
		term, err := n.store.GetUint64([]byte(raftVoteTerm))
		if err != nil || term != n.CurrentTerm() {
			t.Errorf("voted in term %d, %v; the term is %d", term, err, n.CurrentTerm())
		}
		if cand, err := n.store.Get([]byte(raftVoteCandidate)); err != nil || string(cand) != "a" {
			t.Errorf("voted for %q, %v", cand, err)
		}
		if _, err := n.disk.mem.Get([]byte(voteKey)); err != nil {
			t.Errorf("the vote is not under its own key: %v", err)
		}
		for _, key := range []string{raftVoteTerm, raftVoteCandidate} {
			if v, err := n.disk.mem.Get([]byte(key)); err == nil {
				t.Errorf("%s was written by itself: %x", key, v)
			}
		}
		n.stop(t)
	})
}

// verifyingFSM verifies what Apply gets, as the cluster does.
type verifyingFSM struct {
	listFSM
	bad []error
}

func (f *verifyingFSM) Apply(l *raft.Log) any {
	if err := VerifyEntry(l); err != nil {
		f.bad = append(f.bad, fmt.Errorf("entry %d: %w", l.Index, err))
	}
	return f.listFSM.Apply(l)
}

// One node of the real library over each kind of store: apply, snapshot, compaction, restart.
func TestRaft_OverEachKind(t *testing.T) {
	eachKind(t, func(t *testing.T, open func() *Store, f *fatals) {
		dir := t.TempDir()
		var want []string
		for life := range 3 {
			s := open()
			snaps, err := s.OpenSnapshots(filepath.Join(dir, "group"), 2)
			if err != nil {
				t.Fatal(err)
			}
			_, link := raft.NewInmemTransport("a")
			conf := raft.DefaultConfig()
			conf.LocalID, conf.Logger, conf.TrailingLogs = "a", hclog.NewNullLogger(), 5
			conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
			fsm := &verifyingFSM{}
			r, err := raft.NewRaft(conf, fsm, s, s, snaps, s.Guard(link))
			if err != nil {
				t.Fatal(err)
			}
			if life == 0 {
				servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
				if err := r.BootstrapCluster(servers).Error(); err != nil {
					t.Fatal(err)
				}
			}
			for bound := time.Now().Add(time.Minute); r.State() != raft.Leader; {
				select {
				case <-r.LeaderCh():
				case <-time.After(time.Until(bound)):
					t.Fatal("no leader within a minute")
				}
			}
			for i := range 50 {
				what := fmt.Sprintf("life %d, command %d", life, i)
				if err := r.Apply([]byte(what), time.Minute).Error(); err != nil {
					t.Fatal(err)
				}
				want = append(want, what)
			}
			if err := r.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			if first, err := s.FirstIndex(); err != nil || first <= 1 {
				t.Fatalf("the log begins at %d, %v: nothing was compacted", first, err)
			}
			for i := range 10 {
				what := fmt.Sprintf("life %d, after the snapshot %d", life, i)
				if err := r.Apply([]byte(what), time.Minute).Error(); err != nil {
					t.Fatal(err)
				}
				want = append(want, what)
			}
			if err := r.Shutdown().Error(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if got := fsm.list(); !slices.Equal(got, want) {
				t.Fatalf("life %d: the machine holds %d commands, want %d", life, len(got), len(want))
			}
			if len(fsm.bad) > 0 {
				t.Fatalf("Apply got %v", fsm.bad)
			}
		}
		f.wantNone(t)
	})
}
