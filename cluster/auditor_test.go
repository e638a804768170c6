package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// deaths is why nodes ended.
type deaths struct {
	mu  sync.Mutex
	why map[string]error
}

func (d *deaths) of(n *clustertest.Node) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why[n.NodeID]
}

func (d *deaths) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.why)
}

// audited is a cluster whose nodes compare themselves all the time. Steady: what is
// there to compare is an entry that the leader of the beginning is asked for once. And
// all are waited for: of three nodes of which one does not answer in time, two that
// differ have no majority.
func audited(t *testing.T) (*clustertest.Cluster, *deaths) {
	d := &deaths{why: make(map[string]error)}
	c := clustertest.New(t, 3, clustertest.Steady, d.note, func(c *cluster.Config) {
		c.DigestInterval = 50 * time.Millisecond
		cluster.WithGather(c, clustertest.Bound)
	})
	return c, d
}

// note is an option that has nodes die without failing the test.
func (d *deaths) note(c *cluster.Config) {
	name := c.Name
	c.Fatal = func(err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.why[name] = err
	}
}

// stopped waits until a node has ended itself, and is what the process's end
// would be.
func (d *deaths) stopped(t *testing.T, c *clustertest.Cluster, n *clustertest.Node, says ...string) {
	t.Helper()
	clustertest.Eventually(t, func() string {
		if d.of(n) == nil {
			return n.NodeID + " goes on"
		}
		return ""
	})
	err := d.of(n)
	if !errors.Is(err, cluster.ErrDiverged) {
		t.Fatalf("%s: %v", n.NodeID, err)
	}
	for _, s := range append(says, "onceq node wipe "+n.Dir, "n1 has ", "n2 has ", "n3 has ") {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s does not say %q: %v", n.NodeID, s, err)
		}
	}
}

// alive says that nodes have not ended, after one more comparison of all.
func (d *deaths) alive(t *testing.T, c *clustertest.Cluster, nodes ...*clustertest.Node) {
	t.Helper()
	c.WaitCaughtUp()
	c.DigestsAgree()
	for _, n := range nodes {
		if err := d.of(n); err != nil {
			t.Errorf("%s ended: %v", n.NodeID, err)
		}
	}
}

func (d *deaths) rejoins(t *testing.T, c *clustertest.Cluster, n *clustertest.Node) {
	t.Helper()
	c.Kill(n)
	c.Wipe(n)
	d.forget()
	c.Restart(n)
	now := n.Status().ServerID
	clustertest.Eventually(t, func() string {
		m := members(c)
		for _, v := range m.Members {
			if v.ServerID == now && v.Voter && len(m.Members) == 3 {
				return ""
			}
		}
		return fmt.Sprintf("members %+v, want three, %s as a voter", m.Members, now)
	})
	d.alive(t, c, c.Up()...)
}

func diverge(t *testing.T, nodes ...*clustertest.Node) {
	t.Helper()
	var ns []*cluster.Node
	for _, n := range nodes {
		ns = append(ns, n.Node)
	}
	clustertest.Eventually(t, func() string {
		done, err := cluster.Diverge(ns...)
		if err != nil {
			t.Fatal(err)
		}
		if !done {
			return "the nodes are at different indexes"
		}
		return ""
	})
}

// stir puts an entry into the log, so that there is something to compare. The
// leader may stop before it answers; ended is closed when its connection is.
func stir(t *testing.T, r *clustertest.Raw, s wire.SessionOpened, seq uint64) (ended <-chan struct{}) {
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		if _, err := r.Publish(s, 1, "orders", clustertest.Publication("orders", seq, "stir")); err != nil {
			t.Logf("publish at the leader: %v", err)
		}
	}()
	return ch
}

// TestAudit_AFollowerThatIsWrong_Stops, and comes back as a new member.
func TestAudit_AFollowerThatIsWrong_Stops(t *testing.T) {
	t.Parallel()
	c, d := audited(t)
	leader, _, s := ready(t, c, "orders")
	victim := c.Others(leader)[0]
	diverge(t, victim)
	publishOne(t, c, s, 1, "orders", 1)
	d.stopped(t, c, victim, "Its state is wrong", "node "+victim.NodeID)
	d.rejoins(t, c, victim)
	if p := publishOne(t, c, s, 1, "orders", 1); p.Status != wire.StatusOK || !p.Duplicate {
		t.Errorf("late copy: %+v", p)
	}
}

// TestAudit_ALeaderThatIsWrong_Stops_AndTheOthersGoOn: the leader collects the
// values and has no more to say than the others.
func TestAudit_ALeaderThatIsWrong_Stops_AndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	c, d := audited(t)
	leader, r, s := ready(t, c, "orders")
	others := c.Others(leader)
	diverge(t, leader)
	stirred := stir(t, r, s, 1)
	d.stopped(t, c, leader, "Its state is wrong", "node "+leader.NodeID)
	c.Kill(leader)
	<-stirred
	if p := publishOne(t, c, s, 1, "orders", 2); p.Status != wire.StatusOK {
		t.Errorf("publish at the next leader: %+v", p)
	}
	d.alive(t, c, others...)
	d.rejoins(t, c, leader)
}

// TestAudit_NobodyAgrees_AllStop, and all are well when they are started again:
// what was wrong in memory is made anew from the log, and the verdict in it is
// about states that are gone.
func TestAudit_NobodyAgrees_AllStop(t *testing.T) {
	t.Parallel()
	c, d := audited(t)
	_, r, s := ready(t, c, "orders")
	publishOne(t, c, s, 1, "orders", 1)
	all := c.Up()
	diverge(t, all...)
	stirred := stir(t, r, s, 2)
	for _, n := range all {
		d.stopped(t, c, n, "no value has a majority", "Start the nodes again")
	}
	for _, n := range all {
		c.Kill(n)
	}
	<-stirred
	d.forget()
	c.Restart(all...)
	if p := publishOne(t, c, s, 1, "orders", 1); p.Status != wire.StatusOK || !p.Duplicate {
		t.Errorf("late copy: %+v", p)
	}
	d.alive(t, c, all...)
}

// TestAudit_NodesThatAreWell_GoOn under load, while leaders are killed and
// followers are restored from snapshots.
func TestAudit_NodesThatAreWell_GoOn(t *testing.T) {
	t.Parallel()
	c, d := audited(t)
	createQueue(t, c, "orders", wire.QueueSettings{})
	cl := connect(t, c)
	got := newReceived()
	consume(t, cl, "orders", func(_ context.Context, d *client.Delivery) error {
		got.note(d)
		return nil
	})
	p := producerOf(t, cl, "orders")
	ctx, cancel := context.WithCancel(t.Context()) // four leaders may take longer than one thing
	var published sync.WaitGroup
	count := 0
	published.Go(func() {
		for ctx.Err() == nil {
			if _, err := p.Publish(bounded(t), client.Message{Body: fmt.Append(nil, count)}); err != nil {
				t.Errorf("publish %d: %v", count, err)
				return
			}
			count++
		}
	})
	for range 4 {
		leader := c.WaitLeader()
		from := leader.Status().DigestIndex
		clustertest.Eventually(t, func() string {
			if now := leader.Status(); now.DigestIndex <= from {
				return "no digest since"
			}
			return ""
		})
		c.Kill(leader)
		c.WaitOtherLeader(leader)
		c.Restart(leader)
		c.WaitCaughtUp()
		for _, n := range c.Up() {
			if err := n.Snapshot(); err != nil {
				t.Logf("snapshot of %s: %v", n.NodeID, err)
			}
		}
	}
	cancel()
	published.Wait()
	got.waitFor(t, count)
	d.alive(t, c, c.Up()...)
}
