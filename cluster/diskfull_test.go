package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/cluster/clustertest/volume"
	"onceq/transport/wire"
)

// A follower's disk that is almost full is enough: the leader refuses publishes
// and takes acks, and all is well again when there is room.
func TestThreeNodes_AFollowersDiskAlmostFull_PublishesAreRefusedAndAcksTaken(t *testing.T) {
	small := volume.Tmpfs(t, 512<<20)
	c := clustertest.New(t, 3, func(cfg *cluster.Config) {
		cfg.DiskReserve = 1 // what the log and the snapshots need is reserved in any case
		if cfg.Name == "n2" {
			cfg.DataDir = small
		}
	})
	cl := connect(t, c)
	createQueue(t, c, "orders", wire.QueueSettings{})
	p := producerOf(t, cl, "orders")
	stored := 0
	publish := func() error {
		_, err := p.Publish(bounded(t), client.Message{Body: []byte(fmt.Sprint("message ", stored))})
		if err == nil {
			stored++
		}
		return err
	}
	for range 3 {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	ballast := volume.Fill(t, small, 100<<20)
	clustertest.Eventually(t, func() string {
		switch err := publish(); {
		case err == nil:
			return "publishes are still taken"
		case !errors.Is(err, client.ErrDiskFull):
			t.Fatalf("publish: %v, want ErrDiskFull", err)
		}
		return ""
	})
	clustertest.Eventually(t, func() string { // it may have looked while the disk was being filled
		if s := c.Node(1).Status(); s.Disk != "low" || s.DiskTotal != 512<<20 || s.DiskFree > 100<<20 {
			return fmt.Sprintf("n2 says of its disk: %s, %d of %d", s.Disk, s.DiskFree, s.DiskTotal)
		}
		return ""
	})
	got := newReceived()
	consume(t, cl, "orders", func(ctx context.Context, d *client.Delivery) error { got.note(d); return nil })
	got.waitFor(t, stored)
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders").Counts; k.Acked != uint64(stored) {
			return fmt.Sprintf("counts %+v, want %d acked", k, stored)
		}
		return ""
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	clustertest.Eventually(t, func() string {
		if err := publish(); err != nil {
			return err.Error()
		}
		return ""
	})
}

// A disk that others fill costs a node its ballast and not its life: the snapshot
// that makes room is taken, also right after a start, acks are confirmed, and with
// the room the ballast comes back.
func TestDiskFull_BallastIsGivenUpForASnapshot(t *testing.T) {
	small := volume.Tmpfs(t, 512<<20)
	const size = 48 << 20
	c := clustertest.New(t, 1, func(cfg *cluster.Config) {
		cfg.DataDir, cfg.DiskReserve, cfg.DiskBallast = filepath.Join(small, "n1"), 1, size
		cfg.LogBytes, cfg.SnapshotInterval = 64<<20, time.Hour
	})
	n := c.Node(0)
	ballast := filepath.Join(small, "n1", "ballast")
	waitBallast := func(want uint64) {
		t.Helper()
		clustertest.Eventually(t, func() string {
			info, err := os.Stat(ballast)
			if there := err == nil && info.Size() == int64(want); there != (want > 0) || n.Status().DiskBallast != want {
				return fmt.Sprintf("ballast %v, %v, status says %d; want %d", info, err, n.Status().DiskBallast, want)
			}
			return ""
		})
	}
	waitBallast(size)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	p := producerOf(t, cl, "orders")
	publish := func() error { _, err := p.Publish(bounded(t), client.Message{Body: []byte("message")}); return err }
	for range 3 {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	before := n.Status().SnapshotIndex
	full := volume.Fill(t, small, 8<<20)
	waitBallast(0)
	clustertest.Eventually(t, func() string {
		if now := n.Status().SnapshotIndex; now <= before {
			return fmt.Sprintf("no snapshot was taken: the newest is at %d", now)
		}
		return ""
	})
	if err := publish(); !errors.Is(err, client.ErrDiskFull) {
		t.Errorf("publish: %v, want ErrDiskFull", err)
	}
	got := newReceived()
	consume(t, cl, "orders", func(_ context.Context, d *client.Delivery) error { got.note(d); return nil })
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders").Counts; k.Acked != 3 {
			return fmt.Sprintf("counts %+v, want 3 acked", k)
		}
		return ""
	})
	remove := func() {
		t.Helper()
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		waitBallast(size)
	}
	remove()
	clustertest.Eventually(t, func() string {
		if err := publish(); err != nil {
			return err.Error()
		}
		return ""
	})
	// Filled while the node is down: it gives the ballast up before it opens anything.
	c.Kill(n)
	full = volume.Fill(t, small, 0)
	c.Restart(n)
	waitBallast(0)
	remove()
	// A cluster on one machine has none unless it is told to.
	c.Kill(n)
	c.Configure(func(cfg *cluster.Config) { cfg.DiskBallast = 0 })
	c.Restart(n)
	waitBallast(0)
}

// The log is read in the background, and a flipped bit in it ends the node.
func TestScrub_FindsAFlippedBit(t *testing.T) {
	died := make(chan error, 1)
	c := clustertest.New(t, 1, func(cfg *cluster.Config) {
		cfg.ScrubEvery = 10 * time.Millisecond
		cfg.Fatal = func(err error) { died <- err }
	})
	n, _, s := ready(t, c, "orders")
	publishOne(t, c, s, 1, "orders", 1)
	flipTail(t, n, 200)
	select {
	case err := <-died:
		t.Log(err)
	case <-time.After(clustertest.Bound):
		t.Fatal("nobody has noticed")
	}
}
