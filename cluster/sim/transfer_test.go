package sim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
)

// TestTransfer_IsAnswered: the answer to a transfer is not lost with the
// leadership.
func TestTransfer_IsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, 3)
		defer w.Close()
		w.Net.SetDelay(200 * time.Microsecond)
		c := w.Dial("c1")
		defer c.Close()
		create(t, c, "orders", client.QueueSettings{})
		for range 10 {
			old := w.Leader()
			if err := c.Admin().TransferLeadership(context.Background(), ""); err != nil {
				t.Errorf("transfer: %v", err)
			}
			w.Leader(old)
			publishN(t, c, "orders", 1)
			time.Sleep(time.Second)
		}
	})
}

// TestTransfer_ThatFailsResumesService: the target cannot be reached although
// gossip still sees it.
func TestTransfer_ThatFailsResumesService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, 3)
		defer w.Close()
		c := w.Dial("c1")
		defer c.Close()
		create(t, c, "orders", client.QueueSettings{})
		leader := w.Leader()
		target := w.Nodes[0]
		if target == leader {
			target = w.Nodes[1]
		}
		w.Net.CutBoth(leader.Host, target.Host)
		publishN(t, c, "orders", 1) // what the target does not have
		if err := c.Admin().TransferLeadership(context.Background(), target.Host); err == nil {
			t.Fatal("a transfer to a node that cannot be reached succeeded")
		}
		if w.Leader() != leader {
			t.Fatal("the leader has changed")
		}
		publishN(t, c, "orders", 10)
		if k := counts(t, c, "orders"); k.Stored != 11 {
			t.Fatalf("counts %+v", k)
		}
	})
}
