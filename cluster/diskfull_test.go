package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	cl, ctx := connect(t, c), bounded(t)
	createQueue(t, c, "orders", wire.QueueSettings{})
	p := producerOf(t, cl, "orders")
	stored := 0
	publish := func() error {
		_, err := p.Publish(ctx, client.Message{Body: []byte(fmt.Sprint("message ", stored))})
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
	if s := c.Node(1).Status(); s.Disk != "low" || s.DiskTotal != 512<<20 || s.DiskFree > 100<<20 {
		t.Errorf("n2 says of its disk: %s, %d of %d", s.Disk, s.DiskFree, s.DiskTotal)
	}
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
