package member

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func secretCluster() ClusterInfo {
	c := testCluster("n1", "n2")
	copy(c.Secret[:], bytes.Repeat([]byte{9}, SecretBytes))
	return c
}

// twoMembers are two nodes of one cluster.
func twoMembers(t *testing.T) (*testNode, *testNode) {
	n := newTestNet()
	return newTestNode(t, n, "n1").start().enter(secretCluster()), newTestNode(t, n, "n2").start().enter(secretCluster())
}

func dialRaft(from, to *testNode) (net.Conn, error) {
	return from.streams.Raft().Dial(DialedAddress(to.dir.Identity().ServerID, to.addr), time.Second)
}

func TestStreams_RaftBetweenMembers_CarriesBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoMembers(t)
		out, err := dialRaft(a, b)
		if err != nil {
			t.Fatal(err)
		}
		in, err := b.streams.Raft().Accept()
		if err != nil {
			t.Fatal(err)
		}
		go out.Write([]byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(in, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		// Closing the layer ends both directions, and what raft would wait on.
		b.streams.Raft().Close()
		if _, err := out.Read(got); err == nil {
			t.Error("the other end is still open")
		}
		if _, err := b.streams.Raft().Accept(); !errors.Is(err, ErrStreamsClosed) {
			t.Error(err)
		}
	})
}

// noRaft fails if anything reached raft.
func noRaft(t *testing.T, n *testNode) {
	t.Helper()
	synctest.Wait()
	select {
	case c := <-n.streams.raftLayer.queue:
		t.Fatalf("a stream from %v reached raft", c.RemoteAddr())
	default:
	}
}

func TestStreams_RaftWithWrongCredentials_IsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ClusterInfo)
		word   string
	}{
		"secret":      {func(c *ClusterInfo) { c.Secret[0]++ }, "key"},
		"cluster":     {func(c *ClusterInfo) { c.ID = "c2" }, "belongs to cluster c1"},
		"incarnation": {func(c *ClusterInfo) { c.Incarnation++ }, "restored"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newTestNet()
				wrong := secretCluster()
				c.change(&wrong)
				a := newTestNode(t, n, "n1").start().enter(wrong)
				b := newTestNode(t, n, "n2").start().enter(secretCluster())
				_, err := dialRaft(a, b)
				if err == nil || !strings.Contains(err.Error(), c.word) {
					t.Errorf("error %v, want one with %q", err, c.word)
				}
				noRaft(t, b)
			})
		})
	}
}

// A port passes from one node to another of the same cluster: what is meant for
// the first must not be acknowledged by the second.
func TestStreams_AnotherMemberAnswers_IsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoMembers(t)
		_, err := a.streams.Raft().Dial(DialedAddress("n3-000000000000", b.addr), time.Second)
		if !errors.Is(err, ErrWrongNode) {
			t.Error(err)
		}
		if _, err := a.streams.Raft().Dial(raft.ServerAddress(b.addr), time.Second); err == nil {
			t.Error("dialed without knowing whom")
		}
		noRaft(t, b)
	})
}

func TestStreams_ServerNotAllowed_IsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoMembers(t)
		b.streams.SetAllow(func(id raft.ServerID) error {
			if id != a.dir.Identity().ServerID {
				t.Errorf("asked about %s", id)
			}
			return errors.New("n1 was removed")
		})
		if _, err := dialRaft(a, b); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "n1 was removed") {
			t.Error(err)
		}
		noRaft(t, b)
	})
}

// tap records what a connection writes.
type tap struct {
	net.Conn
	sent *bytes.Buffer
}

func (c tap) Write(p []byte) (int, error) { c.sent.Write(p); return c.Conn.Write(p) }

func TestStreams_RecordedHello_DoesNotAuthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoMembers(t)
		var sent bytes.Buffer
		dial := a.streams.dialFunc
		a.streams.dialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			return tap{c, &sent}, err
		}
		out, err := dialRaft(a, b)
		if err != nil {
			t.Fatal(err)
		}
		in, _ := b.streams.Raft().Accept()
		out.Close()
		in.Close()
		c, err := a.net.dial(t.Context(), "tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		recorded := sent.Bytes()
		// The hello as it was, then the old proof after the new challenge.
		c.Write(recorded[:len(recorded)-sha256.Size])
		if _, err := readBlock(c); err != nil {
			t.Fatal(err)
		}
		io.ReadFull(c, make([]byte, sha256.Size))
		c.Write(recorded[len(recorded)-sha256.Size:])
		if _, err := readBlock(c); err == nil {
			t.Error("a verdict for a recorded proof")
		}
		noRaft(t, b)
	})
}

// What the server itself sends must not serve as the client's proof.
func TestStreams_ReflectedProof_DoesNotAuthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoMembers(t)
		own := a.dir.Identity()
		c, err := a.net.dial(t.Context(), "tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		h := hello{Purpose: purposeRaft, Key: keySecret, Cluster: own.Cluster.ID, Incarnation: own.Cluster.Incarnation, ServerID: own.ServerID}
		writeBlock(c, []byte{streamByte}, h.encode(), nil)
		if _, err := readBlock(c); err != nil {
			t.Fatal(err)
		}
		mac := make([]byte, sha256.Size)
		io.ReadFull(c, mac)
		c.Write(mac)
		if _, err := readBlock(c); err == nil {
			t.Error("a verdict for a reflected proof")
		}
		noRaft(t, b)
	})
}

func TestStreams_GarbageAndSilence_AreClosed(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":        nil,
		"half a hello":   {streamByte, 0, 80, 1, 1},
		"other protocol": []byte("GET / HTTP/1.1\r\n\r\n"),
		"huge length":    append([]byte{streamByte, 0xff, 0xff}, make([]byte, 4096)...),
		"empty hello":    {streamByte, 0, 0},
		"other version":  {streamByte, 0, 1, 99},
		"garbage":        append([]byte{streamByte, 0, 100}, bytes.Repeat([]byte{0xdd}, 100)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, n := twoMembers(t)
				c, err := a.net.dial(t.Context(), "tcp", n.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				go c.Write(b)
				io.Copy(io.Discard, c) // ends when the node closes, and never if it does not
				noRaft(t, n)
				if _, err := dialRaft(a, n); err != nil {
					t.Error("and after that a good one:", err)
				}
			})
		})
	}
}

// Strangers that hold every place give it back when their time is over.
func TestStreams_TooManyStrangers_AreTurnedAwayAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoMembers(t)
		for range handshakesMax {
			c, err := a.net.dial(t.Context(), "tcp", b.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		synctest.Wait()
		for range 3 { // a member proves itself at once
			if _, err := dialRaft(a, b); err != nil {
				t.Error(err)
			}
			c, err := a.net.dial(t.Context(), "tcp", b.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			synctest.Wait()
		}
		strange := func() int {
			b.streams.mu.Lock()
			defer b.streams.mu.Unlock()
			return b.streams.strange.Len()
		}
		if n := strange(); n > handshakesMax {
			t.Errorf("%d are let wait, at most %d are to be", n, handshakesMax)
		}
		time.Sleep(handshakeTimeout)
		synctest.Wait()
		if n := strange(); n != 0 {
			t.Errorf("%d are still there when their time is over", n)
		}
	})
}

func TestStreams_Enrollment_FollowsTheKey(t *testing.T) {
	key := bytes.Repeat([]byte{3}, SecretBytes)
	for name, c := range map[string]struct {
		client, server []byte
		enroll         EnrollPolicy
		word           string // "" succeeds
	}{
		"both have it":        {key, key, EnrollKeyed, ""},
		"neither, open":       {nil, nil, EnrollOpen, ""},
		"neither, from afar":  {nil, nil, EnrollLoopback, "--cluster-key"}, // a pipe is no loopback address
		"neither, keyed only": {nil, nil, EnrollKeyed, "--cluster-key"},
		"client has none":     {nil, key, EnrollOpen, "--cluster-key"},
		"server has none":     {key, nil, EnrollOpen, "was not given a cluster key"},
		"different keys":      {key, bytes.Repeat([]byte{4}, SecretBytes), EnrollOpen, "does not have this node's key"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newTestNet()
				a, b := newTestNode(t, n, "n1"), newTestNode(t, n, "n2")
				a.key, b.key = c.client, c.server
				a.start()
				b.start().streams.enroll = c.enroll
				got, err := a.streams.ask(t.Context(), b.addr, "")
				if c.word == "" {
					if err != nil || got.Peer.Name != "n2" || got.Stage != StageEmpty {
						t.Errorf("%+v, %v", got, err)
					}
				} else if err == nil || !strings.Contains(err.Error(), c.word) {
					t.Errorf("error %v, want one with %q", err, c.word)
				}
			})
		})
	}
}

// Nobody speaks for another node: the proof is of the one named in the hello.
func TestStreams_RequestForAnotherNode_IsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoMembers(t)
		b.streams.SetOnJoin(func(context.Context, JoinRequest) (JoinAnswer, error) {
			t.Error("the group was asked")
			return JoinAnswer{}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.streams.join(ctx, b.addr, JoinRequest{Peer: testPeer("n9")}); err == nil {
			t.Error("join for n9 by n1")
		}
		if _, err := a.streams.propose(ctx, b.addr, testCluster("n8", "n9")); err == nil {
			t.Error("proposal of n8 by n1")
		}
	})
}

func TestStreams_CloseWithOpenStreams_EndsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoMembers(t)
		b.streams.SetOnJoin(func(ctx context.Context, _ JoinRequest) (JoinAnswer, error) {
			<-ctx.Done()
			return JoinAnswer{}, ctx.Err()
		})
		go a.streams.join(t.Context(), b.addr, JoinRequest{Peer: a.dir.Identity().Self()})
		stranger, err := a.net.dial(t.Context(), "tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		if _, err := dialRaft(a, b); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.streams.Close()
		b.streams.Close()
		if _, err := dialRaft(a, b); err == nil {
			t.Error("dialed a closed node")
		}
	})
}

func FuzzDecoders(f *testing.F) {
	f.Add(hello{Purpose: purposeRaft, Key: keySecret, Cluster: "c", ServerID: "n1-000000000000"}.encode())
	f.Add(challenge{ServerID: "n1-000000000000"}.encode())
	f.Add(ask{From: testPeer("n1")}.encode())
	f.Add(answer{Seen: Seen{Peer: testPeer("n1")}, Peers: []Peer{testPeer("n2")}}.encode())
	f.Add(encodeProposal(testCluster("n1", "n2")))
	f.Add(joinReply{JoinAnswer: JoinAnswer{Accepted: true}, Cluster: testCluster("n1")}.encode())
	f.Add(JoinRequest{Peer: testPeer("n1")}.encode())
	f.Add(meta{Peer: testPeer("n1")}.encode())
	f.Add(encodeIdentity(Identity{Name: "n1", ServerID: "n1-000000000000"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What is accepted is written again the same: nothing was guessed.
		same := func(what string, err error, again func() []byte) {
			if err == nil && !bytes.Equal(again(), b) {
				t.Errorf("%s: %x became %x", what, b, again())
			}
		}
		h, err := decodeHello(b)
		same("hello", err, h.encode)
		c, err := decodeChallenge(b)
		same("challenge", err, c.encode)
		a, err := decodeAsk(b)
		same("ask", err, a.encode)
		an, err := decodeAnswer(b)
		same("answer", err, an.encode)
		p, err := decodeProposal(b)
		same("proposal", err, func() []byte { return encodeProposal(p) })
		pr, err := decodeProposalReply(b)
		same("proposal reply", err, pr.encode)
		j, err := decodeJoinRequest(b)
		same("join", err, j.encode)
		jr, err := decodeJoinReply(b)
		same("join reply", err, jr.encode)
		m, err := decodeMeta(b)
		same("meta", err, m.encode)
		id, err := decodeIdentity(b)
		same("identity", err, func() []byte { return encodeIdentity(id) })
	})
}
