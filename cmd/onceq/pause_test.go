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

// paused is a cluster whose nodes are all frozen at once, with consumers that hold
// messages.
type paused struct {
	t         *testing.T
	ctx       context.Context // of the test
	processes []*process
	c         *client.Client
	p         *client.Producer
	consumed  chan error
	stop      context.CancelFunc // ends the consumer

	mu   sync.Mutex // guards held
	held []*client.Delivery
}

// pausedHeld messages are held over the pause, and one more comes back later.
const pausedHeld = 50

// TestServer_AllPausedForAMinute_NothingExpires: every node is frozen at once, as
// a suspended machine is, while consumers hold messages. Cluster time does not
// count the minute: every lease, delay and ack is as it was, and no watchdog ends
// a healthy process. Three nodes mostly elect a leader anew when they go on; one
// alone does not, and has only its own clock to know better. Both sleep at the same
// time.
func TestServer_AllPausedForAMinute_NothingExpires(t *testing.T) {
	needBinary(t)
	t.Parallel()
	one, three := newPaused(t, 1), newPaused(t, 3)
	time.Sleep(pauseTime)
	one.check()
	three.check()
}

// newPaused starts a cluster, and freezes it when messages of it are held.
func newPaused(t *testing.T, nodes int) *paused {
	t.Helper()
	z := &paused{t: t, consumed: make(chan error, 1)}
	addresses := freeAddresses(t, 2*nodes)
	for i := range nodes {
		args := []string{"server", "--name", fmt.Sprintf("n%d", i+1), "--data-dir", filepath.Join(t.TempDir(), "d"),
			"--bind", addresses[i], "--gossip-bind", addresses[nodes+i], "--bootstrap-expect", fmt.Sprint(nodes), "--gossip-fast"}
		for j := range nodes {
			if j != i {
				args = append(args, "--join", addresses[j])
			}
		}
		p, err := start(needBinary(t), args...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			p.cmd.Process.Kill()
			<-p.done
			if t.Failed() {
				t.Logf("of %d nodes:\n%s", nodes, p.text())
			}
		})
		z.processes = append(z.processes, p)
	}
	for _, p := range z.processes {
		if err := p.await("listening"); err != nil {
			t.Fatal(err)
		}
	}

	var cancel context.CancelFunc
	z.ctx, cancel = context.WithTimeout(t.Context(), pauseTime+3*bound)
	t.Cleanup(cancel)
	var err error
	if z.c, err = client.Dial(z.ctx, strings.Join(addresses[:nodes], ",")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { z.c.Close() })
	if _, err := z.c.Admin().CreateQueue(z.ctx, "orders", client.QueueSettings{LeaseTime: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if z.p, err = z.c.NewProducer("orders"); err != nil {
		t.Fatal(err)
	}
	for i := range pausedHeld + 1 {
		if _, err := z.p.Publish(z.ctx, client.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	var consuming context.Context
	consuming, z.stop = context.WithCancel(z.ctx)
	go func() {
		z.consumed <- z.c.Consume(consuming, "orders", func(_ context.Context, d *client.Delivery) error {
			z.mu.Lock()
			defer z.mu.Unlock()
			z.held = append(z.held, d)
			return nil
		}, client.WithManualSettle())
	}()
	eventually(t, "the consumer holds all", func() bool { return len(z.all()) == pausedHeld+1 })
	// One comes back in half a minute of cluster time.
	if err := z.all()[pausedHeld].NackAfter(z.ctx, 30*time.Second, nil); err != nil {
		t.Fatal(err)
	}
	z.signal(syscall.SIGSTOP)
	return z
}

func (z *paused) signal(s syscall.Signal) {
	z.t.Helper()
	for _, p := range z.processes {
		if err := p.cmd.Process.Signal(s); err != nil {
			z.t.Fatal(err)
		}
	}
}

func (z *paused) all() []*client.Delivery {
	z.mu.Lock()
	defer z.mu.Unlock()
	return append([]*client.Delivery(nil), z.held...)
}

func (z *paused) counts() client.QueueCounts {
	z.t.Helper()
	q, err := z.c.Admin().Queue(z.ctx, "orders")
	if err != nil {
		z.t.Fatal(err)
	}
	return q.Counts
}

// check wakes the nodes: all is as it was, and goes on.
func (z *paused) check() {
	t, nodes := z.t, len(z.processes)
	const n = pausedHeld
	t.Helper()
	z.signal(syscall.SIGCONT)
	k := z.counts()
	if k.Leased != n || k.Delayed != 1 || k.Delivered != n+1 || k.RedeliveredExpired+k.RedeliveredGone+k.RedeliveredLeft != 0 {
		t.Errorf("right after the pause: %+v", k)
	}
	for _, d := range z.all()[:n] {
		if err := d.Ack(z.ctx); err != nil {
			t.Errorf("ack of %s: %v", d.ID(), err)
		}
		if d.Attempt() != 1 {
			t.Errorf("%s is attempt %d", d.ID(), d.Attempt())
		}
	}
	k = z.counts()
	if k.Acked != n || k.Delivered != n+1 || k.Delayed != 1 {
		t.Errorf("after the acks: %+v", k)
	}
	if _, err := z.p.Publish(z.ctx, client.Message{Body: []byte("the session lives")}); err != nil {
		t.Errorf("publish after the pause: %v", err)
	}
	eventually(t, "the new message is handed out", func() bool { return len(z.all()) == n+2 })
	if err := z.all()[n+1].Ack(z.ctx); err != nil {
		t.Error(err)
	}
	for i, p := range z.processes {
		select {
		case <-p.done:
			t.Errorf("node %d has ended", i+1)
		default:
		}
	}
	index, digest, err := z.c.Admin().Digest(z.ctx)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "every node has taken the digest", func() bool {
		reports, err := z.c.Admin().Nodes(z.ctx)
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
	z.stop()
	if err := <-z.consumed; err != nil {
		t.Errorf("consume: %v", err)
	}
}
