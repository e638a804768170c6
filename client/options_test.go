package client

import (
	"errors"
	"testing"
	"time"

	"onceq/transport/wire"
)

func TestPublish_OptionsThatExcludeEachOther_AreRefusedBeforeSending(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		soon := time.Now().Add(time.Minute)
		for name, ms := range map[string][]Message{
			"key and priority":    {{OrderingKey: "k", Priority: 1}},
			"key and delay":       {{OrderingKey: "k", Delay: time.Second}},
			"key and deliver-at":  {{OrderingKey: "k", DeliverAt: soon}},
			"delay and that":      {{Delay: time.Second, DeliverAt: soon}},
			"priority 10":         {{Priority: 10}},
			"priority -1":         {{Priority: -1}},
			"priority 256":        {{Priority: 256}},
			"negative delay":      {{Delay: -1}},
			"a very long TTL":     {{TTL: 366 * 24 * time.Hour}},
			"deliver-at in 1969":  {{DeliverAt: time.Unix(-1, 0)}},
			"deliver-at too late": {{DeliverAt: time.Now().Add(wire.DelayMax + time.Minute)}},
			"deliver-at in 2300":  {{DeliverAt: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)}},
			"a batch of two lots": {{Priority: 1}, {Priority: 2}},
		} {
			if _, err := p.PublishBatch(t.Context(), ms...); !errors.Is(err, ErrBadOptions) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := p.PublishAsync(t.Context(), Message{OrderingKey: "k", Priority: 1}).Wait(t.Context()); !errors.Is(err, ErrBadOptions) {
			t.Error(err)
		}
		n.order[0].quiet()
	})
}

func TestPublish_OptionsAreSent(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		at := time.Now().Add(time.Hour)
		f := p.PublishAsync(t.Context(), Message{Body: []byte("a"), Priority: 9, DeliverAt: at, TTL: time.Minute})
		r := n.order[0].expect(wire.OpPublish)
		got := r.publish().Publishes[0].Messages[0]
		if got.Priority != 9 || got.DeliverAt != at.UnixNano() || got.TTL != time.Minute || got.Delay != 0 {
			t.Fatalf("sent %+v", got)
		}
		r.results(wire.StatusOK)
		published(t, f)
		f = p.PublishAsync(t.Context(), Message{Body: []byte("b"), OrderingKey: "k"})
		r = n.order[0].expect(wire.OpPublish)
		if got := r.publish().Publishes[0].Messages[0]; got.OrderingKey != "k" {
			t.Fatalf("sent %+v", got)
		}
		r.results(wire.StatusIndexCap)
		refusedWith(t, f, ErrIndexCap)
	})
}

// After names the newest open publish that has to be stored before: of the same
// priority, keyed or not. Delayed ones wait for nobody and hold up nobody.
func TestPublish_After_WithinEachPriority(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		first := p.PublishAsync(t.Context(), body("first"))
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		published(t, first)
		fs := []*Future{first}
		messages := []Message{
			{},                                   // 2
			{OrderingKey: "a"},                   // 3
			{Priority: 5},                        // 4
			{Delay: time.Second},                 // 5
			{OrderingKey: "b"},                   // 6
			{Priority: 5},                        // 7
			{},                                   // 8
			{Priority: 5, DeliverAt: time.Now()}, // 9
		}
		together(p, func() {
			for _, m := range messages {
				fs = append(fs, p.PublishAsync(t.Context(), m))
			}
		})
		r := n1.expect(wire.OpPublish)
		afters := func(r *fakeRequest) map[uint64]uint64 {
			as := map[uint64]uint64{}
			for _, p := range r.publish().Publishes {
				as[p.Sequence] = p.After
			}
			return as
		}
		check := func(r *fakeRequest, want map[uint64]uint64) {
			t.Helper()
			got := afters(r)
			for s, after := range want {
				if a, sent := got[s]; !sent || a != after {
					t.Errorf("sequence %d: after %d (%v), want %d", s, a, sent, after)
				}
			}
			if len(got) != len(want) {
				t.Errorf("sent %v, want %v", got, want)
			}
		}
		check(r, map[uint64]uint64{2: 0, 3: 2, 4: 0, 5: 0, 6: 3, 7: 4, 8: 6, 9: 0})
		// 3 and 7 were stored. What is left is sent again and closes ranks.
		r.results(wire.StatusOutOfOrder, wire.StatusOK, wire.StatusOutOfOrder, wire.StatusOutOfOrder, wire.StatusOutOfOrder,
			wire.StatusOK, wire.StatusOutOfOrder, wire.StatusOutOfOrder)
		r = n1.expect(wire.OpPublish)
		check(r, map[uint64]uint64{2: 0, 4: 0, 5: 0, 6: 2, 8: 6, 9: 0})
		r.results(wire.StatusOK)
		for _, f := range fs {
			published(t, f)
		}
	})
}

func TestDelivery_TellsWhatTheMessageHasBehindIt(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		a := attached(r, 1)
		r.conn.push(wire.OpDeliver, wire.Deliver{Consumer: a.Consumer, N: a.N, Deliveries: []wire.Delivery{{
			Number: 1, Queue: 7, Offset: 3, Attempt: 4, Failures: 2, Remaining: fakeLease,
			Message: encoded(wire.Message{Body: []byte("a"), OrderingKey: "k"}),
		}, {
			Number: 2, Queue: 7, Lane: 3, Offset: 4, Attempt: 1, Remaining: fakeLease, Message: encoded(wire.Message{Body: []byte("b"), Priority: 3}),
			Dead: []wire.DeadLetter{{Reason: "r", FirstError: "f", LastError: "l", OriginQueue: "shop", OriginLane: 2, OriginOffset: 17, OriginAttempts: 5}},
		}}})
		k := e.next("a")
		if d := k.d; d.Attempt() != 4 || d.Failures() != 2 || d.OrderingKey() != "k" || d.Priority() != 0 {
			t.Errorf("first: %d %d %q %d", d.Attempt(), d.Failures(), d.OrderingKey(), d.Priority())
		}
		if _, dead := k.d.DeadLetter(); dead {
			t.Error("a message that is no dead letter")
		}
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		k = e.next("b")
		want := DeadLetterInfo{Reason: "r", FirstError: "f", LastError: "l", Queue: "shop", Origin: "shop/p2.17", Attempts: 5}
		if info, dead := k.d.DeadLetter(); !dead || info != want || k.d.Priority() != 3 || k.d.ID().String() != "orders/p3.4" {
			t.Errorf("second: %+v %v", info, dead)
		}
		k.end <- nil
		n1.expect(wire.OpSettle).allSettled()
		e.cancel()
		e.left(n1)
	})
}

// TestDelivery_Reject_LostReply: the same verb goes out again, and the answer of
// the first copy counts.
func TestDelivery_Reject_LostReply(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c, WithManualSettle())
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a", "b")
		k := e.next("a")
		k.end <- nil
		result := make(chan error, 1)
		go func() { result <- k.d.Reject(t.Context(), "bad") }()
		s := n1.expect(wire.OpSettle)
		want := wire.SettleItem{From: 1, To: 1, Verb: wire.VerbReject, Reason: "bad"}
		if it := s.settle().Items[0]; it != want {
			t.Fatalf("settled %+v", it)
		}
		s.conn.cut()
		r = n1.expect(wire.OpAttach)
		attached(r, 3, state(1, 1, wire.LeaseRejected), state(2, 2, wire.LeaseHeld))
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		if err := k.d.Ack(t.Context()); err == nil {
			t.Error("acked after it was rejected")
		}
		// One whose lease was lost meanwhile hears so.
		k = e.next("b")
		k.end <- nil
		go func() { result <- k.d.Reject(t.Context(), "bad") }()
		n1.expect(wire.OpSettle).states(state(2, 2, wire.LeaseExpired))
		if err := <-result; !errors.Is(err, ErrLeaseLost) {
			t.Fatal(err)
		}
		e.cancel()
		e.left(n1)
	})
}
