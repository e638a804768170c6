package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// form runs Form on a node until it is done.
func (n *testNode) form(ctx context.Context, expect int, seeds ...string) (Formed, error) {
	return Form(ctx, FormConfig{Dir: n.dir, Streams: n.streams, Seeds: seeds, Expect: expect, Logger: testLogger(n.t).With("node", n.name)})
}

// formAll runs Form on all nodes and plays the group's part in what follows.
func formAll(t *testing.T, expect int, seeds []string, nodes ...*testNode) []Formed {
	t.Helper()
	out := make([]Formed, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			f, err := n.form(t.Context(), expect, seeds...)
			if err != nil {
				t.Errorf("%s: %v", n.name, err)
				return
			}
			if f.Bootstrap {
				if err := n.dir.MarkBootstrapped(); err != nil {
					t.Error(err)
				}
			}
			n.streams.SetOnJoin(func(context.Context, JoinRequest) (JoinAnswer, error) { return JoinAnswer{Accepted: true}, nil })
			out[i] = f
		})
	}
	wg.Wait()
	return out
}

func sameCluster(t *testing.T, nodes ...*testNode) ClusterInfo {
	t.Helper()
	want := nodes[0].dir.Identity().Cluster
	for _, n := range nodes {
		id := n.dir.Identity()
		if id.Stage != StageMember || id.Cluster.ID != want.ID || id.Cluster.Secret != want.Secret || id.Cluster.Incarnation != want.Incarnation {
			t.Errorf("%s is %s of %q, want a member of %q with its secret and incarnation", n.name, id.Stage, id.Cluster.ID, want.ID)
		}
	}
	if want.ID == "" || want.Incarnation == 0 || want.Secret == (Secret{}) {
		t.Errorf("cluster %+v", want)
	}
	return want
}

func TestForm_ThreeNodes_OneBootstraps(t *testing.T) {
	key := bytes.Repeat([]byte{5}, SecretBytes)
	for name, key := range map[string][]byte{"no key": nil, "key": key} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tn := newTestNet()
				var nodes []*testNode
				for i := 1; i <= 3; i++ {
					n := newTestNode(t, tn, fmt.Sprintf("n%d", i))
					n.key = key
					nodes = append(nodes, n.start())
				}
				// Only the first is known to all: they hear of each other through it.
				formed := formAll(t, 3, []string{"n1:7450"}, nodes...)
				c := sameCluster(t, nodes...)
				for i, f := range formed {
					if f.Bootstrap != (i == 0) || f.Joined {
						t.Errorf("n%d: %+v", i+1, f)
					}
				}
				if len(c.Members) != 3 || c.Keyed != (key != nil) || key != nil && !bytes.Equal(c.Secret[:], key) {
					t.Errorf("cluster %+v", c)
				}
				// Started again, everybody knows without asking.
				for _, n := range nodes {
					n.stop()
					n.start()
				}
				for i, f := range formAll(t, 3, nil, nodes...) {
					if f.Bootstrap {
						t.Errorf("n%d bootstraps again", i+1)
					}
				}
			})
		})
	}
}

func TestForm_OneNode_FormsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(t, newTestNet(), "n1").start()
		if f := formAll(t, 1, nil, n); !f[0].Bootstrap {
			t.Errorf("%+v", f)
		}
		sameCluster(t, n)
	})
}

// The interleaving of the rule: A sees {A,B,C}, D sees {B,C,D}, and each has
// met three nodes of which none has state.
func TestForm_FourNodesExpectThree_OneClusterAndTheFourthJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTestNet()
		a, b, c, d := newTestNode(t, tn, "a").start(), newTestNode(t, tn, "b").start(), newTestNode(t, tn, "c").start(), newTestNode(t, tn, "d").start()
		// a and d do not reach each other at first.
		apart := atomic.Bool{}
		apart.Store(true)
		for _, pair := range [][2]*testNode{{a, d}, {d, a}} {
			dial := pair[0].streams.dialFunc
			pair[0].streams.dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if apart.Load() && addr == pair[1].addr {
					return nil, errors.New("no route")
				}
				return dial(ctx, network, addr)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(5 * time.Second)
			apart.Store(false)
		})
		a.streams.known.add(b.dir.Identity().Self(), c.dir.Identity().Self())
		d.streams.known.add(b.dir.Identity().Self(), c.dir.Identity().Self())
		b.streams.known.add(c.dir.Identity().Self(), d.dir.Identity().Self())
		formed := formAll(t, 3, nil, a, b, c, d)
		wg.Wait()
		sameCluster(t, a, b, c, d)
		bootstraps, joined := 0, 0
		for _, f := range formed {
			if f.Bootstrap {
				bootstraps++
			}
			if f.Joined {
				joined++
			}
		}
		if bootstraps != 1 || joined != 1 {
			t.Errorf("%d bootstrap and %d join", bootstraps, joined)
		}
	})
}

func TestForm_ThreeOfFiveWipedOldOnesDown_FormNothing(t *testing.T) {
	for name, expect := range map[string]int{"expect 5": 5, "expect 3": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tn := newTestNet()
				var nodes []*testNode
				var seeds []string
				for i := 1; i <= 5; i++ {
					n := newTestNode(t, tn, fmt.Sprintf("n%d", i)).start()
					nodes, seeds = append(nodes, n), append(seeds, n.addr)
				}
				formAll(t, 5, seeds, nodes...)
				old := sameCluster(t, nodes...)
				was := nodes[0].dir.Identity().ServerID
				for i, n := range nodes {
					n.stop()
					if i < 3 {
						os.RemoveAll(n.path)
						os.MkdirAll(n.path, 0o700)
						n.start()
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				var wg sync.WaitGroup
				for _, n := range nodes[:3] {
					wg.Go(func() {
						if f, err := n.form(ctx, expect, seeds...); !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("%s: %+v, %v", n.name, f, err)
						}
					})
				}
				wg.Wait()
				for _, n := range nodes[:3] {
					if id := n.dir.Identity(); id.Stage != StageEmpty {
						t.Errorf("%s is %s of %s", n.name, id.Stage, id.Cluster.ID)
					}
				}
				// When the old ones are back the others join, under new ids.
				for _, n := range nodes[3:] {
					n.start()
					n.streams.SetOnJoin(func(_ context.Context, r JoinRequest) (JoinAnswer, error) {
						if r.Peer.ServerID == was {
							t.Error("the old id came back")
						}
						return JoinAnswer{Accepted: true}, nil
					})
				}
				for _, f := range formAll(t, expect, seeds, nodes[:3]...) {
					if !f.Joined || f.Bootstrap {
						t.Errorf("%+v", f)
					}
				}
				if c := sameCluster(t, nodes...); c.ID != old.ID {
					t.Errorf("cluster %s after %s", c.ID, old.ID)
				}
			})
		})
	}
}

// Each node is killed right before and right after each durable step, one node
// and step at a time, and started again: one cluster of the three forms.
func TestForm_CrashAtEachStep_OneClusterForms(t *testing.T) {
	for victim := range 3 {
		for step := 1; step <= 3; step++ {
			for _, written := range []bool{false, true} {
				t.Run(fmt.Sprintf("n%d step %d written %v", victim+1, step, written), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						tn := newTestNet()
						var nodes []*testNode
						for i := 1; i <= 3; i++ {
							nodes = append(nodes, newTestNode(t, tn, fmt.Sprintf("n%d", i)).start())
						}
						v := nodes[victim]
						v.crashAt(step, written)
						out := make([]Formed, 3)
						var wg sync.WaitGroup
						for i, n := range nodes {
							wg.Go(func() {
								for {
									f, err := n.form(t.Context(), 3, "n1:7450")
									if err == nil && f.Bootstrap {
										out[i] = f // raft is bootstrapped between these two; the second time it says so
										err = n.dir.MarkBootstrapped()
									}
									if err == nil {
										return
									}
									if !errors.Is(err, errCrash) {
										t.Errorf("%s: %v", n.name, err)
										return
									}
									n.stop() // what the kernel does for a dead process
									n.start()
								}
							})
						}
						wg.Wait()
						sameCluster(t, nodes...)
						for i, f := range out {
							if f.Bootstrap != (i == 0) {
								t.Errorf("n%d: %+v", i+1, f)
							}
						}
					})
				})
			}
		}
	}
}

func TestForm_NotFormedAndNoMember_EndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(t, newTestNet(), "n1").start()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := n.form(ctx, 3, "n2:7450"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// The asked member does not lead, the leader is not ready at first.
func TestForm_Join_FollowsTheLeaderAndTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTestNet()
		c := secretCluster()
		a, b := newTestNode(t, tn, "n1").start().enter(c), newTestNode(t, tn, "n2").start().enter(c)
		a.streams.SetOnJoin(func(context.Context, JoinRequest) (JoinAnswer, error) { return JoinAnswer{Leader: b.addr}, nil })
		calls := 0
		var got JoinRequest
		b.streams.SetOnJoin(func(_ context.Context, r JoinRequest) (JoinAnswer, error) {
			got = r
			switch calls++; calls {
			case 1:
				return JoinAnswer{}, errors.New("lost leadership")
			case 2:
				return JoinAnswer{Reason: "another change is under way"}, nil
			}
			return JoinAnswer{Accepted: true}, nil
		})
		n := newTestNode(t, tn, "n3")
		n.gossip = "10.0.0.3:7946"
		n.start()
		f, err := n.form(t.Context(), 0, a.addr)
		if err != nil || !f.Joined || f.Bootstrap {
			t.Fatalf("%+v, %v", f, err)
		}
		sameCluster(t, a, b, n)
		if got.Peer != n.dir.Identity().Self() || got.Peer.Gossip != n.gossip {
			t.Errorf("asked for %+v", got.Peer)
		}
	})
}

func TestForm_MemberOfAnotherClusterInSight_NeverForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTestNet()
		old := newTestNode(t, tn, "old").start().enter(secretCluster())
		a, b := newTestNode(t, tn, "a").start(), newTestNode(t, tn, "b").start()
		// Only b knows the old cluster, and a has what it takes to mint.
		b.streams.known.add(old.dir.Identity().Self())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for _, n := range []*testNode{a, b} {
			wg.Go(func() { n.form(ctx, 2, "a:7450") })
		}
		wg.Wait()
		for _, n := range []*testNode{a, b} {
			if s := n.dir.Identity().Stage; s >= StageCommitted {
				t.Errorf("%s is %s", n.name, s)
			}
		}
	})
}

func TestSecret_InALog_IsNotShown(t *testing.T) {
	c := secretCluster()
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", c, c, c.Secret, c.Secret), fmt.Sprint(Identity{Cluster: c})} {
		if strings.Contains(text, "9 9 9") || strings.Contains(text, "090909") || strings.Contains(text, "0x9, 0x9") {
			t.Errorf("secret in %q", text)
		}
	}
}

var errCrash = errors.New("crash")

// crashAt makes a node's directory fail at its nth change from now on, before
// or after that is on disk, and stay failed.
func (n *testNode) crashAt(step int, written bool) {
	d := n.dir
	changes := 0
	d.write = func(b []byte) error {
		if changes++; changes < step {
			return writeDurably(d.path, identityFile, identityTempFile, b)
		}
		if written {
			if err := writeDurably(d.path, identityFile, identityTempFile, b); err != nil {
				return err
			}
		} else {
			// Torn: the temporary file is there, the rename is not.
			os.WriteFile(filepath.Join(d.path, identityTempFile), b[:len(b)/2], 0o600)
		}
		return errCrash
	}
}

// A node that gave up its server id finds its cluster by the peers it knew.
func TestForm_Renewed_JoinsItsClusterAsANewMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTestNet()
		c := secretCluster()
		a, b := newTestNode(t, tn, "n1").start().enter(c), newTestNode(t, tn, "n2").start().enter(c)
		old := b.dir.Identity().ServerID
		if err := b.dir.setPeers([]Peer{a.dir.Identity().Self()}); err != nil {
			t.Fatal(err)
		}
		var got JoinRequest
		a.streams.SetOnJoin(func(_ context.Context, r JoinRequest) (JoinAnswer, error) {
			got = r
			return JoinAnswer{Accepted: true}, nil
		})
		if err := b.dir.Renew(); err != nil {
			t.Fatal(err)
		}
		if f, err := b.form(t.Context(), 1); err != nil || !f.Joined || f.Bootstrap {
			t.Fatalf("%+v, %v", f, err)
		}
		sameCluster(t, a, b)
		if id := b.dir.Identity(); got.Peer.ServerID != id.ServerID || id.ServerID == old || id.Former != "" {
			t.Errorf("joined as %s, identity %+v, was %s", got.Peer.ServerID, id, old)
		}
	})
}
