package member

import (
	"time"

	"github.com/hashicorp/raft"
)

// pipelineStall is how long a pipelined request may wait to be taken by the
// goroutine that reads the answers. raft's peer timeout bounds each answer.
const pipelineStall = 10 * time.Second

// AppendEntriesPipeline bounds the pipeline's requests, and tells how far they are:
// raft begins one when the follower has what is before it.
func (t *guardTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return &boundPipeline{p, pipelineStall, func(index uint64) { t.follows(id, index) }}, nil
}

// boundPipeline closes a pipeline in which a request is stuck. raft stops taking
// answers at the first that is a refusal, and the library's pipeline then waits
// with the next one for somebody to take it; a request that is just being handed
// over waits behind that, and nothing ends it: the follower gets no more entries
// while this leader leads, and raft does not end when it is shut down.
type boundPipeline struct {
	raft.AppendPipeline
	stall   time.Duration
	follows func(index uint64)
}

func (p *boundPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	stop := time.AfterFunc(p.stall, func() { p.AppendPipeline.Close() })
	defer stop.Stop()
	p.follows(args.PrevLogEntry)
	return p.AppendPipeline.AppendEntries(args, resp)
}
