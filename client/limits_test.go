package client

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// A nack that no server takes would be refused with all that shares its frame, and
// these would lose their leases although they are done.
func TestNack_LongerThanAnyServerTakes_HarmsNoOther(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithManualSettle(), WithConcurrency(2))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b")
		calls := map[string]*call{}
		for range 2 {
			k := <-e.calls
			calls[string(k.d.Body())] = k
		}
		a, b := calls["a"], calls["b"]
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.d.NackAfter(ctx, wire.NackDelayMax+1, nil); !errors.Is(err, ErrBadOptions) {
			t.Fatalf("nack: %v", err)
		}
		done := make(chan error, 2)
		go func() { done <- a.d.NackAfter(t.Context(), wire.NackDelayMax, nil) }()
		s := n1.expect(wire.OpSettle)
		if it := s.settle().Items; len(it) != 1 || it[0].Time != wire.NackDelayMax {
			t.Fatalf("%+v", it)
		}
		s.allSettled()
		go func() { done <- b.d.Ack(t.Context()) }()
		n1.expect(wire.OpSettle).allSettled()
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		a.end <- nil
		b.end <- nil
		e.drained(n1)
	})
	if v := verdictFor(RetryAfter(48*time.Hour, nil)); v.delay != wire.NackDelayMax {
		t.Errorf("a handler's nack asks for %v", v.delay)
	}
}

// Of a frame that the server cannot read one item may be to blame: the others count.
func TestSettle_FrameRefusedAsMalformed_EachGoesOutByItself(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithConcurrency(3))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b", "c", "d")
		var calls []*call
		for range 3 {
			calls = append(calls, <-e.calls)
		}
		calls[0].end <- nil
		first := n1.expect(wire.OpSettle) // the others are collected behind it
		last := e.next("d")
		calls[1].end <- nil
		calls[2].end <- errors.New("no luck")
		synctest.Wait()
		first.allSettled()
		s := n1.expect(wire.OpSettle)
		if m := s.settle(); len(m.Items) != 2 {
			t.Fatalf("%+v", m)
		}
		s.fail(wire.CodeMalformed, "")
		bad := calls[2].d.number
		for range 2 {
			s := n1.expect(wire.OpSettle)
			m := s.settle()
			if len(m.Items) != 1 || m.Items[0].From != m.Items[0].To {
				t.Fatalf("%+v", m)
			}
			if m.Items[0].From == bad {
				s.fail(wire.CodeMalformed, "")
			} else {
				s.allSettled()
			}
		}
		if err := calls[1].d.Ack(t.Context()); err != nil {
			t.Errorf("the other one: %v", err)
		}
		if err := calls[2].d.Nack(t.Context(), nil); err == nil || errors.Is(err, ErrLeaseLost) {
			t.Errorf("the one that is refused: %v", err)
		}
		last.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.drained(n1)
	})
}

func TestConsume_AutoExtendForEver_IsNoReasonToStepBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithAutoExtend(math.MaxInt64))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b")
		k := e.next("a")
		for range 20 {
			n1.expect(wire.OpSettle).allSettled() // fails when it is a leave
		}
		if err := k.ctx.Err(); err != nil {
			t.Fatal(context.Cause(k.ctx))
		}
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.next("b").end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.drained(n1)
	})
}

// An extension replaces what is left of a lease: a short one would end it sooner.
func TestExtend_ShorterThanWhatIsLeft_TakesNothingAway(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		extended := make(chan error, 1)
		go func() { extended <- k.d.Extend(t.Context(), time.Second) }()
		s := n1.expect(wire.OpSettle)
		if it := s.settle().Items; len(it) != 1 || it[0].Time < fakeLease-time.Second || it[0].Time > fakeLease {
			t.Fatalf("%+v", it)
		}
		s.allSettled()
		if err := <-extended; err != nil {
			t.Fatal(err)
		}
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.drained(n1)
	})
}

func TestExtend_BesideALongerOne_TakesNothingAway(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		extended := make(chan error, 2)
		for _, by := range []time.Duration{time.Hour, time.Minute} {
			go func() { extended <- k.d.Extend(t.Context(), by) }()
			synctest.Wait()
		}
		for range 2 {
			s := n1.expect(wire.OpSettle)
			if it := s.settle().Items; len(it) != 1 || it[0].Time != time.Hour {
				t.Fatalf("%+v", it)
			}
			s.allSettled()
			if err := <-extended; err != nil {
				t.Fatal(err)
			}
		}
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.drained(n1)
	})
}

// What no server takes would be refused, and with it whatever is asked for beside it.
func TestExtend_LongerThanAnyServerTakes_HarmsNoOther(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := k.d.Extend(ctx, wire.LeaseTimeMax+1); !errors.Is(err, ErrBadOptions) {
			t.Fatalf("extend: %v", err)
		}
		n1.quiet()
		extended := make(chan error, 1)
		for _, by := range []time.Duration{time.Minute, wire.LeaseTimeMax} {
			go func() { extended <- k.d.Extend(t.Context(), by) }()
			s := n1.expect(wire.OpSettle)
			if it := s.settle().Items; len(it) != 1 || it[0].Time != by {
				t.Fatalf("%+v", it)
			}
			s.allSettled()
			if err := <-extended; err != nil {
				t.Fatal(err)
			}
		}
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.drained(n1)
	})
}

// One that has come to nothing, refused or given up, is not asked for once more.
func TestExtend_ComesToNothing_TheNextAsksForItsOwn(t *testing.T) {
	for name, wants := range map[string]struct {
		fail   func(r *fakeRequest, giveUp func())
		beside bool // another one is under way meanwhile
	}{
		"refused":          {fail: func(r *fakeRequest, _ func()) { r.fail(wire.CodeMalformed, "") }},
		"refused, another": {fail: func(r *fakeRequest, _ func()) { r.fail(wire.CodeMalformed, "") }, beside: true},
		"given up":         {fail: func(_ *fakeRequest, giveUp func()) { giveUp() }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				n1 := n.order[0]
				e := eat(t, c)
				r := n1.expect(wire.OpAttach)
				attached(r, 1)
				r.deliver(1, "a")
				k := e.next("a")
				var other *fakeRequest
				extended, long := make(chan error, 2), make(chan error, 1)
				if wants.beside {
					go func() { extended <- k.d.Extend(t.Context(), 2*time.Minute) }()
					other = n1.expect(wire.OpSettle)
				}
				ctx, giveUp := context.WithCancel(t.Context())
				defer giveUp()
				go func() { long <- k.d.Extend(ctx, time.Hour) }()
				wants.fail(n1.expect(wire.OpSettle), giveUp)
				if err := <-long; err == nil {
					t.Fatal("extended by what has come to nothing")
				}
				go func() { extended <- k.d.Extend(t.Context(), 3*time.Minute) }()
				s := n1.expect(wire.OpSettle)
				if it := s.settle().Items; len(it) != 1 || it[0].Time != 3*time.Minute {
					t.Errorf("%+v", it)
				}
				s.allSettled()
				if err := <-extended; err != nil {
					t.Error(err)
				}
				if other != nil {
					other.allSettled()
				}
				k.end <- nil
				n1.expect(wire.OpSettle).allSettled()
				e.drained(n1)
			})
		})
	}
}

// What no handler has seen has not failed, also when the drain takes too long.
func TestConsume_DrainWithOneUnsettled_TheBufferGoesBackAsNotHandled(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithManualSettle(), WithPrefetch(3))
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b", "c")
		k := e.next("a")
		time.Sleep(time.Second) // the next extension comes before the end of the drain
		e.cancel()
		synctest.Wait()
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		leave := n1.expect(wire.OpLeave)
		if l := decoded(leave, wire.DecodeLeave); !slices.Equal(l.NotHandled, []wire.Range{{From: 2, To: 3}}) {
			t.Errorf("leave %+v", l)
		}
		leave.reply(wire.StatusReply{Status: wire.StatusOK})
		if err := <-e.result; err == nil || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("nobody has asked for anything, and consume says %v", err)
		}
		if err := k.d.Ack(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Errorf("an ack that comes afterwards: %v", err)
		}
	})
}

func TestConsume_WithoutAHandler_IsAnErrorAndTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		nothing := func(Handler) Handler { return nil }
		some := func(context.Context, *Delivery) error { return nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Consume(ctx, "orders", nil); err == nil {
			t.Error("no handler was taken")
		}
		if err := c.Consume(ctx, "orders", some, WithMiddleware(nothing)); err == nil {
			t.Error("a middleware that returns none was taken")
		}
		n.order[0].quiet()
	})
}

// A connection with as many requests as it may have is not silent: its pings are
// answered. And leases are not to run out behind them.
func TestConn_FullOfRequests_PingsAndSettlesAllTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		cn, err := c.produce.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended := 0
		for range requestsMax {
			if err := cn.send(wire.OpDigest, nil, func(wire.Op, []byte, error) { ended++ }); err != nil {
				t.Fatal(err)
			}
		}
		if err := cn.send(wire.OpDigest, nil, func(wire.Op, []byte, error) {}); !errors.Is(err, errBusy) {
			t.Errorf("one more: %v", err)
		}
		time.Sleep(2 * silentTicksMax * listenInterval)
		if ended > 0 {
			t.Fatalf("the connection has ended, although its pings are answered: %v", cn.err)
		}
		if err := cn.send(wire.OpSettle, func(w *pack.Writer) { wire.Settle{}.Append(w) }, func(wire.Op, []byte, error) {}); err != nil {
			t.Errorf("a settle: %v", err)
		}
	}, "n1")
}

// A program that ends closes its client right behind a receive that was cancelled.
func TestReceive_ContextEndsAndTheClientIsClosed_WhatItTookGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		ctx, cancel := context.WithCancel(t.Context())
		p := receive(ctx, t, c, 1)
		n1.asks(1, 1)
		cancel()
		<-p.result
		closed := make(chan error, 1)
		go func() { closed <- c.Close() }()
		release := n1.expect(wire.OpRelease)
		if l := decoded(release, wire.DecodeRelease); l.First != 1 {
			t.Errorf("released %+v", l)
		}
		synctest.Wait()
		select {
		case err := <-closed:
			t.Fatalf("closed before it is known to have gone back: %v", err)
		default:
		}
		release.received(wire.StatusOK, 2)
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
	})
}

// And it does not wait for ever.
func TestReceive_ContextEndsAndTheClientIsClosed_NoAnswer_ClosesAllTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		ctx, cancel := context.WithCancel(t.Context())
		p := receive(ctx, t, c, 1)
		n1.asks(1, 1)
		cancel()
		<-p.result
		began := time.Now()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*(releaseTimeout+chainCloseTimeout) {
			t.Errorf("it took %v", took)
		}
	})
}

// Refusals of long ago are no reason to wait longer after the next one.
func TestSettle_Answered_ThePauseOfRetriesBeginsAnew(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		refused := func(number uint64, text string, times int) (last time.Duration) {
			r.deliver(number, text)
			e.next(text).end <- nil
			s := n1.expect(wire.OpSettle)
			for range times {
				s.fail(wire.CodeOverloaded, "")
				began := time.Now()
				s = n1.expect(wire.OpSettle)
				last = time.Since(began)
			}
			s.allSettled()
			return last
		}
		if first := refused(1, "a", 8); first < 200*time.Millisecond {
			t.Errorf("after 8 refusals in a row it waits %v", first)
		}
		if again := refused(2, "b", 1); again > 50*time.Millisecond {
			t.Errorf("after the first refusal since it waits %v", again)
		}
		e.drained(n1)
	})
}
