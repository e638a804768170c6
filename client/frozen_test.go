package client

import (
	"syscall"
	"testing"
	"time"

	"onceq/transport/wire"
)

// A leader that is frozen sends no reset, and its kernel still takes
// connections. The next leader gives a consumer the grace time to come back.
func TestConsume_LeaderIsFrozen_AttachesElsewhereWellWithinTheGrace(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2 := n.order[0], n.order[1]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		n1.freeze()
		frozen := time.Now()
		n.lead(2, "n2", false)
		r = n2.expect(wire.OpAttach)
		if took := time.Since(frozen); took > graceTime/2 {
			t.Fatalf("attached after %v of virtual time, the grace is %v", took, graceTime)
		}
		attached(r, 2, state(1, 1, wire.LeaseHeld))
		k.end <- nil
		n2.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n2)
	}, "n1", "n2", "n3")
}

// A node may begin to lead right after it has said that it does not, while the
// client waits for another that hangs. It tells so once.
func TestLink_ElectedWhileAnotherNodeHangs_IsFoundAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2, n3 := n.order[0], n.order[1], n.order[2]
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		n3.freeze()
		n1.setDown(syscall.ECONNREFUSED)
		n1.cut()
		f = p.PublishAsync(t.Context(), body("b"))
		time.Sleep(3 * dialStagger) // the second has answered, and the one that hangs was asked
		began := time.Now()
		n.lead(2, "n2", true)
		n2.expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		if took := time.Since(began); took >= dialStagger {
			t.Fatalf("found %v of virtual time after it said that it leads", took)
		}
	}, "n1", "n2", "n3")
}
