package cluster_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/cluster/member"
	"onceq/transport/wire"
)

// helloBytes is what a client says first.
func helloBytes() []byte {
	return wire.AppendFrame([]byte(wire.Magic), wire.OpHello, false, 1, payload(wire.Hello{Version: wire.Version}))
}

// throw writes b to a port, ends its direction, and reads until the other side
// closes: by then the node has dealt with it.
func throw(t *testing.T, address string, b []byte) (answer []byte) {
	t.Helper()
	nc, err := (&net.Dialer{}).DialContext(bounded(t), "tcp", address)
	if err != nil {
		t.Fatalf("the port is closed: %v", err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(clustertest.Bound))
	nc.Write(b) // the node may close before it has read all
	nc.(*net.TCPConn).CloseWrite()
	answer, err = io.ReadAll(io.LimitReader(nc, 1<<20))
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatalf("% x...: the node does not close", b[:min(len(b), 16)])
	}
	return answer
}

// TestStrangers_GarbageOnEveryPort: whatever arrives at the port of clients and
// raft, or at gossip's TCP and UDP, costs little and disturbs nobody; a
// promised length is not believed before the bytes are there.
func TestStrangers_GarbageOnEveryPort(t *testing.T) {
	c := clustertest.New(t, 3)
	c.WaitLeader()
	goroutines := runtime.NumGoroutine()
	random := make([]byte, 64<<10)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	huge := func(head ...byte) []byte { return append(head, 0xff, 0xff, 0xff, 0xff) }
	frame := wire.AppendFrame(nil, wire.OpPublish, false, 2, bytes.Repeat([]byte{0x91}, 1000))
	// The header of the largest frame there may be, and nothing behind it.
	promise := binary.BigEndian.AppendUint32(nil, wire.FrameBytesMax-4)
	promise = append(promise, make([]byte, 12)...)
	promise[8] = byte(wire.OpPublish)
	port := map[string][]byte{
		"nothing":                  {},
		"random":                   random,
		"zeros":                    make([]byte, 1000),
		"http":                     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"tls":                      {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"half the magic":           []byte("ON"),
		"magic, then random":       append([]byte(wire.Magic), random...),
		"half a hello":             helloBytes()[:20],
		"hello, then random":       append(helloBytes(), random...),
		"hello, half a frame":      append(helloBytes(), frame[:len(frame)/2]...),
		"hello, a promised frame":  append(helloBytes(), promise...),
		"hello, a frame of 4 GiB":  append(helloBytes(), huge()...),
		"hello, a damaged frame":   append(append(helloBytes(), frame[:len(frame)-1]...), 0),
		"peer, nothing":            {'R'},
		"peer, random":             append([]byte{'R'}, random...),
		"peer, a hello too large":  {'R', 0xff, 0xff},
		"peer, half a hello":       {'R', 0, 200, 1, 1, 1},
		"peer, raft without hello": append([]byte{'R', 1}, bytes.Repeat([]byte{0x81}, 1000)...),
	}
	// Of memberlist's kinds of messages, each with a length that it cannot have.
	var gossip [][]byte
	for kind := range 16 {
		gossip = append(gossip, huge(byte(kind)), append([]byte{byte(kind)}, random[:2000]...), append([]byte{byte(kind)}, bytes.Repeat([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}, 50)...))
	}
	gossip = append(gossip, nil, random[:1400], append([]byte{244, 255}, random[:300]...), huge(9, 1))

	const rounds = 8
	// Looked at after each kind of garbage: the nodes allocate by themselves as well, and
	// the more the longer it takes. Had the promised frames been believed it would be 8 MiB
	// for each of them.
	const most = 32 << 20
	all, largest := uint64(0), uint64(0)
	costsLittle := func(what string, f func()) {
		t.Helper()
		n := allocated(f)
		if n > most {
			t.Errorf("%s: %d bytes were allocated for garbage", what, n)
		}
		all, largest = all+n, max(largest, n)
	}
	for i := range 3 {
		n := c.Node(i)
		for name, b := range port {
			costsLittle(name, func() {
				for range rounds {
					answer := throw(t, n.Address, b)
					if name == "http" && !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
						t.Errorf("%s: answered %q", name, answer)
					}
				}
			})
		}
		u, err := net.Dial("udp", n.GossipAddr())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range gossip {
			costsLittle(fmt.Sprintf("gossip, % x...", b[:min(len(b), 8)]), func() {
				u.Write(b)
				throw(t, n.GossipAddr(), b)
			})
		}
		u.Close()
	}
	t.Logf("%d bytes allocated, at most %d for one kind of garbage", all, largest)
	clustertest.Eventually(t, func() string {
		if n := runtime.NumGoroutine(); n > goroutines+20 {
			return fmt.Sprintf("%d goroutines, %d before", n, goroutines)
		}
		return ""
	})
	clustertest.Eventually(t, func() string {
		m := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.Members, error) {
			return clustertest.Ask(r, wire.OpMembers, wire.MembersRequest{}, wire.DecodeMembers)
		})
		for _, member := range m.Members {
			if !member.Alive {
				return member.Node + " is not alive as gossip sees it"
			}
		}
		if len(m.Members) != 3 {
			return fmt.Sprintf("%d members", len(m.Members))
		}
		return ""
	})
	stillServes(t, c)
}

// stranger is raft's stream layer of somebody who is no member: it says preamble
// first, reads a challenge if there is one, sends no valid proof, and reads the
// verdict.
type stranger struct {
	net.Listener
	preamble []byte
}

func (s *stranger) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	nc, err := net.DialTimeout("tcp", string(address), timeout)
	if err != nil {
		return nil, err
	}
	nc.Write(s.preamble)
	if len(s.preamble) > 1 {
		nc.SetReadDeadline(time.Now().Add(time.Second))
		var length [2]byte
		if _, err := io.ReadFull(nc, length[:]); err == nil {
			io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint16(length[:]))+32)
		}
		nc.Write(make([]byte, 32))
		if _, err := io.ReadFull(nc, length[:]); err == nil {
			io.CopyN(io.Discard, nc, int64(binary.BigEndian.Uint16(length[:])))
		}
		nc.SetReadDeadline(time.Time{})
	}
	return nc, nil
}

// TestStrangers_RaftMessagesWithForgedTerms_ReachNobody: one forged vote or
// append with a huge term would end elections for ever, restarts included, since
// terms are kept on disk, and a term that is merely higher unseats the leader.
// Whoever has no proof gets no byte to raft, however well it
// is informed.
func TestStrangers_RaftMessagesWithForgedTerms_ReachNobody(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3, clustertest.Steady)
	leader, r, s := ready(t, c, "orders")
	status := leader.Status()
	members := must(clustertest.Ask(r, wire.OpMembers, wire.MembersRequest{}, wire.DecodeMembers))(t)
	str := func(b []byte, s string) []byte {
		return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	// The hello of a member, of which everything is known but the key. See
	// member's hello for the layout.
	informed := func(id string) []byte {
		h := str([]byte{1, 1, 3}, status.Cluster)
		h = binary.BigEndian.AppendUint64(h, status.Incarnation)
		h = append(str(h, id), make([]byte, 32)...)
		return append(binary.BigEndian.AppendUint16([]byte{'R'}, uint16(len(h))), h...)
	}
	// Far above what there is, and near enough to be taken for a member's.
	term := status.Term + 1000
	for name, preamble := range map[string][]byte{
		"straight raft":               nil,
		"as a peer without a hello":   {'R'},
		"as a peer, informed":         informed(members.Members[0].ServerID),
		"as a peer that nobody knows": informed("n9-0123456789ab"),
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			trans := raft.NewNetworkTransport(&stranger{l, preamble}, 1, 300*time.Millisecond, io.Discard)
			defer trans.Close()
			for i := range 3 {
				n := c.Node(i)
				id, address := raft.ServerID(n.Status().ServerID), raft.ServerAddress(n.Address)
				header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(members.Members[0].ServerID), Addr: []byte(members.Members[0].Address)}
				if err := trans.RequestVote(id, address, &raft.RequestVoteRequest{RPCHeader: header, Term: term, LastLogIndex: term, LastLogTerm: term, LeadershipTransfer: true}, &raft.RequestVoteResponse{}); err == nil {
					t.Errorf("%s answers a vote", n.NodeID)
				}
				if err := trans.AppendEntries(id, address, &raft.AppendEntriesRequest{RPCHeader: header, Term: term}, &raft.AppendEntriesResponse{}); err == nil {
					t.Errorf("%s answers an append", n.NodeID)
				}
				if err := trans.TimeoutNow(id, address, &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{}); err == nil {
					t.Errorf("%s answers a call for an election", n.NodeID)
				}
			}
		})
	}
	for i := range 3 {
		if got := c.Node(i).Status().Term; got != status.Term {
			t.Errorf("%s is in term %d, it was %d", c.Node(i).NodeID, got, status.Term)
		}
	}
	if c.Leader() != leader {
		t.Error("another node leads")
	}
	if p := publishOne(t, c, s, 1, "orders", 1); p.Status != wire.StatusOK {
		t.Errorf("publish: %+v", p)
	}
	stillServes(t, c)
}

// TestStrangers_NodeOfAnotherCluster_StaysOut: a node with the data of one
// cluster is told to join another. It stays what it is, and the other does not
// take it in.
func TestStrangers_NodeOfAnotherCluster_StaysOut(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	c.WaitLeader()
	cfg := cluster.Config{
		Name: "x1", DataDir: t.TempDir(), Bind: "127.0.0.1:0", BootstrapExpect: 1, GossipFast: true,
		Fatal: func(err error) { t.Errorf("the other node died: %v", err) },
	}
	run := func(cfg cluster.Config, f func(n *cluster.Node)) {
		n, err := cluster.Start(bounded(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		clustertest.Eventually(t, func() string {
			if !n.Status().Serving {
				return "it does not lead itself"
			}
			return ""
		})
		f(n)
	}
	var id string
	run(cfg, func(n *cluster.Node) { id = n.Status().Cluster })
	cfg.Join = c.Addresses()
	run(cfg, func(n *cluster.Node) {
		if got := n.Status().Cluster; got != id {
			t.Errorf("it is in cluster %s, its data is of %s", got, id)
		}
		cl, err := client.Dial(bounded(t), n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if _, err := cl.Admin().CreateQueue(bounded(t), "of-the-other", client.QueueSettings{}); err != nil {
			t.Fatal(err)
		}
		// A client that was told addresses of both belongs to the cluster of the one
		// that answered it, mostly the first, and never mixes them.
		both, err := client.Dial(bounded(t), c.Node(0).Address+","+n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer both.Close()
		for range 3 {
			_, err := both.Admin().Queue(bounded(t), "of-the-other")
			if inOther := both.Cluster() == id; inOther != (err == nil) || !inOther && !errors.Is(err, client.ErrNoQueue) {
				t.Errorf("a client of cluster %s, asked for a queue of cluster %s: %v", both.Cluster(), id, err)
			}
		}
		m := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.Members, error) {
			return clustertest.Ask(r, wire.OpMembers, wire.MembersRequest{}, wire.DecodeMembers)
		})
		if len(m.Members) != 3 {
			t.Errorf("members: %+v", m.Members)
		}
		if m.Members[0].Node == "x1" {
			t.Errorf("members: %+v", m.Members)
		}
	})
	q := clustertest.AtLeader(c, func(r *clustertest.Raw) (wire.QueuesReply, error) {
		return clustertest.Ask(r, wire.OpQueueList, wire.QueueList{}, wire.DecodeQueuesReply)
	})
	if len(q.Queues) != 0 {
		t.Errorf("a queue of the other cluster: %+v", q)
	}
	stillServes(t, c)
}

// TestStart_WhatIsInTheWay_IsNamed: a port in use, and a directory that is in
// use or belongs to another node or another cluster, are errors that name it,
// and leave the directory as it was.
func TestStart_WhatIsInTheWay_IsNamed(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	key := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	config := func(change func(c *cluster.Config)) cluster.Config {
		c := cluster.Config{
			Name: "n1", DataDir: dir, Bind: "127.0.0.1:0", BootstrapExpect: 1, GossipFast: true, Secret: key(1),
			Fatal: func(err error) { t.Errorf("the node died: %v", err) },
		}
		change(&c)
		return c
	}
	refused := func(what string, cfg cluster.Config, is error, texts ...string) {
		t.Helper()
		n, err := cluster.Start(bounded(t), cfg)
		if err == nil {
			n.Close()
			t.Fatalf("%s: it starts", what)
		}
		if is != nil && !errors.Is(err, is) {
			t.Errorf("%s: %v", what, err)
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q is not in: %v", what, text, err)
			}
		}
	}
	port := taken.Addr().String()
	refused("port in use", config(func(c *cluster.Config) { c.Bind = port }), syscall.EADDRINUSE, "n1", port)
	refused("gossip port in use", config(func(c *cluster.Config) { c.GossipBind = port }), nil, port, "address already in use")
	n, err := cluster.Start(bounded(t), config(func(*cluster.Config) {}))
	if err != nil {
		t.Fatalf("after the ports: %v", err)
	}
	refused("directory in use", config(func(*cluster.Config) {}), member.ErrDirLocked, dir)
	n.Close()
	refused("directory of another node", config(func(c *cluster.Config) { c.Name = "n2" }), member.ErrOtherNode, "n1", "n2")
	refused("directory of another cluster", config(func(c *cluster.Config) { c.Secret = key(2) }), member.ErrOtherCluster, n.Status().Cluster)
	if n, err = cluster.Start(bounded(t), config(func(*cluster.Config) {})); err != nil {
		t.Fatalf("after the refusals: %v", err)
	}
	n.Close()
}
