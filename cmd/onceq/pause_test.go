package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"onceq/client"
)

// freeAddresses returns n addresses of this machine that nobody listens on, TCP
// or UDP.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for len(addresses) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			continue // another process has this one
		}
		defer u.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// pauseTime is longer than any lease, grace and watchdog of the test's cluster.
const pauseTime = 65 * time.Second

// TestServer_AllPausedForAMinute_NothingExpires: every node is frozen at once, as
// a suspended machine is, while consumers hold messages. Cluster time does not
// count the minute: every lease, delay and ack is as it was, and no watchdog ends
// a healthy process. Three nodes mostly elect a leader anew when they go on; one
// alone does not, and has only its own clock to know better.
func TestServer_AllPausedForAMinute_NothingExpires(t *testing.T) {
	bin := needBinary(t)
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			t.Parallel()
			pauseAll(t, bin, nodes)
		})
	}
}

func pauseAll(t *testing.T, bin string, nodes int) {
	const n = 50
	addresses := freeAddresses(t, 2*nodes)
	var processes []*process
	for i := range nodes {
		args := []string{"server", "--name", fmt.Sprintf("n%d", i+1), "--data-dir", filepath.Join(t.TempDir(), "d"),
			"--bind", addresses[i], "--gossip-bind", addresses[nodes+i], "--bootstrap-expect", fmt.Sprint(nodes), "--gossip-fast"}
		for j := range nodes {
			if j != i {
				args = append(args, "--join", addresses[j])
			}
		}
		p, err := start(bin, args...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			p.cmd.Process.Kill()
			<-p.done
			if t.Failed() {
				t.Log(p.text())
			}
		})
		processes = append(processes, p)
	}
	for _, p := range processes {
		if err := p.await("listening"); err != nil {
			t.Fatal(err)
		}
	}
	signal := func(s syscall.Signal) {
		for _, p := range processes {
			if err := p.cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), pauseTime+2*bound)
	defer cancel()
	c, err := client.Dial(ctx, strings.Join(addresses[:nodes], ","))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{LeaseTime: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer("orders")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n + 1 {
		if _, err := p.Publish(ctx, client.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var held []*client.Delivery
	consuming, stop := context.WithCancel(ctx)
	consumed := make(chan error, 1)
	go func() {
		consumed <- c.Consume(consuming, "orders", func(_ context.Context, d *client.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			held = append(held, d)
			return nil
		}, client.WithManualSettle())
	}()
	counts := func() client.QueueCounts {
		t.Helper()
		q, err := c.Admin().Queue(ctx, "orders")
		if err != nil {
			t.Fatal(err)
		}
		return q.Counts
	}
	all := func() []*client.Delivery {
		mu.Lock()
		defer mu.Unlock()
		return append([]*client.Delivery(nil), held...)
	}
	eventually(t, "the consumer holds all", func() bool { return len(all()) == n+1 })
	// One comes back in half a minute of cluster time.
	if err := all()[n].NackAfter(ctx, 30*time.Second, nil); err != nil {
		t.Fatal(err)
	}

	signal(syscall.SIGSTOP)
	time.Sleep(pauseTime)
	signal(syscall.SIGCONT)

	k := counts()
	if k.Leased != n || k.Delayed != 1 || k.Delivered != n+1 || k.RedeliveredExpired+k.RedeliveredGone+k.RedeliveredLeft != 0 {
		t.Errorf("right after the pause: %+v", k)
	}
	for _, d := range all()[:n] {
		if err := d.Ack(ctx); err != nil {
			t.Errorf("ack of %s: %v", d.ID(), err)
		}
		if d.Attempt() != 1 {
			t.Errorf("%s is attempt %d", d.ID(), d.Attempt())
		}
	}
	k = counts()
	if k.Acked != n || k.Delivered != n+1 || k.Delayed != 1 {
		t.Errorf("after the acks: %+v", k)
	}
	if _, err := p.Publish(ctx, client.Message{Body: []byte("the session lives")}); err != nil {
		t.Errorf("publish after the pause: %v", err)
	}
	eventually(t, "the new message is handed out", func() bool { return len(all()) == n+2 })
	if err := all()[n+1].Ack(ctx); err != nil {
		t.Error(err)
	}
	for i, p := range processes {
		select {
		case <-p.done:
			t.Errorf("node %d has ended", i+1)
		default:
		}
	}
	index, digest, err := c.Admin().Digest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "every node has taken the digest", func() bool {
		reports, err := c.Admin().Nodes(ctx)
		if err != nil || len(reports) != nodes {
			return false
		}
		for _, r := range reports {
			if r.Err != nil || r.Status.DigestIndex < index {
				return false
			}
			if r.Status.DigestIndex == index && r.Status.Digest != digest {
				t.Fatalf("%s has digest %016x at %d, the leader %016x", r.Node, r.Status.Digest, index, digest)
			}
		}
		return true
	})
	stop()
	if err := <-consumed; err != nil {
		t.Errorf("consume: %v", err)
	}
}
