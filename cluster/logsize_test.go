package cluster_test

import (
	"context"
	"crypto/rand"
	"flag"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

var logSizeTime = flag.Duration("logsize", 0, "how long TestLogSize publishes the largest bodies with the default settings; 0: a small size of it")

// diskBytes is what the files below some directories take: one that has two names
// is there once.
func diskBytes(t *testing.T, dirs ...string) (n int64) {
	t.Helper()
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // removed meanwhile
			}
			info, err := d.Info()
			if err != nil {
				return nil
			}
			if inode := info.Sys().(*syscall.Stat_t).Ino; !seen[inode] {
				seen[inode] = true
				n += info.Size()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestLogSize_StaysBelowItsLimit: bodies, one after the other, with their acks: the
// log takes what it may and no more, and log and snapshots no more than that and one
// snapshot, for old ones are removed.
func TestLogSize_StaysBelowItsLimit(t *testing.T) {
	t.Parallel()
	for _, sizes := range []struct {
		name string
		of   func(most int) int
	}{
		{"largest", func(most int) int { return most }},
		{"mixed", func(most int) int { return 1 + mathrand.IntN(most) }},
	} {
		t.Run(sizes.name, func(t *testing.T) {
			t.Parallel()
			eachLogStore(t, func(t *testing.T, o clustertest.Option) { staysBelowItsLimit(t, o, sizes.of) })
		})
	}
}

func staysBelowItsLimit(t *testing.T, o clustertest.Option, sizeOf func(most int) int) {
	const small = 32 << 20
	// Small: so that the fewest entries that must stay are within their part.
	limit, size, inFlight := int64(small), 75<<10, 1
	if *logSizeTime > 0 {
		limit, size, inFlight = 1<<30, 1<<20-1024, 8
	}
	c := clustertest.New(t, 1, o, func(c *cluster.Config) { c.LogBytes, c.BodyMemory = uint64(limit), 16<<20 })
	createQueue(t, c, "large", wire.QueueSettings{})
	cl := connect(t, c)
	stop := consume(t, cl, "large", func(context.Context, *client.Delivery) error { return nil })
	defer stop()
	p := producerOf(t, cl, "large")
	ctx := t.Context()
	body := make([]byte, size)
	group := filepath.Join(c.Node(0).Dir, "groups/1")
	log, snapshots := filepath.Join(group, "log"), filepath.Join(group, "snapshots")
	var largest, most, snapshot, written int64
	began := time.Now()
	for written < 2*small || time.Since(began) < *logSizeTime {
		rand.Read(body)
		var fs []*client.Future
		for range inFlight {
			n := sizeOf(size)
			fs = append(fs, p.PublishAsync(ctx, client.Message{Body: append([]byte(nil), body[:n]...)}))
			written += int64(n)
		}
		for _, f := range fs {
			if _, err := f.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if largest = max(largest, diskBytes(t, log)); largest > limit {
			t.Fatalf("the log has %d MiB after %d MiB of messages, the limit is %d MiB", largest>>20, written>>20, limit>>20)
		}
		all, err := os.ReadDir(snapshots)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			snapshot = max(snapshot, diskBytes(t, filepath.Join(snapshots, s.Name())))
		}
		if len(all) > 3 { // the newest, the one before, which may be on its way to a follower, and the one that is being written
			t.Fatalf("there are %d snapshots after %d MiB of messages", len(all), written>>20)
		}
		if most = max(most, diskBytes(t, log, snapshots)); most > limit+snapshot {
			t.Fatalf("log and snapshots have %d MiB after %d MiB of messages, the limit is %d MiB and one snapshot of %d MiB", most>>20, written>>20, limit>>20, snapshot>>20)
		}
	}
	if c.Node(0).Status().SnapshotIndex == 0 {
		t.Error("no snapshot was taken: the test shows nothing")
	}
	t.Logf("%d MiB of messages in %v, the log had at most %d MiB of %d, with its snapshots %d MiB, a snapshot %d KiB", written>>20,
		time.Since(began).Round(time.Second), largest>>20, limit>>20, most>>20, snapshot>>10)
}

// TestLogSize_WhileAFollowerCannotCatchUp_StaysBelowItsLimit: what a follower lacks
// behind the snapshot that it is sent stays in the log, but for no more than the log
// may take; then that is told, and it is sent another one.
func TestLogSize_WhileAFollowerCannotCatchUp_StaysBelowItsLimit(t *testing.T) {
	t.Parallel()
	const limit = 32 << 20
	l := newLagging(t, func(c *cluster.Config) { c.LogBytes = limit })
	index := l.behind.Status().Transfers[0].Index
	p := producerOf(t, l.cl, "orders")
	log := filepath.Join(l.leader.Dir, "groups/1/log")
	body, largest := make([]byte, 75<<10), int64(0)
	for written := 0; written < limit*3/2; written += len(body) {
		rand.Read(body)
		if _, err := p.Publish(bounded(t), client.Message{Body: append([]byte(nil), body...)}); err != nil {
			t.Fatal(err)
		}
		if largest = max(largest, diskBytes(t, log)); largest > limit {
			t.Fatalf("the log has %d MiB after %d MiB of messages, the limit is %d MiB", largest>>20, written>>20, limit>>20)
		}
		if written < limit/3 && l.Logged("the log cannot keep") {
			t.Fatalf("the follower is given up after %d MiB", written>>20)
		}
	}
	if !l.Logged("the log cannot keep") {
		t.Error("nobody is told that the follower needs another snapshot")
	}
	l.release()
	l.caughtUp(t)
	if got := l.behind.Status().SnapshotIndex; got == index {
		t.Error("the follower needed no other snapshot: the test shows nothing")
	}
	t.Logf("the log had at most %d MiB of %d", largest>>20, limit>>20)
}
