package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// dialing runs a test in virtual time with a fake cluster, not dialled yet.
func dialing(t *testing.T, test func(t *testing.T, n *fakeNet), names ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(t, names...)
		for _, node := range n.order {
			node.opens(42)
		}
		t.Cleanup(n.stop)
		test(t, n)
	})
}

func (n *fakeNet) client(url string) (*Client, error) {
	c, err := Dial(n.t.Context(), url, WithDialer(n.dial), WithLabel("test"))
	if err == nil {
		n.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func TestDial_NothingAnswers_ListsEachAddressAndReason(t *testing.T) {
	dialing(t, func(t *testing.T, n *fakeNet) {
		n.order[0].setDown(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
		n.order[1].setDown(errors.New("no route"))
		_, err := n.client("onceq://n1:7450,n2:7450")
		if !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
		for _, part := range []string{"ONCEQ-1001: cannot reach any node (tried ", "n1:7450: connection refused", "n2:7450: no route"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not in %q", part, err)
			}
		}
	}, "n1", "n2")
}

func TestDial_OneNodeAnswers_FindsTheLeader(t *testing.T) {
	dialing(t, func(t *testing.T, n *fakeNet) {
		n.lead(1, "n3", false)
		n.order[0].setDown(errors.New("down"))
		c, err := n.client("n1:7450,n2:7450")
		if err != nil {
			t.Fatal(err)
		}
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n.order[2].expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		if h := n.order[2].hellos[0]; h.Version != wire.Version || h.Cluster != "c1" || !strings.Contains(h.Client, "test") {
			t.Fatalf("hello %+v", h)
		}
	}, "n1", "n2", "n3")
}

func TestDial_NoLeader_WaitsForTheElection(t *testing.T) {
	dialing(t, func(t *testing.T, n *fakeNet) {
		n.lead(1, "", false)
		c, err := n.client(n.url())
		if err != nil {
			t.Fatal(err)
		}
		asking, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		// It asks before the first look for a leader is over.
		if _, err := c.Admin().Queue(asking, "orders"); !errors.Is(err, ErrNoLeader) {
			t.Errorf("who asks while nobody leads hears: %v", err)
		}
		p := producer(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.Publish(ctx, body("a")); !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		f := p.PublishAsync(t.Context(), body("b"))
		synctest.Wait()
		n.lead(2, "n2", true)
		n.order[1].expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
	}, "n1", "n2")
}

func TestDial_NodeOfAnotherClusterIsRefused(t *testing.T) {
	dialing(t, func(t *testing.T, n *fakeNet) {
		c, err := n.client(n.url())
		if err != nil {
			t.Fatal(err)
		}
		n.mu.Lock()
		n.welcome.Cluster = "c2"
		n.mu.Unlock()
		n.order[0].cut()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := producer(t, c).Publish(ctx, body("a")); !errors.Is(err, ErrWrongCluster) {
			t.Fatal(err)
		}
		if got := c.Cluster(); got != "c1" {
			t.Fatalf("cluster %q", got)
		}
	}, "n1")
}

// A node that was started a moment ago does not say which cluster it belongs to.
func TestDial_NodeOfNoCluster_IsToldToWait(t *testing.T) {
	dialing(t, func(t *testing.T, n *fakeNet) {
		n.welcome.Cluster = ""
		_, err := n.client(n.url())
		if !errors.Is(err, ErrNoLeader) || !strings.Contains(err.Error(), "n1 is starting, or in no cluster yet: wait") {
			t.Fatal(err)
		}
		n.mu.Lock()
		n.welcome.Cluster = "c1"
		n.mu.Unlock()
		if _, err := n.client(n.url()); err != nil {
			t.Fatal(err)
		}
	}, "n1")
}

func TestDial_OtherProtocolVersion_IsRefused(t *testing.T) {
	dialing(t, func(t *testing.T, n *fakeNet) {
		n.welcome.Version = wire.Version + 1
		_, err := n.client(n.url())
		e := (*Error)(nil)
		if !errors.As(err, &e) || e.Code != wire.CodeUnsupportedVersion {
			t.Fatal(err)
		}
	}, "n1")
}

func TestDial_NilLogger_Discards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(t, "n1")
		c, err := Dial(t.Context(), n.url(), WithDialer(n.dial), WithLogger(nil))
		if err != nil {
			t.Fatal(err)
		}
		n.order[0].cut() // which is worth a line
		time.Sleep(time.Second)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		n.stop()
	})
}

func TestDial_BadURL(t *testing.T) {
	for _, url := range []string{"", "onceq://", "h1", "http://h1:1/x", "h1:1,h2"} {
		if _, err := Dial(t.Context(), url); err == nil {
			t.Errorf("%q was taken", url)
		}
	}
}

func TestLink_SilentServer_IsGivenUp(t *testing.T) {
	dialing(t, func(t *testing.T, n *fakeNet) {
		c, err := n.client(n.url())
		if err != nil {
			t.Fatal(err)
		}
		p := producer(t, c)
		published := p.PublishAsync(t.Context(), body("a"))
		r := n.order[0].expect(wire.OpPublish)
		// Pings are not answered any more, as from a host that has gone.
		n.order[0].manual(wire.OpPing)
		start := time.Now()
		for r.conn == nil || published.copiesNow() < 2 {
			time.Sleep(pingInterval)
			if time.Since(start) > time.Hour {
				t.Fatal("the connection is kept")
			}
		}
	}, "n1")
}

func (f *Future) copiesNow() int {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.copies
}

// A candidate that nobody follows has a higher term and no leader; a healthy
// connection does not end for it.
func TestTopology_OnlyMovesForward(t *testing.T) {
	nodes := []wire.NodeAddress{{Name: "n1", Address: "a:1"}, {Name: "n2", Address: "b:1"}}
	top := newTopology([]string{"seed:1"})
	if _, err := top.welcome(wire.Welcome{Cluster: "c", Incarnation: 1, Topology: wire.Topology{Group: 1, Term: 5, Leader: "n1", Nodes: nodes}}); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		from string
		told wire.Topology
		want string // address of the leader afterwards
	}{
		{"n2", wire.Topology{Term: 4, Leader: "n2"}, "a:1"},
		{"n2", wire.Topology{Term: 9, Leader: ""}, "a:1"},
		{"n2", wire.Topology{Term: 6, Leader: "n2"}, "b:1"},
		{"n1", wire.Topology{Term: 6, Leader: ""}, "b:1"},
		{"n2", wire.Topology{Term: 6, Leader: ""}, ""},
		{"n1", wire.Topology{Term: 7, Leader: "n1", Nodes: []wire.NodeAddress{{Name: "n1", Address: "moved:1"}}}, "moved:1"},
	}
	for i, s := range steps {
		top.learn(s.told, s.from)
		if got := top.leader(); got != s.want {
			t.Fatalf("step %d: leader at %q, expected %q", i, got, s.want)
		}
	}
	// After a restore terms start again.
	if _, err := top.welcome(wire.Welcome{Cluster: "c", Incarnation: 2, Topology: wire.Topology{Term: 1, Leader: "n1", Nodes: nodes}}); err != nil {
		t.Fatal(err)
	}
	if got := top.leader(); got != "a:1" {
		t.Fatalf("after a restore: %q", got)
	}
	if _, err := top.welcome(wire.Welcome{Cluster: "", Incarnation: 2}); err == nil {
		t.Fatal("a node without a cluster was taken")
	}
}

// What was never given to the socket may be sent again under another session;
// what may have left may not.
func TestConn_End_TellsUnsentFromLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(t, "n1")
		n.order[0].deaf = true
		nc, err := n.dial(t.Context(), "tcp", "n1:7450")
		if err != nil {
			t.Fatal(err)
		}
		c, err := connect(t.Context(), nc, "n1:7450", wire.Hello{Version: wire.Version}, func(*conn, wire.Op, []byte) {})
		if err != nil {
			t.Fatal(err)
		}
		var told []error
		send := func() {
			t.Helper()
			err := c.send(wire.OpQueueList, func(w *pack.Writer) { wire.QueueList{}.Append(w) }, func(_ wire.Op, _ []byte, err error) { told = append(told, err) })
			if err != nil {
				t.Fatal(err)
			}
		}
		send()
		synctest.Wait() // the first hangs in the pipe, which nobody reads
		send()
		send()
		n.order[0].cut()
		<-c.finished
		// Of the first no byte got through, either, and the connection knows.
		if len(told) != 3 || !errors.Is(told[1], errUnsent) || !errors.Is(told[2], errUnsent) {
			t.Fatalf("told %v", told)
		}
		if err := c.send(wire.OpPing, nil, nil); err == nil {
			t.Fatal("an ended connection took a request")
		}
		n.stop()
	})
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		cn, err := c.produce.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var told error
		if err := cn.send(wire.OpQueueList, wire.QueueList{}.Append, func(_ wire.Op, _ []byte, err error) { told = err }); err != nil {
			t.Fatal(err)
		}
		n.order[0].expect(wire.OpQueueList).conn.cut()
		<-cn.finished
		if !errors.Is(told, errLost) {
			t.Fatalf("told %v", told)
		}
	})
}

func TestConn_GarbageFromTheServer_EndsIt(t *testing.T) {
	// A flipped bit in a length promises megabytes. Answers to pings go on coming and
	// are taken for them, so nothing else ends this connection for an hour.
	damaged := wire.AppendFrame(nil, wire.OpPing, true, 1, nil)
	damaged[1] ^= 0x40
	for name, garbage := range map[string][]byte{
		"length bomb":    {0xff, 0xff, 0xff, 0xff},
		"bad checksum":   append([]byte{0, 0, 0, 12}, make([]byte, 12)...),
		"half a frame":   {0, 0, 0, 99, 1},
		"damaged length": damaged,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				start := time.Now()
				cn, err := c.produce.ready(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				n.mu.Lock()
				for fc := range n.order[0].conns {
					fc.out <- garbage
				}
				n.mu.Unlock()
				synctest.Wait()
				if name == "half a frame" {
					n.order[0].cut()
				}
				<-cn.finished
				if took := time.Since(start); took > time.Minute { // of the bubble's time
					t.Fatal("the connection was kept for", took)
				}
				if _, err := c.produce.ready(t.Context()); err != nil {
					t.Fatal("no new connection:", err)
				}
			})
		})
	}
}

func TestDial_ContextEndsInTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var far net.Conn
		dial := func(context.Context, string, string) (net.Conn, error) {
			near, f := net.Pipe()
			far = f
			return near, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Dial(ctx, "n1:1", WithDialer(dial), WithLogger(slog.New(slog.DiscardHandler)))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
		_ = far.Close()
	})
}
