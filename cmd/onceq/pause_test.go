package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/exit"
)

// freeAddresses returns n addresses of this machine that nobody listens on, TCP or
// UDP. Their ports are none that the system gives to connections: until a node listens
// on its own, any test beside this one may get such a port.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range 1000 {
		if len(addresses) == n {
			return addresses
		}
		address := fmt.Sprintf("127.0.0.1:%d", 11_000+rand.IntN(20_000))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue // somebody has this one
		}
		defer l.Close() // so that none comes twice
		u, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		defer u.Close()
		addresses = append(addresses, address)
	}
	t.Fatalf("%d of %d addresses are free", len(addresses), n)
	return nil
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

// pausedLease is shorter than the pause, and long enough for a machine that is busy when
// the nodes go on: their time goes on too, and the consumer has to be back before what is
// left of a lease, two thirds at least, has run out.
const pausedLease = 30 * time.Second

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
	if _, err := z.c.Admin().CreateQueue(z.ctx, "orders", client.QueueSettings{LeaseTime: pausedLease}); err != nil {
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

// TestPubLines_OutcomesUnknown_EachIsNamed: who has to find out what became of each line
// needs each id, and the lines that are to be sent again.
func TestPubLines_OutcomesUnknown_EachIsNamed(t *testing.T) {
	needBinary(t)
	t.Parallel()
	free := freeAddresses(t, 2)
	address, gossip := free[0], free[1]
	node, err := start(needBinary(t), "server", "--name", "n1", "--data-dir", filepath.Join(t.TempDir(), "d"), "--bind", address, "--gossip-bind", gossip, "--bootstrap-expect", "1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		node.cmd.Process.Kill()
		<-node.done
		if t.Failed() {
			t.Log(node.text())
		}
	})
	if err := node.await("listening"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the queue is there", func() bool {
		return inProcess(t, "", "queue", "create", "q", "--url", address).code == exit.OK
	})
	const inFlight, wanted = 200, 150
	p, in := startWithInput(t, "pub", "q", "-l", "-o", "json", "--in-flight", fmt.Sprint(inFlight), "--url", address)
	stored := func() (row queueRow) {
		if err := json.Unmarshal([]byte(inProcess(t, "", "queue", "show", "q", "-o", "json", "--url", address).out), &row); err != nil {
			t.Fatal(err)
		}
		return row
	}
	fmt.Fprintln(in, "first")
	eventually(t, "it publishes", func() bool { return stored().Stored == 1 })
	if err := node.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// It takes as many lines as may be in flight, and some that it only has read. The pipe
	// holds 64 KiB more, and then no line is written any more.
	line := strings.Repeat("x", 4<<10)
	var wrote atomic.Int64
	go func() {
		for {
			if _, err := fmt.Fprintln(in, line); err != nil {
				return
			}
			wrote.Add(1)
		}
	}()
	const aside = 64 + 2*64<<10/(4<<10) + 2 // lines in the channel, in the pipe, in the reader's buffer, in a hand
	eventually(t, "many are in flight", func() bool { return wrote.Load() >= wanted+aside })
	p.interrupt()
	if code := p.exitCode(t); code != exit.Unknown {
		t.Fatalf("exit code %d: %s", code, p.text())
	}
	var s summary
	if err := json.Unmarshal(p.out.Bytes(), &s); err != nil {
		t.Fatal(err, p.out.String())
	}
	unknown, not := strings.Count(p.text(), "outcome unknown: s"), strings.Count(p.text(), "not stored: ")
	if int(s.Unknown+s.Failed) < wanted || unknown != int(s.Unknown) || not != int(s.Failed) {
		t.Errorf("%+v, and %d ids, %d that were not stored", s, unknown, not)
	}
}
