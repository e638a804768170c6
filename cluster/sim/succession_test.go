package sim

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
	"onceq/cluster"
)

// heartbeatTimeout is set for these tests, so that an election that waits for
// the leader's silence cannot be taken for one that does not.
const heartbeatTimeout = time.Minute

func slowHeartbeats(c *cluster.Config) {
	c.HeartbeatTimeout, c.ElectionTimeout = heartbeatTimeout, heartbeatTimeout
	c.LeaderLeaseTimeout = time.Second
}

// A leader whose process has ended is succeeded at once: the others need not
// wait until its silence is long enough. Time is virtual.
func TestSuccession_ProcessEnded_TheNextLeadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, 3, slowHeartbeats)
		defer w.Close()
		w.Net.SetDelay(200 * time.Microsecond)
		c := w.Dial("c1")
		defer c.Close()
		create(t, c, "orders", client.QueueSettings{})
		for range 5 {
			leader := w.Leader()
			w.CaughtUp()
			before := leader.Status().Term
			killed := time.Now()
			w.Kill(leader)
			next := w.Leader(leader)
			if took := time.Since(killed); took >= time.Second {
				t.Fatalf("the next leader serves %v after the end of the last one", took)
			}
			if term := next.Status().Term; term != before+1 {
				t.Errorf("term %d follows term %d: the followers stood against each other", term, before)
			}
			w.Start(leader)
			w.CaughtUp()
		}
		w.DigestsAgree(c)
	})
}

// A node that is made to believe that the leader is gone does not unseat one that
// the others hear: its streams end, and its dials are refused.
func TestSuccession_OneNodeDeceived_TheLeaderStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		refuse := map[string]string{} // from whom to which address
		refused := make(chan string, 1024)
		w := New(t, 3, func(c *cluster.Config) {
			slowHeartbeats(c)
			dial, name := c.Dial, c.Name
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				mu.Lock()
				deceived := refuse[name] == address
				mu.Unlock()
				if deceived {
					select {
					case refused <- name:
					default:
					}
					return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
				}
				return dial(ctx, network, address)
			}
		})
		defer w.Close()
		w.Net.SetDelay(200 * time.Microsecond)
		leader := w.Leader()
		w.CaughtUp()
		term := leader.Status().Term
		var deceived *Node
		for _, n := range w.Nodes {
			if n != leader {
				deceived = n
			}
		}
		mu.Lock()
		refuse[deceived.Host] = leader.Host + ":7450"
		mu.Unlock()
		w.Net.Cut(leader.Host, deceived.Host)
		w.Net.Reset(deceived.Host)
		<-refused // it has looked, and found what a node finds whose leader is gone
		time.Sleep(heartbeatTimeout / 2)
		if s := leader.Status(); !s.Serving || s.Term != term {
			t.Fatalf("the leader of term %d was unseated: %+v", term, s)
		}
		mu.Lock()
		clear(refuse)
		mu.Unlock()
		w.Heal()
		w.CaughtUp()
		if s := w.Leader().Status(); s.Term != term {
			t.Fatalf("term %d became %d", term, s.Term)
		}
	})
}
