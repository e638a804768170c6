package client

import (
	"slices"
	"testing"
	"testing/synctest"

	"onceq/transport/wire"
)

// The machine gives nothing out beyond twice the credit above done. A settle
// carries the done of before its own answer, so after the last one nothing
// would ever tell it.
func TestConsume_MessageSettledLate_TheMachineHearsOfDone(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithPrefetch(2), WithConcurrency(2))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "late", "b")
		calls := map[string]*call{}
		for range 2 {
			k := <-e.calls
			calls[string(k.d.Body())] = k
		}
		calls["b"].end <- nil
		n1.expect(wire.OpSettle).allSettled()
		r.deliver(3, "c")
		e.next("c").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		r.deliver(4, "d")
		e.next("d").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		calls["late"].end <- nil
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); m.Done != 1 || !slices.Equal(m.Items, items(wire.VerbAck, 1, 1)) {
			t.Fatalf("settle %+v", m)
		}
		s.allSettled()
		// The machine stands at 5 = 1 + twice the credit.
		s = n1.expect(wire.OpSettle)
		if m := s.settle(); m.Done != 5 || len(m.Items) != 0 {
			t.Fatalf("got %+v, want the word of done alone", m)
		}
		s.allSettled()
		n1.quiet()
		e.cancel()
		e.left(n1)
	})
}

// TestConsume_AnswersLate_TheNextAreTakenAllTheSame: the machine has settled what
// the client has no answer for yet, and hands out more than twice the credit.
func TestConsume_AnswersLate_TheNextAreTakenAllTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithPrefetch(1))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		for i := range 5 {
			r.deliver(uint64(i+1), "m")
			e.next("m").end <- nil
			synctest.Wait()
		}
		var unanswered []*fakeRequest
		for range settleFramesMax {
			unanswered = append(unanswered, n1.expect(wire.OpSettle))
		}
		n1.quiet()
		if connects := c.Stats().Connects; connects != 2 {
			t.Fatalf("%d connections", connects)
		}
		for _, u := range unanswered {
			u.allSettled()
		}
		n1.expect(wire.OpSettle).allSettled() // the rest
		n1.expect(wire.OpSettle).allSettled() // and that all have their answer
		e.cancel()
		e.left(n1)
	})
}
