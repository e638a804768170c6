package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// TestSnapshot_IsTakenWhenTheLogHasGrownByBytes: few entries, many bytes; no
// node waits for raft's count of entries.
func TestSnapshot_IsTakenWhenTheLogHasGrownByBytes(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, func(c *cluster.Config) { c.LogBytes = 16 << 20 })
	_, _, s := ready(t, c, "orders")
	body := strings.Repeat("x", 512<<10)
	for seq := range uint64(12) {
		p := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.PublishReply, error) {
			return r.Publish(s, seq+1, "orders", clustertest.Publication("orders", seq+1, body))
		})
		if p.Results[0].Status != wire.StatusOK {
			t.Fatalf("publish: %+v", p)
		}
	}
	for _, n := range c.Up() {
		clustertest.Eventually(t, func() string {
			switch s := n.Status(); {
			case s.SnapshotIndex == 0:
				return fmt.Sprintf("%s has taken no snapshot", n.NodeID)
			case s.FreezeMax == 0:
				return n.NodeID + " does not tell how long its snapshot held up what is applied"
			}
			return ""
		})
	}
	c.RestartAll()
	if q := info(c, "orders"); q.Counts.Stored != 12 || q.Counts.Ready != 12 {
		t.Fatalf("after a restart from snapshots: %+v", q.Counts)
	}
	c.WaitCaughtUp()
	c.DigestsAgree()
}
