package cluster_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/cluster/raftlog"
)

// TestBootstrap_TheTermIsWrittenAndTheConfigurationIsNot: a crash between the two must
// not leave a cluster without members. Its identity says by then that nobody else forms it.
func TestBootstrap_TheTermIsWrittenAndTheConfigurationIsNot(t *testing.T) {
	t.Parallel()
	log := raft.NewInmemStore()
	s := raftlog.Wrap(log, log, raftlog.Options{})
	if err := s.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n, err := startAlone(t, t.TempDir(), log, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	waitServing(t, n)
}

// TestBootstrap_TheDiskFailsUnderTheConfiguration: and whoever starts the node again gets
// the cluster that was agreed on.
func TestBootstrap_TheDiskFailsUnderTheConfiguration(t *testing.T) {
	t.Parallel()
	dir, stable := t.TempDir(), raft.NewInmemStore()
	log := &failingOnce{InmemStore: stable}
	if _, err := startAlone(t, dir, log, stable, func(error) {}); err == nil || !log.failed.Load() {
		t.Fatalf("the first start: %v", err)
	}
	n, err := startAlone(t, dir, log, stable, nil)
	if err != nil {
		t.Fatal(err)
	}
	waitServing(t, n)
	want := n.Status().ServerID
	n.Kill()
	if n, err = startAlone(t, dir, log, stable, nil); err != nil {
		t.Fatal(err)
	}
	waitServing(t, n)
	if is := n.Status().ServerID; is != want {
		t.Errorf("server %s after another start, want %s", is, want)
	}
}

var errOnce = errors.New("the disk fails once")

// failingOnce is a log whose first append fails.
type failingOnce struct {
	*raft.InmemStore
	failed atomic.Bool
}

func (l *failingOnce) StoreLogs(logs []*raft.Log) error {
	if !l.failed.Swap(true) {
		return errOnce
	}
	return l.InmemStore.StoreLogs(logs)
}

// startAlone starts a node that forms a cluster of one. fatal is what may happen to it,
// nil if nothing may.
func startAlone(t *testing.T, dir string, log raft.LogStore, stable raft.StableStore, fatal func(error)) (*cluster.Node, error) {
	t.Helper()
	if fatal == nil {
		fatal = func(err error) { t.Errorf("the node died: %v", err) }
	}
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Bound)
	defer cancel()
	n, err := cluster.Start(ctx, cluster.Config{
		Name: "n1", DataDir: dir, Bind: "127.0.0.1:0", BootstrapExpect: 1, Fatal: fatal,
		MemoryStores: func() (raft.LogStore, raft.StableStore, raft.SnapshotStore) {
			return log, stable, raftlog.NewMemorySnapshots()
		},
	})
	if err == nil {
		t.Cleanup(n.Kill)
	}
	return n, err
}

func waitServing(t *testing.T, n *cluster.Node) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		if !n.Status().Serving {
			return "it does not serve"
		}
		return ""
	})
}
