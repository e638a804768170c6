package cluster

import (
	"context"
	"testing"
	"time"

	"onceq/cluster/raftlog"
)

// TestCureInstalls_TakesANewerSnapshotThoughNobodyWrites: the second line of
// defence against a follower that is sent one snapshot without end.
func TestCureInstalls_TakesANewerSnapshotThoughNobodyWrites(t *testing.T) {
	const bound = 60 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	n, err := Start(ctx, Config{Name: "n1", DataDir: t.TempDir(), Bind: "127.0.0.1:0", BootstrapExpect: 1,
		Fatal: func(err error) { t.Errorf("died: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Kill()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	until := func(what string, f func() bool) {
		t.Helper()
		for !f() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatal(what)
			}
		}
	}
	until("no leader", func() bool { return n.Status().Serving })
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	before := n.Status().SnapshotIndex
	n.group.Load().noteRepeatedInstall(raftlog.RepeatedInstall{Peer: "n2", Index: before, Installs: 2})
	until("no newer snapshot", func() bool { return n.Status().SnapshotIndex > before })
}
