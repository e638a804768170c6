package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// deaf is a client that has shaken hands and reads nothing from then on.
func deaf(t *testing.T, n *clustertest.Node) *net.TCPConn {
	t.Helper()
	nc, err := (&net.Dialer{}).DialContext(bounded(t), "tcp", n.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	tcp := nc.(*net.TCPConn)
	nc.SetDeadline(time.Now().Add(clustertest.Bound))
	if _, err := nc.Write(helloBytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.NewFrameReader(nc, wire.FrameBytesMax).Next(); err != nil {
		t.Fatal(err)
	}
	return tcp
}

// TestSlow_ClientThatAsksAndNeverReads_IsCutOff: its answers pile up to a limit
// in bytes or requests; then it is cut off, and nobody else notices.
func TestSlow_ClientThatAsksAndNeverReads_IsCutOff(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 1)
	leader, r, _ := ready(t, c, "orders")
	for i := range 200 { // makes the answer long
		must(r.CreateQueue(fmt.Sprintf("queue-%0200d", i), wire.QueueSettings{}))(t)
	}
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	nc := deaf(t, leader)
	ask := payload(wire.QueueList{})
	var err error
	for corr := uint32(2); err == nil; corr++ {
		_, err = nc.Write(wire.AppendFrame(nil, wire.OpQueueList, false, corr, ask))
		if corr%256 == 0 {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			if now.HeapInuse > peak.HeapInuse {
				peak = now
			}
		}
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatalf("it was not cut off within %v", clustertest.Bound)
	}
	t.Logf("cut off: %v; heap %d MiB before, %d at the peak", err, before.HeapInuse>>20, peak.HeapInuse>>20)
	// Far above the limit of what waits for a connection, since others run beside
	// this test.
	if peak.HeapInuse > before.HeapInuse+512<<20 {
		t.Errorf("heap %d before, %d at the peak", before.HeapInuse, peak.HeapInuse)
	}
	stillServes(t, c)
}

// TestSlow_ConsumerThatNeverReads_IsCutOffAndOthersGetItsWork: it attaches with
// much credit, and its messages fill its socket. What it was given comes back
// and goes to somebody who reads.
func TestSlow_ConsumerThatNeverReads_IsCutOffAndOthersGetItsWork(t *testing.T) {
	t.Parallel()
	const n, bodyBytes = 40, 512 << 10
	c := clustertest.New(t, 3, clustertest.Steady)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	p := producerOf(t, cl, "orders")
	for i := range n {
		body := make([]byte, bodyBytes)
		copy(body, fmt.Sprintf("m%d", i))
		if _, err := p.Publish(bounded(t), client.Message{Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	leader := c.WaitLeader()
	nc := deaf(t, leader)
	if _, err := nc.Write(wire.AppendFrame(nil, wire.OpAttach, false, 2, payload(wire.Attach{
		Incarnation: leader.Status().Incarnation, Group: 1, Consumer: clustertest.NewConsumer(), N: 1, Queue: "orders", Credit: 1000, Done: 1,
	}))); err != nil {
		t.Fatal(err)
	}
	clustertest.Eventually(t, func() string {
		if k := info(c, "orders").Counts; k.Leased != n {
			return fmt.Sprintf("it holds %d of %d", k.Leased, n)
		}
		return ""
	})
	got := newReceived()
	stop := consume(t, cl, "orders", func(_ context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	})
	got.waitFor(t, n)
	waitSettled(t, c, "orders")
	stop()
	if len(got.bodies) != n || got.attempts[2] != n {
		t.Errorf("%d messages, attempts %v", len(got.bodies), got.attempts)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool {
		return k.Acked == n && k.RedeliveredGone == n && redelivered(k) == n
	})
	// It was cut off: what was on its way in the kernel ends, and is followed by
	// the end of the connection.
	nc.SetReadDeadline(time.Now().Add(clustertest.Bound))
	if _, err := io.Copy(io.Discard, nc); err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Error("its connection is still open")
		}
	}
	if c.Leader() != leader {
		t.Error("the leader has changed")
	}
	c.WaitCaughtUp()
	c.DigestsAgree()
}
