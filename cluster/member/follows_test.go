package member

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// takingTransport has a follower that takes everything or nothing.
type takingTransport struct {
	raft.Transport
	takes bool
}

func (t *takingTransport) Consumer() <-chan raft.RPC { return nil }

func (t *takingTransport) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, _ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	resp.Success = t.takes
	return nil
}

func (t *takingTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return takingPipeline{}, nil
}

type takingPipeline struct{ raft.AppendPipeline }

func (takingPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	return nil, nil
}

// What a follower has taken is told; what it refuses, and heartbeats, say nothing
// of that.
func TestGuard_TellsHowFarAFollowerIs(t *testing.T) {
	t.Parallel()
	var told []uint64
	inner := &takingTransport{takes: true}
	g := GuardTransport(inner, Guard{
		CurrentTerm: func() uint64 { return 1 },
		Follows: func(id raft.ServerID, index uint64) {
			if id != "n2-b" {
				t.Errorf("told of %s", id)
			}
			told = append(told, index)
		},
	}).(*guardTransport)
	defer func() {
		close(g.done)
		g.wg.Wait()
	}()
	send := func(previous uint64, entries int) {
		t.Helper()
		req := &raft.AppendEntriesRequest{PrevLogEntry: previous, Entries: make([]*raft.Log, entries)}
		if err := g.AppendEntries("n2-b", "n2:1", req, &raft.AppendEntriesResponse{}); err != nil {
			t.Fatal(err)
		}
	}
	send(0, 0) // a heartbeat
	send(0, 3)
	send(7, 0)
	inner.takes = false
	send(100, 8) // raft looks for where the follower's log ends
	p, err := g.AppendEntriesPipeline("n2-b", "n2:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.AppendEntries(&raft.AppendEntriesRequest{PrevLogEntry: 20, Entries: make([]*raft.Log, 8)}, &raft.AppendEntriesResponse{}); err != nil {
		t.Fatal(err)
	}
	if want := []uint64{3, 7, 20}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}
