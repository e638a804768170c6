package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

func encoded(m interface{ Append(w *pack.Writer) }) []byte {
	var w pack.Writer
	m.Append(&w)
	return w.Take()
}

// joined is the answer to an ack-and-publish.
type joined struct {
	receipts []Receipt
	err      error
}

// joining hands out message a and calls AckAndPublish for it.
func joining(t *testing.T, n *fakeNet, c *Client, ctx context.Context) (e *eater, k *call, result chan joined) {
	t.Helper()
	n1 := n.order[0]
	e = eat(t, c)
	r := n1.expect(wire.OpAttach)
	attached(r, 1)
	r.deliver(1, "a")
	k = e.next("a")
	result = make(chan joined, 1)
	go func() {
		rs, err := c.AckAndPublish(ctx, k.d,
			Outgoing{"b", body("b1")}, Outgoing{"c", Message{Body: []byte("c1"), Priority: 2}}, Outgoing{"b", body("b2")})
		result <- joined{rs, err}
	}()
	return e, k, result
}

func (r *fakeRequest) join() wire.AckPublish {
	r.t.Helper()
	m := decoded(r, wire.DecodeAckPublish)
	if m.Checksum != wire.AckPublishChecksum(m.Consumer, m.Number, m.Outputs) {
		r.t.Error("checksum does not match")
	}
	if m.Floor > m.Sequence {
		r.t.Errorf("floor %d above sequence %d", m.Floor, m.Sequence)
	}
	return m
}

func (r *fakeRequest) joinStored(duplicate bool) {
	m := r.join()
	r.reply(wire.PublishReply{Results: []wire.PublishResult{{Sequence: m.Sequence, Status: wire.StatusOK, Duplicate: duplicate,
		Outputs: []wire.Position{{Queue: 8, Offset: 70, Count: 2}, {Queue: 9, Lane: 2, Offset: 5, Count: 1}}}}})
}

func (r *fakeRequest) joinRefused(st wire.Status) {
	r.reply(wire.PublishReply{Results: []wire.PublishResult{{Sequence: r.join().Sequence, Status: st}}})
}

// drained ends the consumer; nothing is settled any more.
func (e *eater) drained(n1 *fakeNode) {
	e.t.Helper()
	e.cancel()
	e.left(n1)
}

func (j joined) check(t *testing.T, duplicate bool) {
	t.Helper()
	if j.err != nil {
		t.Fatal(j.err)
	}
	want := []string{"b/70", "c/p2.5", "b/71"}
	for i, r := range j.receipts {
		if r.Message.String() != want[i] || r.Duplicate != duplicate || r.ID.Short() != "s1.42.1" {
			t.Errorf("receipt %d: %+v", i, r)
		}
	}
	if len(j.receipts) != len(want) {
		t.Errorf("%d receipts", len(j.receipts))
	}
}

func TestAckAndPublish_IsOneRequest(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		r := n1.expect(wire.OpAckPublish)
		m := r.join()
		if m.Session != 42 || m.Epoch != 1 || m.Sequence != 1 || m.Number != 1 || m.Done != 1 || len(m.Outputs) != 2 ||
			m.Outputs[0].Queue != "b" || len(m.Outputs[0].Messages) != 2 || m.Outputs[1].Queue != "c" || m.Outputs[1].Messages[0].Priority != 2 {
			t.Fatalf("sent %+v", m)
		}
		if err := k.d.Ack(t.Context()); err == nil {
			t.Error("an ack of its own beside it")
		}
		r.joinStored(false)
		(<-result).check(t, false)
		k.end <- nil
		n1.quiet() // nothing is acked again
		if err := k.d.Ack(t.Context()); err != nil {
			t.Errorf("ack after it: %v", err)
		}
		e.drained(n1)
	})
}

func TestAckAndPublish_LostReply_TheSameSequenceAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		r := n1.expect(wire.OpAckPublish)
		first := r.join()
		r.conn.cut()
		// The consumer attaches anew on its own connection only if that was cut too;
		// the request goes again over another.
		r = n1.expect(wire.OpAckPublish)
		if m := r.join(); m.Session != first.Session || m.Sequence != first.Sequence || m.Checksum != first.Checksum {
			t.Fatalf("sent %+v, then %+v", first, m)
		}
		r.joinStored(true)
		(<-result).check(t, true)
		k.end <- nil
		e.drained(n1)
	})
}

func TestAckAndPublish_LeaderLost_TheAttachSettlesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		n1.expect(wire.OpAckPublish)
		n1.cut() // both connections
		seen := map[wire.Op]*fakeRequest{}
		for range 2 {
			select {
			case r := <-n1.requests:
				seen[r.op] = r
			case <-time.After(time.Minute):
				t.Fatalf("got %v", seen)
			}
		}
		// The machine has carried it out: the delivery is acked, and gone by done.
		attached(seen[wire.OpAttach], 2, state(1, 1, wire.LeaseAcked))
		n1.quiet()
		seen[wire.OpAckPublish].joinStored(true)
		(<-result).check(t, true)
		k.end <- nil
		e.drained(n1)
	})
}

func TestAckAndPublish_LeaseLost_NothingIsPublished(t *testing.T) {
	for _, st := range []wire.Status{wire.StatusLeaseLost, wire.StatusConsumerGone} {
		bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
			n1 := n.order[0]
			e, k, result := joining(t, n, c, t.Context())
			n1.expect(wire.OpAckPublish).joinRefused(st)
			if j := <-result; !errors.Is(j.err, ErrLeaseLost) {
				t.Fatal(j.err)
			}
			k.end <- errors.New("lost")
			n1.quiet()
			if err := k.d.Ack(t.Context()); !errors.Is(err, ErrLeaseLost) {
				t.Errorf("ack after it: %v", err)
			}
			e.drained(n1)
		})
	}
}

// TestAckAndPublish_Refused_TheDeliveryIsStillToBeSettled: nothing happened, so
// the handler's error gives the message back.
func TestAckAndPublish_Refused_TheDeliveryIsStillToBeSettled(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		n1.expect(wire.OpAckPublish).joinRefused(wire.StatusQueueFull)
		j := <-result
		if !errors.Is(j.err, ErrQueueFull) {
			t.Fatal(j.err)
		}
		k.end <- j.err
		s := n1.expect(wire.OpSettle)
		if it := s.settle().Items[0]; it.Verb != wire.VerbNack || it.Reason == "" {
			t.Fatalf("settled %+v", it)
		}
		s.allSettled()
		e.drained(n1)
	})
}

// TestAckAndPublish_RefusedAfterALostReply_IsSealed: the first copy may come late,
// when there is room.
func TestAckAndPublish_RefusedAfterALostReply_IsSealed(t *testing.T) {
	for _, stored := range []bool{false, true} {
		bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
			n1 := n.order[0]
			e, k, result := joining(t, n, c, t.Context())
			n1.expect(wire.OpAckPublish).conn.cut()
			r := n1.expect(wire.OpAckPublish)
			m := r.join()
			r.joinRefused(wire.StatusQueueFull)
			r = n1.expect(wire.OpSeal)
			if s := decoded(r, wire.DecodeSeal); s.Session != 42 || len(s.Sequences) != 1 || s.Sequences[0] != m.Sequence {
				t.Fatalf("sealed %+v", s)
			}
			out := wire.PublishResult{Sequence: m.Sequence, Status: wire.StatusSealed}
			if stored {
				out = wire.PublishResult{Sequence: m.Sequence, Status: wire.StatusOK, Duplicate: true,
					Outputs: []wire.Position{{Queue: 8, Offset: 70, Count: 2}, {Queue: 9, Lane: 2, Offset: 5, Count: 1}}}
			}
			r.reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{out}})
			j := <-result
			if stored {
				j.check(t, true)
				k.end <- nil
				n1.quiet()
			} else {
				if !errors.Is(j.err, ErrQueueFull) {
					t.Fatal(j.err)
				}
				k.end <- j.err
				n1.expect(wire.OpSettle).allSettled()
			}
			e.drained(n1)
		})
	}
}

// TestAckAndPublish_ContextEnds_IsResolvedInTheBackground: the caller is told
// unknown; the sequence is sealed, and what follows from it is done.
func TestAckAndPublish_ContextEnds_IsResolvedInTheBackground(t *testing.T) {
	for _, stored := range []bool{false, true} {
		bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
			n1 := n.order[0]
			ctx, cancel := context.WithCancel(t.Context())
			e, k, result := joining(t, n, c, ctx)
			m := n1.expect(wire.OpAckPublish).join()
			cancel()
			j := <-result
			unknown := (*OutcomeUnknownError)(nil)
			if !errors.As(j.err, &unknown) || unknown.Final || unknown.ID.Short() != "s1.42.1" {
				t.Fatal(j.err)
			}
			k.end <- j.err
			r := n1.expect(wire.OpSeal)
			out := wire.PublishResult{Sequence: m.Sequence, Status: wire.StatusSealed}
			want := Never
			if stored {
				want = Stored
				out = wire.PublishResult{Sequence: m.Sequence, Status: wire.StatusOK, Outputs: []wire.Position{{Queue: 8, Offset: 70, Count: 2}, {Queue: 9, Offset: 5, Count: 1}}}
			}
			r.reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{out}})
			if !stored {
				// It has not happened: the handler's error gives the message back.
				s := n1.expect(wire.OpSettle)
				if it := s.settle().Items[0]; it.Verb != wire.VerbNack {
					t.Fatalf("settled %+v", it)
				}
				s.allSettled()
			}
			n1.quiet()
			o, err := c.Outcome(t.Context(), unknown.ID)
			if err != nil || o.State != want || stored && (o.Count != 3 || len(o.Outputs) != 2 || o.Outputs[1].String() != "c/5") {
				t.Errorf("outcome %+v, %v", o, err)
			}
			e.drained(n1)
		})
	}
}

// TestAckAndPublish_SessionExpired_AnotherSession: what no session has judged may
// go under another.
func TestAckAndPublish_SessionExpired_AnotherSession(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		n1.expect(wire.OpAckPublish).joinRefused(wire.StatusSessionExpired)
		r := n1.expect(wire.OpAckPublish)
		if m := r.join(); m.Session != 43 || m.Sequence != 1 {
			t.Fatalf("sent %+v", m)
		}
		r.joinStored(false)
		if j := <-result; j.err != nil || j.receipts[0].ID.Short() != "s1.43.1" {
			t.Fatalf("%+v", j)
		}
		k.end <- nil
		e.drained(n1)
	})
}

func TestAckAndPublish_BadArguments_NothingIsSent(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e := eat(t, c)
		r := n1.expect(wire.OpAttach)
		attached(r, 1)
		r.deliver(1, "a")
		k := e.next("a")
		for want, outs := range map[error][]Outgoing{
			ErrBadName:    {{"a b", body("x")}},
			ErrBadOptions: {{"b", Message{Priority: 1}}, {"c", body("x")}, {"b", Message{Priority: 2}}},
			ErrTooLarge:   {{"b", Message{Body: make([]byte, 1<<20+1)}}},
		} {
			if _, err := c.AckAndPublish(t.Context(), k.d, outs...); !errors.Is(err, want) {
				t.Errorf("%v: %v", want, err)
			}
		}
		n1.quiet()
		k.end <- nil // and it can still be acked
		n1.expect(wire.OpSettle).allSettled()
		e.drained(n1)
	})
}

// TestAckAndPublish_LongHandling_KeepsTheLease: while the leader cannot be reached
// over one connection, the lease is kept alive over the other.
func TestAckAndPublish_LongHandling_KeepsTheLease(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		r := n1.expect(wire.OpAckPublish)
		for range 5 {
			s := n1.expect(wire.OpSettle)
			if it := s.settle().Items[0]; it.Verb != wire.VerbExtend || it.From != 1 {
				t.Fatalf("settled %+v", it)
			}
			s.allSettled()
		}
		// A loss that is learned meanwhile decides nothing: the answer does.
		s := n1.expect(wire.OpSettle)
		s.states(state(1, 1, wire.LeaseAcked))
		r.joinStored(false)
		(<-result).check(t, false)
		k.end <- nil
		e.drained(n1)
	})
}
