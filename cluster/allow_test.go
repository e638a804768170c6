package cluster_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"onceq/cluster/clustertest"
	"onceq/cluster/member"
	"onceq/transport/wire"
)

// TestRemovedNode_ThatStillRuns_CannotDisturb: it has the secret, is no member
// any more and has not been told to end. Whatever its raft may send, the leader
// leads on in its term.
func TestRemovedNode_ThatStillRuns_CannotDisturb(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady)
	leader, _, s := ready(t, c, "orders")
	victim := c.Others(leader)[0]
	whenItCan(t, c, wire.OpMemberRemove, victim.NodeID)
	if now := c.WaitLeader(); now != leader {
		t.Fatalf("the leader changed by itself, from %s to %s", leader.NodeID, now.NodeID)
	}
	term := leader.Status().Term
	target := member.DialedAddress(raft.ServerID(leader.Status().ServerID), leader.Address)
	id := raft.ServerID(leader.Status().ServerID)
	forger, header := victim.Forger(), victim.RPCHeader()
	high := term + 10
	for name, send := range map[string]func() error{
		"vote": func() error {
			return forger.RequestVote(id, target, &raft.RequestVoteRequest{RPCHeader: header, Term: high, LastLogIndex: 1 << 40, LastLogTerm: high, LeadershipTransfer: true}, new(raft.RequestVoteResponse))
		},
		"heartbeat": func() error {
			return forger.AppendEntries(id, target, &raft.AppendEntriesRequest{RPCHeader: header, Term: high}, new(raft.AppendEntriesResponse))
		},
		"entries": func() error {
			return forger.AppendEntries(id, target, &raft.AppendEntriesRequest{RPCHeader: header, Term: high, PrevLogEntry: 1, PrevLogTerm: 1}, new(raft.AppendEntriesResponse))
		},
		"election": func() error {
			return forger.TimeoutNow(id, target, &raft.TimeoutNowRequest{RPCHeader: header}, new(raft.TimeoutNowResponse))
		},
		"snapshot": func() error {
			return forger.InstallSnapshot(id, target, &raft.InstallSnapshotRequest{RPCHeader: header, SnapshotVersion: raft.SnapshotVersionMax, Term: high, LastLogIndex: 1 << 40, LastLogTerm: high}, new(raft.InstallSnapshotResponse), strings.NewReader(""))
		},
	} {
		err := send()
		if !errors.Is(err, member.ErrRefused) || !strings.Contains(err.Error(), "not a member") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p := publishOne(t, c, s, 1, "orders", 1); p.Status != wire.StatusOK {
		t.Errorf("publish: %+v", p)
	}
	if now := leader.Status(); now.Term != term || !now.Serving {
		t.Errorf("%s leads: %v, in term %d, was %d", leader.NodeID, now.Serving, now.Term, term)
	}
}
