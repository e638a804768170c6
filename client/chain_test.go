package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
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
	// A context's cause may be an error of this library, from another request: it is no
	// answer to this one.
	ended := newError(wire.CodeQueueFull, "of another request, whose context had ended").because(context.Canceled)
	for i, cause := range []error{nil, nil, ErrQueueFull, ErrLeaseLost, ErrNoLeader, ErrQueueFull, ended, ended} {
		stored := i%2 == 1
		bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
			n1 := n.order[0]
			ctx, cancel := context.WithCancelCause(t.Context())
			e, k, result := joining(t, n, c, ctx)
			m := n1.expect(wire.OpAckPublish).join()
			cancel(cause)
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

// Who waits for it may outlive the consumer, whose drain has an end. When it is refused
// then, the message has gone back by the leave: the consumer settles nothing, and is known
// by no other name.
func TestAckAndPublish_OutlivesItsConsumer_IsRefused_TheDeliveryIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		r := n1.expect(wire.OpAckPublish)
		k.end <- nil                                                      // its handler does not wait for it
		n1.answer(wire.OpSettle, func(r *fakeRequest) { r.allSettled() }) // its lease is kept alive
		e.cancel()
		n1.expect(wire.OpLeave).reply(wire.StatusReply{Status: wire.StatusOK})
		if err := <-e.result; !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		n1.answer(wire.OpSettle, func(r *fakeRequest) {
			t.Errorf("settles %+v", r.settle().Items)
			r.reply(wire.SettleReply{Status: wire.StatusConsumerGone})
		})
		r.joinRefused(wire.StatusQueueFull)
		if j := <-result; !errors.Is(j.err, ErrQueueFull) {
			t.Error(j.err)
		}
		if err := k.d.Ack(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Errorf("ack: %v", err)
		}
		synctest.Wait()
		if len(c.consumers) != 0 {
			t.Errorf("%d consumers are left", len(c.consumers))
		}
	})
}

// It is refused while its consumer leaves, and what the handler's error asks for has no
// answer before the end: it may have counted.
func TestAckAndPublish_IsRefusedWhileItsConsumerLeaves_TheSettleIsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		r := n1.expect(wire.OpAckPublish)
		k.end <- nil
		n1.answer(wire.OpSettle, func(r *fakeRequest) { r.allSettled() })
		e.cancel()
		n1.expect(wire.OpLeave)
		n1.manual(wire.OpSettle)
		r.joinRefused(wire.StatusQueueFull)
		<-result
		if it := n1.expect(wire.OpSettle).settle().Items[0]; it.Verb != wire.VerbNack {
			t.Fatalf("settled %+v", it)
		}
		if err := <-e.result; !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		if err := k.d.Nack(t.Context(), nil); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("nack: %v", err)
		}
	})
}

// TestAckAndPublish_NobodyLeadsUntilTheContextEnds_TheLeaseIsStillHeld, whatever ended it.
func TestAckAndPublish_NobodyLeadsUntilTheContextEnds_TheLeaseIsStillHeld(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		ctx, cancel := context.WithCancelCause(t.Context())
		e, k, result := joining(t, n, c, ctx)
		n1.expect(wire.OpAckPublish).fail(wire.CodeOverloaded, "")
		synctest.Wait()
		cancel(ErrLeaseLost)
		if j := <-result; j.err == nil || errors.Is(j.err, ErrOutcomeUnknown) {
			t.Fatal(j.err)
		}
		k.end <- nil
		s := n1.expect(wire.OpSettle)
		if it := s.settle().Items[0]; it.Verb != wire.VerbAck {
			t.Fatalf("settled %+v", it)
		}
		s.allSettled()
		e.drained(n1)
	})
}

// TestAckAndPublish_AfterARestore_AnotherSession: session numbers are given out again
// there, so that of before means nothing, or another producer's.
func TestAckAndPublish_AfterARestore_AnotherSession(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		c.chain.session = &chainSession{id: wire.SessionID{Incarnation: 7, Group: 1, Number: 999}, epoch: 3, next: 500, low: 500, open: map[uint64]bool{}}
		e, k, result := joining(t, n, c, t.Context())
		r := n1.expect(wire.OpAckPublish)
		if m := r.join(); m.Incarnation != fakeIncarnation || m.Session != 42 || m.Epoch != 1 || m.Sequence != 1 {
			t.Fatalf("sent %+v", m)
		}
		r.joinStored(false)
		(<-result).check(t, false)
		k.end <- nil
		e.drained(n1)
	})
}

func TestAckAndPublish_OfADeliveryOfBeforeTheRestore_NothingIsSent(t *testing.T) {
	t.Parallel()
	c := &Client{topo: newTopology(nil)}
	c.topo.incarnation = 8
	c.chain.c = c
	c.chain.session = &chainSession{id: wire.SessionID{Incarnation: 8, Number: 9}, next: 1, low: 1, open: map[uint64]bool{}}
	j := &join{c: c, d: &Delivery{}, request: wire.AckPublish{Incarnation: 7}}
	if err := c.chain.take(t.Context(), j); !errors.Is(err, ErrLeaseLost) || j.session != nil {
		t.Errorf("%v, session %+v", err, j.session)
	}
}

// TestAckAndPublish_TheSealIsOutsideTheWindow_TheFloorIsTold: what was refused before
// it came to the log used up sequences, and the machine has not heard of it.
func TestAckAndPublish_TheSealIsOutsideTheWindow_TheFloorIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		e, k, result := joining(t, n, c, t.Context())
		n1.expect(wire.OpAckPublish).conn.cut()
		r := n1.expect(wire.OpAckPublish)
		m := r.join()
		r.joinRefused(wire.StatusQueueFull)
		n1.expect(wire.OpSeal).reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{{Sequence: m.Sequence, Status: wire.StatusWindowFull}}})
		floor := n1.expect(wire.OpPublish)
		if f := floor.publish(); f.Session != m.Session || f.Epoch != m.Epoch || f.Floor != m.Sequence || len(f.Publishes) > 0 {
			t.Fatalf("sent %+v", f)
		}
		floor.results()
		n1.expect(wire.OpSeal).reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{{Sequence: m.Sequence, Status: wire.StatusSealed}}})
		j := <-result
		if !errors.Is(j.err, ErrQueueFull) {
			t.Fatal(j.err)
		}
		k.end <- j.err
		n1.expect(wire.OpSettle).allSettled()
		e.drained(n1)
	})
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
