package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const fakeLease = 30 * time.Second

// eater is a Consume call whose handlers do what the test says.
type eater struct {
	t      *testing.T
	cancel context.CancelFunc
	calls  chan *call
	result chan error
	over   chan struct{} // closed with the test, also a failed one
}

type call struct {
	ctx context.Context
	d   *Delivery
	end chan error
}

func eat(t *testing.T, c *Client, opts ...ConsumeOption) *eater {
	e := newEater(t)
	e.consume(c, func(ctx context.Context, d *Delivery) error {
		k := &call{ctx, d, make(chan error, 1)}
		e.calls <- k
		select {
		case err := <-k.end:
			return err
		case <-e.over:
			return nil
		}
	}, opts...)
	return e
}

func newEater(t *testing.T) *eater {
	e := &eater{t: t, calls: make(chan *call, 1000), result: make(chan error, 1), over: make(chan struct{})}
	t.Cleanup(func() { close(e.over) })
	return e
}

func (e *eater) consume(c *Client, h Handler, opts ...ConsumeOption) {
	ctx, cancel := context.WithCancel(e.t.Context())
	e.cancel = cancel
	go func() { e.result <- c.Consume(ctx, "orders", h, opts...) }()
}

// next waits for the next call of the handler and expects the message.
func (e *eater) next(text string) *call {
	e.t.Helper()
	select {
	case k := <-e.calls:
		if string(k.d.Body()) != text {
			e.t.Fatalf("handler got %q, expected %q", k.d.Body(), text)
		}
		return k
	case <-time.After(60 * time.Second):
		e.t.Fatalf("handler was not called with %q", text)
		return nil
	}
}

func (e *eater) idle() {
	e.t.Helper()
	synctest.Wait()
	select {
	case k := <-e.calls:
		e.t.Fatalf("handler was called with %q", k.d.Body())
	default:
	}
}

// attached answers an attach and returns it.
func attached(r *fakeRequest, next uint64, states ...wire.DeliveryState) wire.Attach {
	r.t.Helper()
	a := decoded(r, wire.DecodeAttach)
	r.reply(wire.Attached{Status: wire.StatusOK, QueueNumber: 7, LeaseTime: fakeLease, Next: next, States: states})
	return a
}

// deliver pushes messages with the numbers from first up.
func (r *fakeRequest) deliver(first uint64, bodies ...string) {
	r.t.Helper()
	a := decoded(r, wire.DecodeAttach)
	m := wire.Deliver{Consumer: a.Consumer, N: a.N}
	for i, b := range bodies {
		var w pack.Writer
		wire.Message{Body: []byte(b), BizID: "biz-" + b}.Append(&w)
		m.Deliveries = append(m.Deliveries, wire.Delivery{
			Number: first + uint64(i), Queue: 7, Offset: 100 + first + uint64(i), Attempt: 1, Remaining: fakeLease, PublishedAt: 5, Message: w.Take(),
		})
	}
	r.conn.push(wire.OpDeliver, m)
}

func (r *fakeRequest) settle() wire.Settle {
	r.t.Helper()
	return decoded(r, wire.DecodeSettle)
}

// allSettled answers each item of a settle as its verb asks.
func (r *fakeRequest) allSettled() {
	r.t.Helper()
	reply := wire.SettleReply{Status: wire.StatusOK}
	for _, it := range r.settle().Items {
		st := map[wire.SettleVerb]wire.LeaseState{
			wire.VerbAck: wire.LeaseAcked, wire.VerbNack: wire.LeaseNacked, wire.VerbExtend: wire.LeaseHeld,
			wire.VerbReject: wire.LeaseRejected,
		}[it.Verb]
		reply.Results = append(reply.Results, wire.DeliveryState{From: it.From, To: it.To, State: st})
	}
	r.reply(reply)
}

func (r *fakeRequest) states(states ...wire.DeliveryState) {
	r.reply(wire.SettleReply{Status: wire.StatusOK, Results: states})
}

func state(from, to uint64, st wire.LeaseState) wire.DeliveryState {
	return wire.DeliveryState{From: from, To: to, State: st}
}

func items(verb wire.SettleVerb, numbers ...uint64) []wire.SettleItem {
	var is []wire.SettleItem
	for i := 0; i < len(numbers); i += 2 {
		is = append(is, wire.SettleItem{From: numbers[i], To: numbers[i+1], Verb: verb})
	}
	return is
}

// left expects the leave that ends a drain and returns it.
func (e *eater) left(node *fakeNode) wire.Leave {
	e.t.Helper()
	r := node.expect(wire.OpLeave)
	l := decoded(r, wire.DecodeLeave)
	r.reply(wire.StatusReply{Status: wire.StatusOK})
	if err := <-e.result; err != nil {
		e.t.Fatalf("consume: %v", err)
	}
	return l
}

func TestConsume_HandlesAcksAndLeavesInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithPrefetch(10), WithConsumerLabel("w"))
		r := n1.expect(wire.OpAttach)
		a := attached(r, 1)
		if a.N != 1 || a.Queue != "orders" || a.Credit != 10 || a.Label != "w" || a.Done != 1 || len(a.Unsettled) != 0 || a.Consumer == (wire.ConsumerID{}) {
			t.Fatalf("attach %+v", a)
		}
		r.deliver(1, "a", "b", "c", "d")
		k := e.next("a")
		if k.d.ID().String() != "orders/101" || k.d.Attempt() != 1 || k.d.BizID() != "biz-a" || k.d.PublishedAt().UnixNano() != 5 {
			t.Fatalf("delivery %+v", k.d)
		}
		k.end <- nil
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); m.Done != 1 || !slices.Equal(m.Items, items(wire.VerbAck, 1, 1)) {
			t.Fatalf("settle %+v", m)
		}
		e.next("b").end <- nil
		k = e.next("c")
		s.allSettled()
		// What collected meanwhile; what has a definite answer is done.
		s = n1.expect(wire.OpSettle)
		if m := s.settle(); m.Done != 2 || !slices.Equal(m.Items, items(wire.VerbAck, 2, 2)) {
			t.Fatalf("settle %+v", m)
		}
		s.allSettled()
		e.cancel()
		n1.quiet() // the handler still runs
		if k.ctx.Err() != nil {
			t.Fatal("the end of Consume's context ended a handler's")
		}
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		l := e.left(n1)
		if l.N != 1 || l.Consumer != a.Consumer || l.Done != 4 || !slices.Equal(l.NotHandled, []wire.Range{{From: 4, To: 4}}) {
			t.Fatalf("leave %+v", l)
		}
	})
}

func TestConsume_AfterReconnect_ResumesWithoutHandingOutTwice(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		first := attached(r, 1)
		r.deliver(1, "a", "b", "c", "d", "e")
		done, running := e.next("a"), (*call)(nil)
		done.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		running = e.next("b")
		synctest.Wait()
		r.conn.cut()
		r = n1.expect(wire.OpAttach)
		second := decoded(r, wire.DecodeAttach)
		if second.Consumer != first.Consumer || second.N != 2 || second.Done != 2 || !slices.Equal(second.Unsettled, []wire.Range{{From: 2, To: 5}}) {
			t.Fatalf("attach %+v", second)
		}
		// 4 was lost meanwhile; 6 was sent, and lost with the connection.
		attached(r, 7, state(2, 3, wire.LeaseHeld), state(4, 4, wire.LeaseExpired), state(5, 5, wire.LeaseHeld))
		r.deliver(6, "f")
		r.deliver(5, "e", "f") // a repeat
		running.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		for _, want := range []string{"c", "e", "f"} {
			e.next(want).end <- nil
			n1.expect(wire.OpSettle).allSettled()
		}
		e.idle()
		e.cancel()
		if l := e.left(n1); l.Done != 7 || len(l.NotHandled) != 0 || l.N != 2 {
			t.Fatalf("leave %+v", l)
		}
	})
}

// An older attachment's deliveries are not taken: they may be late copies.
func TestConsume_OlderAttachment_IsIgnored(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		old := n1.expect(wire.OpAttach)
		attached(old, 1)
		old.conn.cut()
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		late := &fakeRequest{t: t, conn: r.conn, op: old.op, payload: old.payload}
		late.deliver(1, "late")
		e.idle()
		r.deliver(1, "a")
		e.next("a").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

func TestAck_LostReply_IsToldTheTruthAfterResuming(t *testing.T) {
	cases := []struct {
		state wire.LeaseState
		again bool  // settled once more
		want  error // of Ack
	}{
		{wire.LeaseAcked, false, nil},
		{wire.LeaseHeld, true, nil},
		{wire.LeaseExpired, false, ErrLeaseLost},
	}
	for _, tc := range cases {
		t.Run(tc.state.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				n1 := n.order[0]
				e := eat(t, c)
				r := n1.expect(wire.OpAttach)
				attached(r, 1)
				r.deliver(1, "a")
				k := e.next("a")
				acked := make(chan error)
				go func() { acked <- k.d.Ack(t.Context()) }()
				n1.expect(wire.OpSettle).conn.cut()
				r = n1.expect(wire.OpAttach)
				if a := attached(r, 2, state(1, 1, tc.state)); a.Done != 1 || !slices.Equal(a.Unsettled, []wire.Range{{From: 1, To: 1}}) {
					t.Fatalf("attach %+v", a)
				}
				if tc.again {
					n1.expect(wire.OpSettle).allSettled()
				}
				if err := <-acked; !errors.Is(err, tc.want) {
					t.Fatalf("ack: %v", err)
				}
				// Asked again it says the same, and asks nobody.
				if err := k.d.Ack(t.Context()); !errors.Is(err, tc.want) {
					t.Fatalf("second ack: %v", err)
				}
				if err := k.d.Nack(t.Context(), nil); err == nil {
					t.Fatal("nack after ack")
				}
				n1.quiet()
				k.end <- nil
				e.cancel()
				e.left(n1)
			})
		})
	}
}

func TestAck_ServerWithoutAnAnswer_IsAskedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		e.next("a").end <- nil
		n1.expect(wire.OpSettle).fail(wire.CodeOverloaded, "")
		n1.expect(wire.OpSettle).fail(wire.CodeOutcomeUnknown, "")
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

func TestAck_ContextEnds_GoesOnBehind(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := k.d.Ack(ctx); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		n1.expect(wire.OpSettle).allSettled()
		if err := k.d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
		k.end <- nil
		e.cancel()
		e.left(n1)
	})
}

func TestLost_CancelsTheHandlerWithTheCause(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		a := attached(r, 1)
		r.deliver(1, "a", "b", "c")
		k := e.next("a")
		r.conn.push(wire.OpLost, wire.Lost{Consumer: a.Consumer, N: a.N, Lost: []wire.DeliveryState{state(1, 2, wire.LeaseExpired)}})
		<-k.ctx.Done()
		if err := context.Cause(k.ctx); !errors.Is(err, ErrLeaseLost) || !strings.Contains(err.Error(), "ran out") {
			t.Fatalf("cause %v", err)
		}
		if err := k.d.Ack(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Fatalf("ack: %v", err)
		}
		k.end <- nil
		// b was lost in the buffer: nobody sees it.
		e.next("c").end <- nil
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); m.Done != 3 || !slices.Equal(m.Items, items(wire.VerbAck, 3, 3)) {
			t.Fatalf("settle %+v", m)
		}
		s.allSettled()
		e.cancel()
		e.left(n1)
	})
}

func TestConsume_ConsumerGone_AttachesAnewWithAnotherID(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		first := attached(r, 1)
		r.deliver(1, "a", "b")
		k := e.next("a")
		acked := make(chan error)
		go func() { acked <- k.d.Ack(t.Context()) }()
		n1.expect(wire.OpSettle).conn.cut()
		r = n1.expect(wire.OpAttach)
		r.reply(wire.Attached{Status: wire.StatusConsumerGone})
		// The ack may have counted before: neither ok nor lost would be the truth.
		if err := <-acked; !errors.Is(err, ErrConsumerGone) || errors.Is(err, ErrLeaseLost) {
			t.Fatalf("ack: %v", err)
		}
		k.end <- nil
		r = n1.expect(wire.OpAttach)
		second := attached(r, 1)
		if second.Consumer == first.Consumer || second.N != 1 || second.Done != 1 || len(second.Unsettled) != 0 {
			t.Fatalf("attach %+v", second)
		}
		r.deliver(1, "c") // b was lost with the old identity
		k = e.next("c")
		// Gone by a push this time: an ack that was never sent did not count.
		r.conn.push(wire.OpLost, wire.Lost{Consumer: second.Consumer, N: 1, Gone: true})
		<-k.ctx.Done()
		if err := k.d.Ack(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Fatalf("ack: %v", err)
		}
		k.end <- nil
		attached(n1.expect(wire.OpAttach), 1)
		e.cancel()
		e.left(n1)
	})
}

func TestConsume_BufferedLeaseRanOutWhileDisconnected_WaitsForTheAnswer(t *testing.T) {
	for _, held := range []bool{true, false} {
		t.Run(fmt.Sprint("held ", held), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				n1 := n.order[0]
				e := eat(t, c)
				r := n1.expect(wire.OpAttach)
				attached(r, 1)
				r.deliver(1, "a", "b")
				k := e.next("a")
				n1.setDown(errors.New("down"))
				r.conn.cut()
				time.Sleep(graceTime + time.Second) // less than the lease, more than the grace
				k.end <- nil
				e.idle()
				n1.setDown(nil)
				r = n1.expect(wire.OpAttach)
				if a := decoded(r, wire.DecodeAttach); !slices.Equal(a.Unsettled, []wire.Range{{From: 1, To: 2}}) {
					t.Fatalf("attach %+v", a)
				}
				e.idle()
				if held {
					attached(r, 3, state(1, 2, wire.LeaseHeld))
					n1.expect(wire.OpSettle).allSettled()
					e.next("b").end <- nil
					n1.expect(wire.OpSettle).allSettled()
				} else {
					attached(r, 3, state(1, 2, wire.LeaseExpired))
				}
				e.idle()
				e.cancel()
				e.left(n1)
			})
		})
	}
}

func TestConsume_HeldMessages_AreExtendedByRanges(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithAutoExtend(35*time.Second))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b", "c")
		k := e.next("a")
		start := time.Now()
		for i := range 3 {
			s := n1.expect(wire.OpSettle)
			if m := s.settle(); !slices.Equal(m.Items, extends(1, 3)) {
				t.Fatalf("extension %d after %v: %+v", i, time.Since(start), m)
			}
			s.allSettled()
		}
		if d := time.Since(start); d != fakeLease { // virtual time: exact
			t.Fatalf("three extensions took %v", d)
		}
		// The handler has had its time: only the buffer is kept alive.
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); !slices.Equal(m.Items, extends(2, 3)) {
			t.Fatalf("%+v", m)
		}
		// An extension that finds a lease lost is a way to learn of it.
		s.states(state(2, 2, wire.LeaseExpired), state(3, 3, wire.LeaseHeld))
		synctest.Wait()
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.next("c").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

// extends is an extension of what a consumer holds, by the lease time it knows.
func extends(from, to uint64) []wire.SettleItem {
	return []wire.SettleItem{{From: from, To: to, Verb: wire.VerbExtend, Time: fakeLease}}
}

// TestExtend_IsNotCutShort: an extension replaces the one before, so what keeps leases
// alive by itself leaves out what the program has prolonged further, until that is
// nearly over.
func TestExtend_IsNotCutShort(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithAutoExtend(time.Minute))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b")
		k := e.next("a")
		const by = 5 * time.Minute
		extended := make(chan error, 1)
		go func() { extended <- k.d.Extend(t.Context(), by) }()
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); len(m.Items) != 1 || m.Items[0].Time != by {
			t.Fatalf("%+v", m)
		}
		// Not while it is under way either: which of the two comes last is not known.
		other := n1.expect(wire.OpSettle)
		if m := other.settle(); !slices.Equal(m.Items, extends(2, 2)) {
			t.Fatalf("beside it %+v", m)
		}
		other.allSettled()
		s.allSettled()
		if err := <-extended; err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		named := time.Duration(0) // when it was first extended again
		for named == 0 && time.Since(start) < by {
			s := n1.expect(wire.OpSettle)
			if named == 0 && slices.Equal(s.settle().Items, extends(1, 2)) {
				named = time.Since(start)
			}
			s.allSettled()
		}
		if named < by-2*fakeLease || named > by {
			t.Errorf("it was extended again after %v, and held for %v", named, by)
		}
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.next("b").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

// Resuming gives a delivery the queue's lease time anew, whatever Extend has asked for: an
// answer to that which is read behind the resumption says nothing of the time by then.
func TestExtend_AnsweredBehindAResumption_KeepsTheLease(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithAutoExtend(time.Second)) // Extend alone keeps it
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		extended := make(chan error, 1)
		go func() { extended <- k.d.Extend(t.Context(), time.Hour) }()
		n1.expect(wire.OpSettle).conn.cut()
		requests := map[wire.Op]*fakeRequest{}
		for range 2 {
			r := <-n1.requests
			requests[r.op] = r
		}
		attached(requests[wire.OpAttach], 2, state(1, 1, wire.LeaseHeld))
		requests[wire.OpSettle].allSettled()
		if err := <-extended; err != nil {
			t.Fatal(err)
		}
		resumed := time.Now()
		// A shorter one behind it takes nothing away.
		go func() { extended <- k.d.Extend(t.Context(), time.Minute) }()
		n1.expect(wire.OpSettle).allSettled()
		if err := <-extended; err != nil {
			t.Fatal(err)
		}
		for time.Since(resumed) < time.Hour-fakeLease {
			s := n1.expect(wire.OpSettle)
			if it := s.settle().Items; len(it) != 1 || it[0].Verb != wire.VerbExtend {
				t.Fatalf("settle %+v", it)
			}
			s.allSettled()
		}
		n1.answer(wire.OpSettle, func(r *fakeRequest) { r.allSettled() })
		k.end <- nil
		e.drained(n1)
	})
}

// What is answered when nobody waits for it any more does not bring the consumer back.
func TestConsume_GivenUpBehindItsEnd_IsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithAutoExtend(time.Second))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		k.end <- nil
		ack := n1.expect(wire.OpSettle)
		e.cancel()
		n1.expect(wire.OpLeave).reply(wire.StatusReply{Status: wire.StatusOK})
		if err := <-e.result; !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		ack.reply(wire.SettleReply{Status: wire.StatusConsumerGone})
		n1.quiet()
		if len(c.consumers) != 0 {
			t.Errorf("%d consumers are left", len(c.consumers))
		}
	})
}

// The answer to an ack was lost, and the queue is deleted by the time that the consumer is
// back: the ack may have counted before that.
func TestAck_AnswerLost_QueueDeletedSince_IsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithConcurrency(2))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b")
		acked, other := e.next("a"), e.next("b")
		result := make(chan error, 1)
		go func() { result <- acked.d.Ack(t.Context()) }()
		n1.expect(wire.OpSettle).conn.cut()
		n1.expect(wire.OpAttach).reply(wire.Attached{Status: wire.StatusNoQueue})
		if err := <-result; !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("ack: %v", err)
		}
		if err := other.d.Ack(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Errorf("ack of another: %v", err)
		}
		acked.end <- nil
		other.end <- nil
		if err := <-e.result; !errors.Is(err, ErrNoQueue) {
			t.Errorf("consume: %v", err)
		}
	})
}

// TestConsume_LeaseTimeIsLowered_WhatIsHeldIsKeptAlive: the queue's lease time is now
// shorter than what passes between two extensions.
func TestConsume_LeaseTimeIsLowered_WhatIsHeldIsKeptAlive(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		a := attached(r, 1)
		start := time.Now()
		for number := uint64(1); number <= 2; number++ {
			var w pack.Writer
			wire.Message{Body: []byte{'a' + byte(number) - 1}}.Append(&w)
			r.conn.push(wire.OpDeliver, wire.Deliver{Consumer: a.Consumer, N: a.N, Deliveries: []wire.Delivery{
				{Number: number, Queue: 7, Attempt: 1, Remaining: 2 * time.Second, Message: w.Bytes()},
			}})
			synctest.Wait()
		}
		// The second one came while the first was asked for.
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); !slices.Equal(m.Items, extends(1, 1)) {
			t.Fatalf("%+v", m)
		}
		s.allSettled()
		s = n1.expect(wire.OpSettle)
		if m := s.settle(); !slices.Equal(m.Items, extends(2, 2)) {
			t.Fatalf("%+v", m)
		}
		s.allSettled()
		if d := time.Since(start); d != 0 { // virtual time: exact
			t.Errorf("extended after %v", d)
		}
		e.next("a").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.next("b").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

// TestConsume_LostBeforeTheyWereSent_TheMachineHearsOfIt, or it would go on counting
// them and hand out nothing any more.
func TestConsume_LostBeforeTheyWereSent_TheMachineHearsOfIt(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithPrefetch(10))
		r := n1.expect(wire.OpAttach)
		a := attached(r, 1)
		const last = 20 + wire.DoneSlack
		r.conn.push(wire.OpLost, wire.Lost{Consumer: a.Consumer, N: a.N, Lost: []wire.DeliveryState{state(1, last, wire.LeaseExpired)}})
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); m.Done != last+1 || len(m.Items) > 0 {
			t.Fatalf("%+v", m)
		}
		s.allSettled()
		// One that is not contiguous may still be on its way.
		r.conn.push(wire.OpLost, wire.Lost{Consumer: a.Consumer, N: a.N, Lost: []wire.DeliveryState{state(last+2, last+2, wire.LeaseExpired)}})
		r.deliver(last+1, "a")
		e.next("a").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

// TestConsume_BufferThatIsNeverEmpty_DoesNotGrow over what it holds.
func TestConsume_BufferThatIsNeverEmpty_DoesNotGrow(t *testing.T) {
	t.Parallel()
	s := &consumer{}
	for range 4 {
		s.keep(&Delivery{})
	}
	for i := range uint64(100_000) {
		d := &Delivery{number: i}
		s.keep(d)
		s.ready[s.head] = nil
		s.head++
		if s.ready[len(s.ready)-1] != d {
			t.Fatal("it is not the last")
		}
	}
	if n := cap(s.ready); n > 64 {
		t.Errorf("room for %d, and 4 are held", n)
	}
}

// Messages that wait behind handlers that never return are for other consumers.
func TestConsume_AllHandlersHang_WhatWaitsForThemGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithAutoExtend(15*time.Second))
		r := n1.expect(wire.OpAttach)
		first := attached(r, 1)
		r.deliver(1, "a", "b", "c")
		k := e.next("a")
		for range 4 { // until the handler's lease, extended once, must have run out
			n1.expect(wire.OpSettle).allSettled()
		}
		leave := n1.expect(wire.OpLeave)
		if m := decoded(leave, wire.DecodeLeave); m.Consumer != first.Consumer || !slices.Equal(m.NotHandled, []wire.Range{{From: 2, To: 3}}) {
			t.Fatalf("%+v", m)
		}
		leave.reply(wire.StatusReply{Status: wire.StatusOK})
		synctest.Wait()
		if cause := context.Cause(k.ctx); !errors.Is(cause, ErrLeaseLost) {
			t.Fatalf("the handler's context ended with %v", cause)
		}
		// A new connection is no reason to take messages.
		n1.cut()
		time.Sleep(time.Minute)
		n1.quiet()
		// The handler has returned, and there is somebody to work again.
		k.end <- nil
		r = n1.expect(wire.OpAttach)
		if a := attached(r, 1); a.Consumer == first.Consumer || a.N != 1 || len(a.Unsettled) > 0 {
			t.Fatalf("%+v", a)
		}
		r.deliver(1, "d")
		e.next("d").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

// Stepping back ends all leases: not one for which the program has time by Extend, whoever
// is at the message by now.
func TestConsume_AllHandlersHang_WhatExtendHasProlongedIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithManualSettle(), WithAutoExtend(time.Minute))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b", "c")
		k := e.next("a")
		n1.answer(wire.OpSettle, func(r *fakeRequest) { r.allSettled() })
		n1.answer(wire.OpLeave, func(r *fakeRequest) { r.reply(wire.StatusReply{Status: wire.StatusOK}) })
		if err := k.d.Extend(t.Context(), 5*time.Hour); err != nil {
			t.Fatal(err)
		}
		k.end <- nil // the work goes on elsewhere
		hangs := e.next("b")
		time.Sleep(10 * time.Minute)
		if err := k.d.Ack(t.Context()); err != nil {
			t.Errorf("ack: %v", err)
		}
		// Nothing is prolonged any more.
		n1.manual(wire.OpLeave)
		n1.expect(wire.OpLeave).reply(wire.StatusReply{Status: wire.StatusOK})
		hangs.end <- nil
		r = n1.expect(wire.OpAttach)
		attached(r, 1)
		e.cancel()
		e.left(n1)
	})
}

func TestConsume_LeaseRanOutInTheBuffer_IsAskedForBeforeTheHandler(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		a := attached(r, 1)
		var w pack.Writer
		wire.Message{Body: []byte("a")}.Append(&w)
		r.conn.push(wire.OpDeliver, wire.Deliver{Consumer: a.Consumer, N: a.N, Deliveries: []wire.Delivery{
			{Number: 1, Queue: 7, Attempt: 1, Remaining: 0, Message: w.Bytes()},
		}})
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); !slices.Equal(m.Items, extends(1, 1)) {
			t.Fatalf("%+v", m)
		}
		e.idle()
		s.allSettled()
		e.next("a").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

func TestHandler_ErrorsAndPanics_GiveBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() {
			result <- c.Consume(ctx, "orders", func(ctx context.Context, d *Delivery) error {
				switch string(d.Body()) {
				case "error":
					return errors.New("no luck")
				case "later":
					return fmt.Errorf("wrapped: %w", RetryAfter(3*time.Minute, errors.New("no luck")))
				case "at once":
					return RetryAfter(0, nil)
				case "dead":
					return DeadLetter(errors.New("bad order"))
				case "drop":
					return Drop(errors.New("not for us"))
				case "long":
					return errors.New(strings.Repeat("ä", wire.ReasonBytesMax))
				case "bytes":
					return errors.New("a\xffb")
				default:
					panic("oh")
				}
			})
		}()
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		for i, want := range []struct {
			text   string
			verb   wire.SettleVerb
			time   time.Duration
			reason string
		}{
			{"error", wire.VerbNack, 0, "no luck"}, // the queue's backoff
			{"later", wire.VerbNack, 3 * time.Minute, "wrapped: retry after 3m0s: no luck"},
			{"at once", wire.VerbNack, 1, ""},
			{"panic", wire.VerbNack, 0, "handler panicked"},
			{"dead", wire.VerbReject, 0, "bad order"},
			{"drop", wire.VerbAck, 0, ""},
			{"long", wire.VerbNack, 0, strings.Repeat("ä", wire.ReasonBytesMax/2)},
			{"bytes", wire.VerbNack, 0, "a?b"},
		} {
			r.deliver(uint64(i+1), want.text)
			s := n1.expect(wire.OpSettle)
			it := s.settle().Items[0]
			n := uint64(i + 1)
			if it != (wire.SettleItem{From: n, To: n, Verb: want.verb, Time: want.time, Reason: want.reason}) {
				t.Fatalf("%s: %+v", want.text, it)
			}
			s.allSettled()
		}
		cancel()
		l := n1.expect(wire.OpLeave)
		l.reply(wire.StatusReply{Status: wire.StatusOK})
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	})
}

func TestConsume_ManualSettle_WaitsForTheProgram(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithManualSettle())
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b")
		a := e.next("a")
		a.end <- nil
		b := e.next("b")
		b.end <- nil
		n1.quiet()
		e.cancel()
		n1.quiet() // the drain waits for what the program has not settled
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		})
		n1.expect(wire.OpSettle).allSettled()
		wg.Wait()
		wg.Go(func() {
			if err := b.d.NackAfter(t.Context(), time.Second, nil); err != nil {
				t.Error(err)
			}
		})
		n1.expect(wire.OpSettle).allSettled()
		wg.Wait()
		e.left(n1)
	})
}

func TestExtend_TellsWhetherTheLeaseIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		result := make(chan error)
		for _, st := range []wire.LeaseState{wire.LeaseHeld, wire.LeaseExpired} {
			go func() { result <- k.d.Extend(t.Context(), time.Minute) }()
			s := n1.expect(wire.OpSettle)
			if it := s.settle().Items[0]; it.Verb != wire.VerbExtend || it.Time != time.Minute {
				t.Fatalf("%+v", it)
			}
			s.states(state(1, 1, st))
			want := error(nil)
			if st == wire.LeaseExpired {
				want = ErrLeaseLost
			}
			if err := <-result; !errors.Is(err, want) {
				t.Fatalf("%v: %v", st, err)
			}
		}
		<-k.ctx.Done()
		k.end <- nil
		e.cancel()
		e.left(n1)
	})
}

func TestConsume_NoQueue_IsAnError(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		e := eat(t, c)
		n.order[0].expect(wire.OpAttach).reply(wire.Attached{Status: wire.StatusNoQueue})
		if err := <-e.result; !errors.Is(err, ErrNoQueue) {
			t.Fatal(err)
		}
	})
}

func TestConsume_AttachRefusedForNow_KeepsItsNumber(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		n1.expect(wire.OpAttach).fail(wire.CodeNoLeader, "")
		n1.expect(wire.OpAttach).fail(wire.CodeDiskFull, "")
		r := n1.expect(wire.OpAttach)
		if a := decoded(r, wire.DecodeAttach); a.N != 1 {
			t.Fatalf("nothing was appended, and the number is %d", a.N)
		}
		r.fail(wire.CodeOutcomeUnknown, "")
		r = n1.expect(wire.OpAttach)
		if a := attached(r, 1); a.N != 2 {
			t.Fatalf("a copy may have arrived, and the number is %d", a.N)
		}
		e.cancel()
		e.left(n1)
	})
}

func TestConsume_DrainWithoutAnAnswer_SaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		e.next("a").end <- nil
		n1.expect(wire.OpSettle)
		n1.setDown(errors.New("down"))
		n1.cut()
		e.cancel()
		if err := <-e.result; !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatal(err)
		}
	})
}

// A handler that ends Consume's context is the last: what waits goes back as not
// handled, and does not count as failed.
func TestConsume_EndedByAHandler_HandsOutNothingMore(t *testing.T) {
	const n = 100
	bubble(t, func(t *testing.T, node *fakeNet, c *Client) {
		n1 := node.order[0]
		ctx, stop := context.WithCancel(t.Context())
		calls := 0
		result := make(chan error, 1)
		go func() {
			result <- c.Consume(ctx, "orders", func(context.Context, *Delivery) error {
				calls++
				stop()
				return nil
			}, WithPrefetch(n), WithConcurrency(1))
		}()
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, make([]string, n)...)
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); !slices.Equal(m.Items, items(wire.VerbAck, 1, 1)) {
			t.Fatalf("settle %+v", m)
		}
		s.allSettled()
		r = n1.expect(wire.OpLeave)
		if l := decoded(r, wire.DecodeLeave); !slices.Equal(l.NotHandled, []wire.Range{{From: 2, To: n}}) {
			t.Fatalf("leave %+v", l)
		}
		r.reply(wire.StatusReply{Status: wire.StatusOK})
		if err := <-result; err != nil || calls != 1 {
			t.Fatalf("%d calls, %v", calls, err)
		}
	})
}

func TestClientClose_EndsConsume(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		closed := make(chan error)
		go func() { closed <- c.Close() }()
		<-k.ctx.Done()
		if err := context.Cause(k.ctx); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		k.end <- nil
		if err := <-e.result; !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if err := c.Consume(t.Context(), "orders", nil); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
}

// What a handler does behind its ack ends with its consumer like that before it.
func TestConsume_HandlerGoesOnBehindItsAck_IsToldOfTheEnd(t *testing.T) {
	for name, want := range map[string]error{"drain": ErrDraining, "close": ErrClosed, "queue deleted": ErrNoQueue, "drain, queue deleted": ErrNoQueue} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				const drain = time.Minute
				n1 := n.order[0]
				n1.answer(wire.OpSettle, func(r *fakeRequest) { r.allSettled() })
				n1.answer(wire.OpLeave, func(r *fakeRequest) { r.reply(wire.StatusReply{Status: wire.StatusOK}) })
				e := eat(t, c, WithConcurrency(2), WithDrainTimeout(drain))
				r := n1.expect(wire.OpAttach)
				a := attached(r, 1)
				r.deliver(1, "a")
				done := e.next("a")
				done.end <- nil // its context is no longer of interest to anybody
				synctest.Wait()
				r.deliver(2, "b")
				k := e.next("b")
				if err := k.d.Ack(t.Context()); err != nil {
					t.Fatal(err)
				}
				if k.ctx.Err() != nil {
					t.Fatal("the ack has ended its context")
				}
				start := time.Now()
				if strings.HasPrefix(name, "drain") {
					e.cancel()
					synctest.Wait()
				}
				switch {
				case name == "close":
					go c.Close()
				case want == ErrNoQueue:
					r.conn.push(wire.OpLost, wire.Lost{Consumer: a.Consumer, N: a.N, Gone: true})
					n1.expect(wire.OpAttach).reply(wire.Attached{Status: wire.StatusNoQueue})
				}
				select {
				case <-k.ctx.Done():
				case <-time.After(time.Hour):
					t.Fatal("it is not told in an hour")
				}
				if err := context.Cause(k.ctx); !errors.Is(err, want) {
					t.Errorf("its context has ended with %v", err)
				}
				if took := time.Since(start); name == "drain" && took != drain {
					t.Errorf("it is told after %v", took)
				}
				if err := context.Cause(done.ctx); err != context.Canceled {
					t.Errorf("the context of one that has returned has ended with %v", err)
				}
				k.end <- nil
				if name == "drain" {
					want = nil
				}
				if err := <-e.result; !errors.Is(err, want) {
					t.Errorf("consume: %v", err)
				}
			})
		})
	}
}

func TestConsume_Concurrency_RunsSoManyAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithConcurrency(3))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b", "c", "d")
		synctest.Wait()
		if len(e.calls) != 3 {
			t.Fatalf("%d handlers run", len(e.calls))
		}
		n.mu.Lock()
		n1.auto[wire.OpSettle] = (*fakeRequest).allSettled
		n.mu.Unlock()
		for range 4 {
			k := <-e.calls
			k.end <- nil
		}
		e.cancel()
		e.left(n1)
	})
}

// A node that lost the lead and has it again has detached every consumer; the
// connection looks as good as ever.
func TestConsume_SameLeaderInANewTerm_AttachesAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		first := attached(n1.expect(wire.OpAttach), 1)
		n.lead(2, "n1", true)
		second := attached(n1.expect(wire.OpAttach), 1)
		if second.Consumer != first.Consumer || second.N != 2 {
			t.Fatalf("attach %+v", second)
		}
		e.cancel()
		e.left(n1)
	})
}
