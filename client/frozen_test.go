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

// isFoundAtOnce makes a node lead, which tells so, and wants f published there.
func isFoundAtOnce(t *testing.T, n *fakeNet, next *fakeNode, f *Future) {
	t.Helper()
	began := time.Now()
	n.lead(2, next.name, true)
	next.expect(wire.OpPublish).results(wire.StatusOK)
	published(t, f)
	if took := time.Since(began); took >= dialStagger {
		t.Fatalf("found %v of virtual time after it said that it leads", took)
	}
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
		isFoundAtOnce(t, n, n2, f)
	}, "n1", "n2", "n3")
}

// A leader that stands still is followed by another before its connection is given up
// for silence. Who has asked around by then hears of it from those who elected it.
func TestLink_LeaderIsFrozen_TheOthersTellWhoIsNext(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2 := n.order[0], n.order[1]
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		n1.freeze()
		f = p.PublishAsync(t.Context(), body("b"))
		time.Sleep(2*pingInterval + pingInterval/10) // silent for a whole interval, and not for three
		isFoundAtOnce(t, n, n2, f)
	}, "n1", "n2", "n3")
}

func TestLink_LeaderIsHeardAgain_ForgetsTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1, n2 := n.order[0], n.order[1]
		cn, err := c.produce.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pong := n1.auto[wire.OpPing]
		n1.manual(wire.OpPing)
		time.Sleep(2*pingInterval + pingInterval/10)
		if n2.connections() == 0 {
			t.Fatal("nobody asks the others")
		}
		n1.answer(wire.OpPing, pong)
		time.Sleep(2 * pingInterval)
		if k := n2.connections(); k != 0 {
			t.Fatalf("%d connections to another node are left", k)
		}
		if now, err := c.produce.ready(t.Context()); err != nil || now != cn {
			t.Fatalf("another connection to the leader, %v", err)
		}
	}, "n1", "n2", "n3")
}
