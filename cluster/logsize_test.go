package cluster_test

import (
	"context"
	"crypto/rand"
	"flag"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

var logSizeTime = flag.Duration("logsize", 0, "how long TestLogSize publishes the largest bodies with the default settings; 0: a small size of it")

// dirBytes is what the files of a directory have.
func dirBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // removed meanwhile
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLogSize_StaysBelowItsLimit: the largest bodies, one after the other, with
// their acks: the log takes what it may and no more.
func TestLogSize_StaysBelowItsLimit(t *testing.T) {
	const small = 128 << 20
	// Small: so that the fewest entries that must stay are within their part.
	limit, size, inFlight := int64(small), 300<<10, 1
	if *logSizeTime > 0 {
		limit, size, inFlight = 1<<30, 1<<20-1024, 8
	}
	c := clustertest.New(t, 1, func(c *cluster.Config) { c.LogBytes, c.BodyMemory = uint64(limit), 16<<20 })
	createQueue(t, c, "large", wire.QueueSettings{})
	cl := connect(t, c)
	stop := consume(t, cl, "large", func(context.Context, *client.Delivery) error { return nil })
	defer stop()
	p := producerOf(t, cl, "large")
	ctx := t.Context()
	body := make([]byte, size)
	dir := filepath.Join(c.Node(0).Dir, "groups/1/log")
	var largest, written int64
	began := time.Now()
	for written < 3*small || time.Since(began) < *logSizeTime {
		rand.Read(body)
		var fs []*client.Future
		for range inFlight {
			fs = append(fs, p.PublishAsync(ctx, client.Message{Body: append([]byte(nil), body...)}))
			written += int64(size)
		}
		for _, f := range fs {
			if _, err := f.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if now := dirBytes(t, dir); now > largest {
			if largest = now; largest > limit {
				t.Fatalf("the log has %d MiB after %d MiB of messages, the limit is %d MiB", now>>20, written>>20, limit>>20)
			}
		}
	}
	if c.Node(0).Status().SnapshotIndex == 0 {
		t.Error("no snapshot was taken: the test shows nothing")
	}
	t.Logf("%d MiB of messages in %v, the log had at most %d MiB of %d", written>>20, time.Since(began).Round(time.Second), largest>>20, limit>>20)
}
