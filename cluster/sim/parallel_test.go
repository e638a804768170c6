package sim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
)

// TestPublish_TheLeadersDiskIsSlow: raft has counted the leader in, whose disk does not have
// the message yet. With one of two followers nobody may see it: a power cut at the leader,
// and the two that do not have it would go on without. With both it is on a majority of
// disks, and the leader's is in nobody's way.
func TestPublish_TheLeadersDiskIsSlow(t *testing.T) {
	t.Run("one follower has it", func(t *testing.T) { slowLeader(t, true) })
	t.Run("both have it", func(t *testing.T) { slowLeader(t, false) })
}

func slowLeader(t *testing.T, alone bool) {
	synctest.Test(t, func(t *testing.T) {
		const behind = 500 * time.Millisecond
		w := New(t, 3)
		defer w.Close()
		c := w.Dial("c1")
		defer c.Close()
		ctx := context.Background()
		create(t, c, "orders", client.QueueSettings{})
		p, err := c.NewProducer("orders")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(ctx, client.Message{Body: []byte("first")}); err != nil { // opens the session
			t.Fatal(err)
		}
		leader := w.Leader()
		if alone {
			for _, n := range w.Nodes {
				if n != leader {
					w.Kill(n)
					break
				}
			}
		}
		w.CaughtUp()
		before := leader.Status()
		w.SlowDisk(leader, behind)
		began := time.Now()
		f := p.PublishAsync(ctx, client.Message{Body: []byte("second")})
		time.Sleep(behind / 2)
		for _, n := range w.Nodes {
			if n.Node == nil {
				continue
			}
			s := n.Status()
			if s.LastLogIndex <= before.LastLogIndex {
				t.Errorf("%s does not have the entry: its log ends at %d", n.Host, s.LastLogIndex)
			}
			if seen := s.CommitIndex > before.LastLogIndex || s.AppliedIndex > before.LastLogIndex; seen == alone {
				t.Errorf("%s takes %d for committed and has applied %d, where the entry is behind %d", n.Host, s.CommitIndex, s.AppliedIndex, before.LastLogIndex)
			}
		}
		if _, err := f.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took >= behind != alone || took > 2*behind {
			t.Errorf("confirmed after %v of virtual time, and an append takes %v", took, behind)
		}
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}
