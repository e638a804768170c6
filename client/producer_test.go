package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
)

func TestPublish_IsStoredAndToldWhere(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), Message{Body: []byte("b"), BizID: "order-1", Headers: []Header{{Name: "a", Value: "b"}}})
		r := n.order[0].expect(wire.OpPublish)
		fr := r.publish()
		m := fr.Publishes[0].Messages[0]
		if fr.Queue != "orders" || fr.Session != 42 || fr.Epoch != 1 || fr.Floor != 1 || string(m.Body) != "b" || m.BizID != "order-1" || len(m.Headers) != 1 {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		got := published(t, f)
		if got.ID.Short() != "s1.42.1" || got.Message.String() != "orders/1001" || got.Duplicate || got.Attempts != 1 {
			t.Fatalf("receipt %+v", got)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(t.Context(), body("late")); !errors.Is(err, ErrClosed) {
			t.Fatalf("publish after close: %v", err)
		}
	})
}

func TestPublish_LostReply_IsRetriedOnAnotherConnectionWithItsSequence(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		first := n1.expect(wire.OpPublish)
		before := first.publish()
		first.conn.cut()
		second := n1.expect(wire.OpPublish)
		after := second.publish()
		if second.conn == first.conn {
			t.Fatal("the same connection")
		}
		if after.Session != before.Session || after.Publishes[0].Sequence != before.Publishes[0].Sequence || after.Publishes[0].Checksum != before.Publishes[0].Checksum {
			t.Fatalf("first %+v, second %+v", before, after)
		}
		second.reply(wire.PublishReply{Results: []wire.PublishResult{{Sequence: 1, Status: wire.StatusOK, Duplicate: true, Queue: 7, Offset: 3, Count: 1}}})
		if r := published(t, f); !r.Duplicate || r.Attempts != 2 || r.Message.Offset != 3 {
			t.Fatalf("receipt %+v", r)
		}
		if s := p.Stats(); s.Confirmed != 1 || s.Duplicates != 1 || s.Retransmitted != 1 || s.InFlight != 0 {
			t.Fatalf("stats %+v", s)
		}
	})
}

func TestPublish_NotLeader_GoesWhereTheAnswerSays(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		r := n.order[0].expect(wire.OpPublish)
		n.lead(2, "n2", false)
		r.fail(wire.CodeNotLeader, "n2:7450")
		n.order[1].expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		if s := c.Stats(); s.LeaderChanges != 1 {
			t.Fatalf("stats %+v", s)
		}
	}, "n1", "n2", "n3")
}

func TestPublish_PushedTopology_MovesWhatIsInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n.order[0].expect(wire.OpPublish)
		n.lead(2, "n3", true)
		n.order[2].expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		// An older term is not believed.
		n.lead(1, "n1", true)
		f = p.PublishAsync(t.Context(), body("b"))
		n.order[2].expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
	}, "n1", "n2", "n3")
}

func TestPublish_OverloadedServer_IsAskedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		for range 5 {
			n.order[0].expect(wire.OpPublish).fail(wire.CodeOverloaded, "")
		}
		n.order[0].expect(wire.OpPublish).results(wire.StatusOK)
		if r := published(t, f); r.Attempts != 6 {
			t.Fatalf("receipt %+v", r)
		}
	})
}

func TestPublish_ContextEndsInFlight_IsUnknownAtOnceAndSealedBehind(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				n1 := n.order[0]
				p := producer(t, c)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := p.Publish(ctx, body("a"))
				unknown := (*OutcomeUnknownError)(nil)
				if !errors.As(err, &unknown) || unknown.Final || unknown.ID.Short() != "s1.42.1" ||
					!errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("error %v", err)
				}
				first := n1.expect(wire.OpPublish)
				seal := n1.expect(wire.OpSeal)
				if s := decoded(seal, wire.DecodeSeal); !slices.Equal(s.Sequences, []uint64{1}) || s.Session != 42 {
					t.Fatalf("seal %+v", s)
				}
				// Until the seal is answered the floor stays.
				f := p.PublishAsync(t.Context(), body("b"))
				behind := n1.expect(wire.OpPublish)
				if fr := behind.publish(); fr.Floor != 1 || fr.Publishes[0].Sequence != 2 || fr.Publishes[0].After != 1 {
					t.Fatalf("frame %+v", fr)
				}
				res, want := wire.PublishResult{Sequence: 1, Status: wire.StatusSealed}, Never
				if stored {
					res, want = wire.PublishResult{Sequence: 1, Status: wire.StatusOK, Queue: 7, Offset: 5, Count: 1}, Stored
				}
				seal.reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{res}})
				synctest.Wait()
				// The machine forgets it with the next frame; the client does not.
				o, err := c.Outcome(t.Context(), unknown.ID)
				if err != nil || o.State != want || stored && o.Message.String() != "orders/5" {
					t.Fatalf("outcome %+v, %v", o, err)
				}
				first.results(wire.StatusSealed) // the late answer of the sealed copy
				last := p.PublishAsync(t.Context(), body("c"))
				r := n1.expect(wire.OpPublish)
				if fr := r.publish(); fr.Floor != 2 || fr.Publishes[0].Sequence != 3 || fr.Publishes[0].After != 2 {
					t.Fatalf("frame %+v", fr)
				}
				behind.results(wire.StatusOK)
				r.results(wire.StatusOK)
				published(t, f)
				published(t, last)
				n1.manual(wire.OpCloseSession)
				if err := p.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				n1.quiet() // what was reported as unknown can be looked up
			})
		})
	}
}

func TestPublish_QueueFull_IsDefiniteAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n.order[0].expect(wire.OpPublish).results(wire.StatusQueueFull)
		err := refusedWith(t, f, ErrQueueFull)
		if !strings.HasPrefix(err.Error(), "ONCEQ-2008: queue orders: the queue is full: ") {
			t.Fatal(err)
		}
		// The floor passes it: nothing of it is left.
		f = p.PublishAsync(t.Context(), body("b"))
		r := n.order[0].expect(wire.OpPublish)
		if fr := r.publish(); fr.Floor != 2 || fr.Publishes[0].Sequence != 2 || fr.Publishes[0].After != 0 {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		published(t, f)
	})
}

// One copy may be on its way when another is refused: "failed" would be a lie if
// the first were stored later.
func TestPublish_UnknownCopyThenQueueFull_IsNotFailedBeforeItsSeal(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				n1 := n.order[0]
				p := producer(t, c)
				f := p.PublishAsync(t.Context(), body("a"))
				n1.expect(wire.OpPublish).conn.cut()
				n1.expect(wire.OpPublish).results(wire.StatusQueueFull)
				seal := n1.expect(wire.OpSeal)
				synctest.Wait()
				select {
				case <-f.Done():
					t.Fatalf("answered before the seal: %v", f.err)
				default:
				}
				res := wire.PublishResult{Sequence: 1, Status: wire.StatusSealed}
				if stored {
					res = wire.PublishResult{Sequence: 1, Status: wire.StatusOK, Queue: 7, Offset: 9, Count: 1}
				}
				seal.reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{res}})
				if stored {
					if r := published(t, f); r.Message.Offset != 9 {
						t.Fatalf("receipt %+v", r)
					}
				} else {
					refusedWith(t, f, ErrQueueFull)
				}
			})
		})
	}
}

// The reason that a server gives when it closes a connection is no answer to what
// is in flight or waiting.
func TestPublish_ServerShutsDownInOrder_IsSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		a := p.PublishAsync(t.Context(), body("a"))
		r := n1.expect(wire.OpPublish)
		b := p.PublishAsync(t.Context(), body("b"))
		n.lead(2, "n2", false)
		r.conn.frame(wire.OpError, true, 0, wire.NewErrorReply(wire.CodeShuttingDown, "going"))
		r = n.order[1].expect(wire.OpPublish)
		if fr := r.publish(); len(fr.Publishes) != 2 || fr.Publishes[0].Sequence != 1 {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		published(t, a)
		published(t, b)
	}, "n1", "n2")
}

// Between the moment a connection has ended and the moment its producer hears of
// it, a publish may still be handed to it.
func TestConn_ClosedWithAReason_TakesNoRequestAndBlamesNone(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		cn, err := c.produce.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cn.fail(newError(wire.CodeShuttingDown, "going"))
		err = cn.publish(10, nil, nil, nil)
		if e := (*Error)(nil); !errors.Is(err, errUnsent) || errors.As(err, &e) {
			t.Fatalf("publish: %v", err)
		}
		_, err = cn.call(t.Context(), wire.OpQueueList, nil)
		if e := (*Error)(nil); !errors.Is(err, errUnsent) || errors.As(err, &e) {
			t.Fatalf("call: %v", err)
		}
	})
}
