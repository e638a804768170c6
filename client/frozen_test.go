package client

import (
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
