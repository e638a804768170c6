package cluster

import (
	"log/slog"
	"testing"
	"testing/synctest"

	"onceq/cluster/raftlog"
	"onceq/transport/wire"
)

// Raft stands still until its notification is taken: it neither votes nor replicates.
// So each is taken, more than the channel has places, while what the node asked of
// raft in the terms before is still without an answer.
func TestLeadership_TakesEachNotification_WhileRaftAnswersNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clk := newClock(monotonic())
		g := &group{clock: clk, mono: clk.mono, hub: newHub(nil, clk), log: slog.New(slog.DiscardHandler), life: &life{}}
		g.receives = newReceives(g.hub, clk.mono)
		g.ticker = newTicker(g)
		g.topology = newTopology(g, wire.NodeAddress{}, nil)
		g.proposer = newProposer(proposerConfig{clock: clk, mono: clk.mono, wall: func() int64 { return 0 },
			ended: make(chan struct{}), refusal: func() *wire.ErrorReply { return &wire.ErrorReply{} }, classify: raftlog.Classify})
		g.lead = newLeadership(g)
		end, ended, answers := make(chan struct{}), make(chan struct{}), make(chan struct{})
		asked := 0
		go func() {
			defer close(ended)
			g.lead.run(end, func(func()) {
				asked++
				go func() { <-answers }()
			})
		}()

		const terms = 2 * notifyBuffer
		taken := 0
		go func() { // raft's loop
			for range terms {
				g.lead.notify <- true
				g.lead.notify <- false
				taken++
			}
		}()
		synctest.Wait()
		if taken != terms || asked != terms {
			t.Errorf("raft went on with %d of %d terms, and the node wanted to begin %d", taken, terms, asked)
		}
		if g.lead.leads || len(g.lead.notify) != 0 {
			t.Error("the last notification is not known")
		}
		close(end)
		close(answers)
		<-ended
		for len(g.lead.notify) > 0 {
			<-g.lead.notify
		}
	})
}
