package member

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// stuckPipeline takes nothing until it is closed.
type stuckPipeline struct {
	raft.AppendPipeline
	closed chan struct{}
}

func (p *stuckPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	<-p.closed
	return nil, raft.ErrPipelineShutdown
}

func (p *stuckPipeline) Close() error {
	close(p.closed)
	return nil
}

type stuckTransport struct {
	raft.Transport
	pipeline *stuckPipeline
}

func (t *stuckTransport) Consumer() <-chan raft.RPC { return nil }
func (t *stuckTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.pipeline, nil
}

// TestGuard_AStuckPipelineEnds: raft waits in AppendEntries, and would for ever.
func TestGuard_AStuckPipelineEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &stuckTransport{pipeline: &stuckPipeline{closed: make(chan struct{})}}
		g := GuardTransport(inner, Guard{}).(*guardTransport)
		defer func() {
			close(g.done)
			g.wg.Wait()
		}()
		p, err := g.AppendEntriesPipeline("n2-0123456789ab", "n2:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); !errors.Is(err, raft.ErrPipelineShutdown) {
			t.Errorf("a stuck request ended with %v", err)
		}
	})
}
