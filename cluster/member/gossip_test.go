package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"onceq/cluster/member/membertest"
)

// gossiper is a node with gossip.
type gossiper struct {
	*testNode
	book    *AddressBook
	gossips *Gossip
	changed chan struct{}
}

func (n *gossiper) startGossip(gn *membertest.GossipNet, seeds ...string) *gossiper {
	n.t.Helper()
	n.book = NewAddressBook()
	n.changed = make(chan struct{}, 1)
	g, err := StartGossip(GossipConfig{
		Dir: n.dir, Streams: n.streams, Transport: gn.Transport(n.gossip), Seeds: seeds, Book: n.book,
		OnChange: func() {
			select {
			case n.changed <- struct{}{}:
			default:
			}
		},
		Logger: testLogger(n.t).With("node", n.name),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.gossips = g
	n.t.Cleanup(func() { g.Close() })
	return n
}

// waitNodes waits until the node sees what is wanted: "n1 n2 -n3", where '-' is
// a node that is not alive.
func (n *gossiper) waitNodes(want string) {
	n.t.Helper()
	limit := time.NewTimer(time.Hour) // of virtual time
	defer limit.Stop()
	for {
		var got []string
		for _, v := range n.gossips.Nodes() {
			if v.Alive {
				got = append(got, v.Name)
			} else {
				got = append(got, "-"+v.Name)
			}
		}
		if strings.Join(got, " ") == want {
			return
		}
		select {
		case <-n.changed:
		case <-limit.C:
			n.t.Fatalf("%s sees %v, want %s", n.name, got, want)
		}
	}
}

// threeGossipers are three members that know each other only through the first.
func threeGossipers(t *testing.T) (*testNet, *membertest.GossipNet, []*gossiper) {
	t.Cleanup(membertest.Drain)
	tn, gn := newTestNet(), membertest.NewGossipNet()
	c := secretCluster()
	c.Members = nil
	var nodes []*gossiper
	for i := 1; i <= 3; i++ {
		n := newTestNode(t, tn, fmt.Sprintf("n%d", i))
		n.gossip = fmt.Sprintf("10.0.0.%d:7946", i)
		n.start().enter(c)
		nodes = append(nodes, (&gossiper{testNode: n}).startGossip(gn, "n1:7450"))
	}
	return tn, gn, nodes
}

func (n *gossiper) sees(id raft.ServerID, address string) {
	n.t.Helper()
	synctest.Wait() // the book learns a moment after the list, from a goroutine of its own
	if got, err := n.book.ServerAddr(id); err != nil || got != DialedAddress(id, address) {
		n.t.Errorf("%s knows %s as %q, %v, want %s", n.name, id, got, err, address)
	}
}

func TestGossip_ThreeNodes_FindEachOtherAndEndCleanly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, nodes := threeGossipers(t)
		for _, n := range nodes {
			n.waitNodes("n1 n2 n3")
			for _, o := range nodes {
				if n != o {
					n.sees(o.dir.Identity().ServerID, o.addr)
				}
			}
		}
		// Each has noted whom to look for after a restart.
		if ps := nodes[2].dir.Identity().Peers; len(ps) != 2 || ps[0].Address != "n1:7450" || ps[1].Gossip != "10.0.0.2:7946" {
			t.Errorf("peers noted: %+v", ps)
		}
		// The bubble fails unless every goroutine of memberlist ends.
		for _, n := range nodes {
			n.gossips.Close()
			n.gossips.Close()
			if err := n.gossips.Leave(time.Second); err != nil {
				t.Error("leave after close:", err)
			}
		}
	})
}

// A killed node is declared dead, and one that returns on other ports, with the
// same directory, is found again at once by the others' gossip and address
// books, although nobody left in order.
func TestGossip_KilledNodeReturnsOnOtherPorts_IsFoundAgain(t *testing.T) {
	for name, wait := range map[string]bool{"after it was declared dead": true, "before": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, gn, nodes := threeGossipers(t)
				for _, n := range nodes {
					n.waitNodes("n1 n2 n3")
				}
				n3 := nodes[2]
				n3.gossips.Close()
				n3.stop()
				if wait {
					nodes[0].waitNodes("n1 n2 -n3")
					nodes[1].waitNodes("n1 n2 -n3")
				}
				n3.addr, n3.gossip = "n3:9999", "10.0.0.3:9998"
				n3.start()
				n3.startGossip(gn) // without seeds: it has noted its peers
				id := n3.dir.Identity().ServerID
				for _, n := range nodes[:2] {
					for n.gossips.Nodes()[2].Address != n3.addr {
						if !wait && !n.gossips.Nodes()[2].Alive {
							t.Fatal("had to be declared dead before it was found")
						}
						<-n.changed
					}
					n.waitNodes("n1 n2 n3")
					n.sees(id, n3.addr)
				}
				n3.waitNodes("n1 n2 n3")
				// What its dead process does to the list later changes nothing.
				time.Sleep(10 * time.Minute)
				for _, n := range nodes {
					n.waitNodes("n1 n2 n3")
				}
			})
		})
	}
}

// Everybody goes and comes back elsewhere but the one that all were told about.
func TestGossip_NodeCutOff_IsBackAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gn, nodes := threeGossipers(t)
		for _, n := range nodes {
			n.waitNodes("n1 n2 n3")
		}
		gn.Isolate(nodes[2].gossip)
		nodes[0].waitNodes("n1 n2 -n3")
		nodes[2].waitNodes("-n1 -n2 n3")
		nodes[2].sees(nodes[0].dir.Identity().ServerID, "n1:7450") // raft may try all the same
		time.Sleep(time.Hour)
		gn.Heal(nodes[2].gossip)
		for _, n := range nodes {
			n.waitNodes("n1 n2 n3")
		}
	})
}

func TestGossip_Leave_IsNoticedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, nodes := threeGossipers(t)
		for _, n := range nodes {
			n.waitNodes("n1 n2 n3")
		}
		if err := nodes[1].gossips.Leave(time.Second); err != nil {
			t.Fatal(err)
		}
		nodes[1].gossips.Close()
		nodes[0].waitNodes("n1 -n2 n3")
		nodes[2].waitNodes("n1 -n2 n3")
	})
}

// A wiped node under its old name takes the name over; its old self's server id
// keeps its own entry in the address book.
func TestGossip_WipedNode_TakesItsNameOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn, gn, nodes := threeGossipers(t)
		for _, n := range nodes {
			n.waitNodes("n1 n2 n3")
		}
		old := nodes[2].dir.Identity().ServerID
		nodes[2].gossips.Close()
		nodes[2].stop()
		nodes[0].waitNodes("n1 n2 -n3")
		w := newTestNode(t, tn, "n3")
		w.addr, w.gossip = "n3:9999", "10.0.0.3:9998"
		w.start().enter(secretCluster())
		g := (&gossiper{testNode: w}).startGossip(gn, "n1:7450")
		g.waitNodes("n1 n2 n3")
		nodes[0].waitNodes("n1 n2 n3")
		id := w.dir.Identity().ServerID
		if got := nodes[0].gossips.Nodes()[2].ServerID; got != id || got == old {
			t.Errorf("n3 is %s, want %s", got, id)
		}
		nodes[0].sees(id, "n3:9999")
		nodes[0].sees(old, "n3:7450")
	})
}

func TestGossip_OtherSecretOrCluster_StaysOut(t *testing.T) {
	for name, change := range map[string]func(*ClusterInfo){
		"secret":  func(c *ClusterInfo) { c.Secret[0]++ },
		"cluster": func(c *ClusterInfo) { c.ID = "c2" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tn, gn, nodes := threeGossipers(t)
				for _, n := range nodes {
					n.waitNodes("n1 n2 n3")
				}
				c := secretCluster()
				change(&c)
				s := newTestNode(t, tn, "stranger")
				s.gossip = "10.0.0.9:7946"
				s.start().enter(c)
				g := (&gossiper{testNode: s}).startGossip(gn, "n1:7450")
				g.gossips.list.Join([]string{"10.0.0.1:7946", "10.0.0.2:7946"}) // knows where to knock
				time.Sleep(time.Minute)
				g.waitNodes("stranger")
				nodes[0].waitNodes("n1 n2 n3")
			})
		})
	}
}

// Events come under memberlist's lock: a slow OnChange must hold up nobody.
func TestGossip_SlowOnChange_HoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(membertest.Drain)
		tn, gn := newTestNet(), membertest.NewGossipNet()
		n := newTestNode(t, tn, "n1")
		n.gossip = "10.0.0.1:7946"
		n.start().enter(secretCluster())
		release := make(chan struct{})
		g, err := StartGossip(GossipConfig{Dir: n.dir, Streams: n.streams, Transport: gn.Transport(n.gossip), OnChange: func() { <-release }})
		if err != nil {
			t.Fatal(err)
		}
		m := newTestNode(t, tn, "n2")
		m.gossip = "10.0.0.2:7946"
		m.start().enter(secretCluster())
		o := (&gossiper{testNode: m}).startGossip(gn, "n1:7450")
		o.waitNodes("n1 n2")
		o.gossips.Close()
		for len(g.Nodes()) != 2 || g.Nodes()[1].Alive {
			time.Sleep(time.Second) // virtual
		}
		close(release)
		g.Close()
	})
}

func TestStartGossip_NotAMember_IsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(t, newTestNet(), "n1").start()
		gn := membertest.NewGossipNet()
		if _, err := StartGossip(GossipConfig{Dir: n.dir, Streams: n.streams, Transport: gn.Transport("10.0.0.1:1")}); err == nil {
			t.Error("started")
		}
		gn.Transport("10.0.0.1:1") // the address is free again
	})
}

func TestListenGossip_PortTakenByTCPOrUDP_IsAnError(t *testing.T) {
	free, err := ListenGossip("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := GossipAddress(free, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenGossip(addr, nil); err == nil {
		t.Error("bound twice")
	}
	free.Shutdown()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := ListenGossip(addr, nil); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("bound with UDP taken: %v", err)
	}
	if l, err := net.Listen("tcp", addr); err != nil {
		t.Error("the TCP half is still bound:", err)
	} else {
		l.Close()
	}
}

// Who opens one connection to the gossip port after the other takes no more files from the
// node than are meant for it: the oldest are closed, and who comes then is heard.
func TestListenGossip_TooManyStreams_TheOldestAreClosed(t *testing.T) {
	t.Parallel()
	tr, err := ListenGossip("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Shutdown()
	addr, err := GossipAddress(tr, "")
	if err != nil {
		t.Fatal(err)
	}
	var here, there []net.Conn // taken in this order
	come := func() {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		here = append(here, c)
		select {
		case s := <-tr.StreamCh():
			t.Cleanup(func() { s.Close() })
			there = append(there, s)
		case <-time.After(time.Minute):
			t.Fatal("nobody is let in")
		}
	}
	const more = 5
	for range gossipStreamsMax + more {
		come()
	}
	for i := range more {
		if _, err := here[i].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("stream %d is open still: %v", i, err)
		}
	}
	// Who has ended makes room: nobody is closed for the next.
	there[len(there)-1].Close()
	come()
	for _, i := range []int{more, len(there) - 1} {
		if _, err := there[i].Write([]byte("x")); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
		if _, err := here[i].Read(make([]byte, 1)); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
	}
}

// A packet that came before gossip was started must not hold up Shutdown.
func TestListenGossip_NeverStarted_ShutsDown(t *testing.T) {
	tr, err := ListenGossip("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := GossipAddress(tr, "")
	var conns []net.Conn
	for _, network := range []string{"udp", "tcp"} {
		c, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("hello"))
		conns = append(conns, c)
	}
	if err := tr.Shutdown(); err != nil {
		t.Error(err)
	}
	if _, err := conns[1].Read(make([]byte, 1)); err == nil {
		t.Error("the stream is open")
	}
}

// The same on real sockets: form, gossip, kill, return on other ports.
func TestMember_OnLoopback_FormsGossipsAndFindsAgain(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type node struct {
		dir     *Dir
		streams *Streams
		gossip  *Gossip
		book    *AddressBook
		changed chan struct{}
		ready   chan struct{} // closed when gossip runs, or err is set
		err     error
	}
	paths := []string{t.TempDir(), t.TempDir()}
	var seeds []string
	start := func(i int) *node {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tr, err := ListenGossip("127.0.0.1:0", nil)
		if err != nil {
			t.Fatal(err)
		}
		gossip, err := GossipAddress(tr, "")
		if err != nil {
			t.Fatal(err)
		}
		n := &node{dir: openDir(t, paths[i], fmt.Sprintf("n%d", i+1), nil), book: NewAddressBook(), changed: make(chan struct{}, 1), ready: make(chan struct{})}
		n.streams, err = NewStreams(StreamConfig{Dir: n.dir, Listener: l, Address: l.Addr().String(), GossipAddress: gossip})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.streams.Close() })
		if len(seeds) == 0 {
			seeds = []string{l.Addr().String()}
		}
		go func() {
			defer close(n.ready)
			f, err := Form(ctx, FormConfig{Dir: n.dir, Streams: n.streams, Seeds: seeds, Expect: 2})
			if err == nil && f.Bootstrap {
				err = n.dir.MarkBootstrapped()
			}
			if err == nil {
				n.gossip, err = StartGossip(GossipConfig{Dir: n.dir, Streams: n.streams, Transport: tr, Seeds: seeds, Book: n.book,
					ProbeInterval: 200 * time.Millisecond,
					OnChange: func() {
						select {
						case n.changed <- struct{}{}:
						default:
						}
					}})
			}
			n.err = err
		}()
		t.Cleanup(func() {
			if <-n.ready; n.err != nil {
				t.Error(n.err)
			} else {
				n.gossip.Close()
			}
		})
		return n
	}
	knows := func(n *node, id raft.ServerID, address string) {
		t.Helper()
		for {
			if a, ok := n.book.Address(id); ok && a == address {
				return
			}
			select {
			case <-n.changed:
			case <-ctx.Done():
				a, _ := n.book.Address(id)
				t.Fatalf("%s is known at %q, want %s", id, a, address)
			}
		}
	}
	n1, n2 := start(0), start(1)
	id2 := n2.dir.Identity()
	knows(n1, id2.ServerID, id2.Address)
	knows(n2, n1.dir.Identity().ServerID, n1.dir.Identity().Address)
	if <-n2.ready; n2.err != nil {
		t.Fatal(n2.err)
	}
	n2.gossip.Close()
	n2.streams.Close()
	n2.dir.Close()
	back := start(1)
	if now := back.dir.Identity(); now.ServerID != id2.ServerID || now.Address == id2.Address {
		t.Fatalf("returned as %+v", now)
	}
	knows(n1, id2.ServerID, back.dir.Identity().Address)
}
