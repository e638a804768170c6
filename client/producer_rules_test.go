package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
)

func TestPublish_SessionExpired_MovesOnlyWhatWasNeverWritten(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		sent, frames := untilItCollects(t.Context(), n1, p)
		waiting := p.PublishAsync(t.Context(), body("waiting")) // collected: never written
		for _, r := range frames {
			r.results(wire.StatusSessionExpired)
		}
		for i, f := range sent {
			err := refusedWith(t, f, ErrOutcomeUnknown)
			unknown := (*OutcomeUnknownError)(nil)
			id := fmt.Sprint("s1.42.", i+1)
			if !errors.As(err, &unknown) || !unknown.Final || !errors.Is(err, ErrSessionExpired) || unknown.ID.Short() != id {
				t.Fatalf("error %v", err)
			}
		}
		r := n1.expect(wire.OpPublish)
		fr := r.publish()
		if fr.Session != 43 || len(fr.Publishes) != 1 || fr.Publishes[0].Sequence != 1 || string(fr.Publishes[0].Messages[0].Body) != "waiting" {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		if got := published(t, waiting); got.ID.Short() != "s1.43.1" {
			t.Fatalf("receipt %+v", got)
		}
	})
}

func TestPublish_Fenced_EndsTheProducer(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c, WithName("svc"))
		maybe := p.PublishAsync(t.Context(), body("maybe"))
		n1.expect(wire.OpPublish).conn.cut() // an earlier copy whose fate is open
		r := n1.expect(wire.OpPublish)
		once := p.PublishAsync(t.Context(), body("once"))
		behind := n1.expect(wire.OpPublish)
		var waiting *Future
		together(p, func() {
			waiting = p.PublishAsync(t.Context(), body("waiting"))
			r.results(wire.StatusFenced)
			behind.results(wire.StatusFenced)
			// Fenced says nothing about the earlier copy, all about what had none and what
			// never left.
			refusedWith(t, maybe, ErrOutcomeUnknown)
			refusedWith(t, once, ErrFenced)
			refusedWith(t, waiting, ErrFenced)
		})
		if _, err := p.Publish(t.Context(), body("later")); !errors.Is(err, ErrFenced) {
			t.Fatalf("later: %v", err)
		}
		n1.quiet()
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestProducer_PublishesNothingForLong_KeepsItsSession: an unnamed one, by sealing nothing
// a few times within its expiry.
func TestProducer_PublishesNothingForLong_KeepsItsSession(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.manual(wire.OpOpenSession)
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n1.expect(wire.OpOpenSession).reply(wire.SessionOpened{
			Status: wire.StatusOK, Session: wire.SessionID{Incarnation: fakeIncarnation, Group: 1, Number: 42},
			Epoch: 1, Floor: 1, Next: 1, Expiry: time.Minute,
		})
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		published(t, f)
		began := time.Now()
		for range 5 {
			r := n1.expect(wire.OpSeal)
			if s := decoded(r, wire.DecodeSeal); s.Session != 42 || s.Epoch != 1 || len(s.Sequences) != 0 {
				t.Fatalf("seal %+v", s)
			}
			if since := time.Since(began); since >= 30*time.Second {
				t.Fatalf("not a word for %v of a minute", since)
			}
			r.reply(wire.SealReply{Status: wire.StatusOK})
			began = time.Now()
		}
	})
}

func TestProducer_NamedSession_TakesTheEpochOver(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.manual(wire.OpOpenSession)
		p := producer(t, c, WithName("svc"))
		f := p.PublishAsync(t.Context(), body("a"))
		r := n1.expect(wire.OpOpenSession)
		first := decoded(r, wire.DecodeOpenSession)
		if !first.Named || first.Name != "svc" || first.ExpectedEpoch != 0 {
			t.Fatalf("open %+v", first)
		}
		r.reply(wire.SessionOpened{Status: wire.StatusEpochMismatch, Epoch: 4})
		r = n1.expect(wire.OpOpenSession)
		if second := decoded(r, wire.DecodeOpenSession); second.ExpectedEpoch != 4 || second.Nonce != first.Nonce {
			t.Fatalf("open %+v", second)
		}
		r.conn.cut() // the answer is lost: the same is asked again
		r = n1.expect(wire.OpOpenSession)
		if third := decoded(r, wire.DecodeOpenSession); third.ExpectedEpoch != 4 || third.Nonce != first.Nonce {
			t.Fatalf("open %+v", third)
		}
		r.reply(wire.SessionOpened{
			Status: wire.StatusOK, Session: wire.SessionID{Incarnation: fakeIncarnation, Group: 1, Number: 9}, Epoch: 5, Floor: 10, Next: 20,
		})
		r = n1.expect(wire.OpPublish)
		// The older process may have told ids above 20 to its callers: they are not
		// used again for other messages.
		if fr := r.publish(); fr.Epoch != 5 || fr.Publishes[0].Sequence != 20+reopenSkip || fr.Floor != 20+reopenSkip {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		published(t, f)
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		n1.quiet() // a named session stays
	})
}

func TestPublish_FewInFlight_GoesAtOnce_OthersCollectIntoOneFrame(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		sent, frames := untilItCollects(t.Context(), n1, p)
		for i, r := range frames {
			if fr := r.publish(); len(fr.Publishes) != 1 || fr.Publishes[0].Sequence != uint64(i+1) || fr.Publishes[0].After != uint64(i) {
				t.Fatalf("frame %d: %+v", i, fr)
			}
		}
		var rest []*Future
		for i := range 20 {
			rest = append(rest, p.PublishAsync(t.Context(), body(fmt.Sprint(i))))
		}
		n1.quiet()
		frames[0].results(wire.StatusOK)
		r := n1.expect(wire.OpPublish)
		fr := r.publish()
		if len(fr.Publishes) != 20 || fr.Floor != 2 {
			t.Fatalf("%d publishes, floor %d", len(fr.Publishes), fr.Floor)
		}
		for i, pb := range fr.Publishes {
			sequence := uint64(eagerFrames + i + 1)
			if pb.Sequence != sequence || pb.After != sequence-1 || string(pb.Messages[0].Body) != fmt.Sprint(i) {
				t.Fatalf("publish %d: %+v", i, pb)
			}
		}
		for _, r := range append(frames[1:], r) {
			r.results(wire.StatusOK)
		}
		for _, f := range append(sent, rest...) {
			published(t, f)
		}
	})
}

func TestPublish_LargeBacklog_PipelinesFrames(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		all := []*Future{p.PublishAsync(t.Context(), body("first"))}
		frames := []*fakeRequest{n1.expect(wire.OpPublish)}
		for i := range 3000 {
			all = append(all, p.PublishAsync(t.Context(), body(fmt.Sprint(i))))
		}
		next := uint64(2)
		for range pipelineMax - 1 {
			r := n1.expect(wire.OpPublish)
			for _, pb := range r.publish().Publishes {
				if pb.Sequence != next || pb.After != next-1 {
					t.Fatalf("sequence %d after %d, expected %d", pb.Sequence, pb.After, next)
				}
				next++
			}
			frames = append(frames, r)
		}
		n1.quiet()
		for _, r := range frames {
			r.results(wire.StatusOK)
		}
		for next <= 3001 {
			r := n1.expect(wire.OpPublish)
			next += uint64(len(r.publish().Publishes))
			r.results(wire.StatusOK)
		}
		for _, f := range all {
			published(t, f)
		}
	})
}

func TestPublish_OutOfOrder_ResendsWhatIsOpenInOrderBeforeAnythingNew(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		all := []*Future{p.PublishAsync(t.Context(), body("first"))}
		first := n1.expect(wire.OpPublish)
		all = append(all, numbered(t.Context(), p, 20)...)
		second := n1.expect(wire.OpPublish)
		first.fail(wire.CodeOverloaded, "")
		second.results(wire.StatusOutOfOrder)
		r := n1.expect(wire.OpPublish)
		fr := r.publish()
		if len(fr.Publishes) != len(all) {
			t.Fatalf("%d publishes", len(fr.Publishes))
		}
		for i, pb := range fr.Publishes {
			if pb.Sequence != uint64(i+1) || pb.After != uint64(i) {
				t.Fatalf("publish %d: sequence %d after %d", i, pb.Sequence, pb.After)
			}
		}
		r.results(wire.StatusOK)
		for _, f := range all {
			published(t, f)
		}
	})
}

// A seal says nothing of what comes before it: what comes behind names that from then on.
func TestPublish_SealedByAnother_WhatComesBehindNamesTheOneBefore(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		all := []*Future{p.PublishAsync(t.Context(), body("first"))}
		first := n1.expect(wire.OpPublish)
		all = append(all, numbered(t.Context(), p, 20)...)
		second := n1.expect(wire.OpPublish)
		first.fail(wire.CodeOverloaded, "")
		second.results(wire.StatusSealed, wire.StatusOutOfOrder)
		r := n1.expect(wire.OpPublish)
		fr := r.publish()
		if len(fr.Publishes) != len(all)-1 {
			t.Fatalf("%d publishes", len(fr.Publishes))
		}
		before := uint64(0)
		for i, pb := range fr.Publishes {
			if pb.Sequence == 2 || pb.After != before {
				t.Fatalf("publish %d: sequence %d after %d", i, pb.Sequence, pb.After)
			}
			before = pb.Sequence
		}
		r.results(wire.StatusOK)
		for i, f := range all {
			if i == 1 {
				refusedWith(t, f, ErrNotStored)
				continue
			}
			published(t, f)
		}
	})
}

// TestPublish_BesideOneThatAlwaysHasMore_GetsItsTurn at the connection's window.
func TestPublish_BesideOneThatAlwaysHasMore_GetsItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		large := Message{Body: make([]byte, 1_000_000)}
		p := producer(t, c)
		var all []*Future
		for range 40 {
			all = append(all, p.PublishAsync(t.Context(), large))
		}
		var open []*fakeRequest
		for range 8 { // as many as the window takes
			open = append(open, n1.expect(wire.OpPublish))
		}
		other, err := c.NewProducer("other")
		if err != nil {
			t.Fatal(err)
		}
		f := other.PublishAsync(t.Context(), large)
		synctest.Wait()
		n1.quiet()
		for turns := 1; ; turns++ {
			open[0].results(wire.StatusOK)
			next := n1.expect(wire.OpPublish)
			open = append(open[1:], next)
			if next.publish().Queue == "other" {
				break
			}
			if turns == 3 {
				t.Fatal("it is not sent")
			}
		}
		for len(all) > 0 || len(open) > 0 {
			if len(open) == 0 {
				open = append(open, n1.expect(wire.OpPublish))
			}
			open[0].results(wire.StatusOK)
			open = open[1:]
			synctest.Wait()
			for len(all) > 0 && all[0].reported {
				all = all[1:]
			}
		}
		published(t, f)
	})
}

// With a full queue one is refused, and what was in flight behind it is out of
// order. To send it all again for each refusal would be quadratic.
func TestPublish_QueueFullWithMoreInFlight_RefusesThemTogether(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		ok := p.PublishAsync(t.Context(), body("ok"))
		r := n1.expect(wire.OpPublish)
		rest := numbered(t.Context(), p, 50)
		r.results(wire.StatusOK)
		n1.expect(wire.OpPublish).results(wire.StatusQueueFull, wire.StatusOutOfOrder)
		published(t, ok)
		for _, f := range rest {
			refusedWith(t, f, ErrQueueFull)
		}
		n1.quiet()
	})
}

func TestPublish_FrameRefusedWhole_FindsTheOneToBlame(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		first := p.PublishAsync(t.Context(), body("first"))
		r := n1.expect(wire.OpPublish)
		rest := numbered(t.Context(), p, 3)
		r.results(wire.StatusOK)
		published(t, first)
		n1.expect(wire.OpPublish).fail(wire.CodeTooLarge, "")
		for {
			r := n1.expect(wire.OpPublish)
			fr := r.publish()
			if len(fr.Publishes) != 1 {
				t.Fatalf("%d publishes in a frame", len(fr.Publishes))
			}
			switch string(fr.Publishes[0].Messages[0].Body) {
			case "1":
				r.fail(wire.CodeTooLarge, "")
				continue
			case "2":
				if fr.Publishes[0].After == 3 {
					r.results(wire.StatusOutOfOrder) // sent before the refusal was known
					continue
				}
				r.results(wire.StatusOK)
			default:
				r.results(wire.StatusOK)
				continue
			}
			break
		}
		published(t, rest[0])
		refusedWith(t, rest[1], ErrTooLarge)
		published(t, rest[2])
	})
}

func TestPublish_FrameRefusedForWantOfRoom_IsRefusedTogether(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		first := p.PublishAsync(t.Context(), body("first"))
		r := n1.expect(wire.OpPublish)
		var a, b *Future
		together(p, func() { a, b = p.PublishAsync(t.Context(), body("a")), p.PublishAsync(t.Context(), body("b")) })
		r.results(wire.StatusOK)
		published(t, first)
		n1.expect(wire.OpPublish).fail(wire.CodeQueueFull, "")
		refusedWith(t, a, ErrQueueFull)
		refusedWith(t, b, ErrQueueFull)
		n1.quiet()
	})
}

// The machine seals only within the window above the floor it has heard of.
func TestSeal_WindowFull_TellsTheFloorFirst(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		gone := p.PublishAsync(ctx, body("gone"))
		n1.expect(wire.OpPublish)
		cancel()
		refusedWith(t, gone, ErrOutcomeUnknown)
		n1.expect(wire.OpSeal).reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{{Sequence: 1, Status: wire.StatusWindowFull}}})
		r := n1.expect(wire.OpPublish)
		if fr := r.publish(); fr.Floor != 1 || len(fr.Publishes) != 0 {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		n1.expect(wire.OpSeal).reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{{Sequence: 1, Status: wire.StatusSealed}}})
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPublish_BelowFloor_IsNoConfirmation(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		n1.expect(wire.OpPublish).results(wire.StatusBelowFloor)
		_, err := f.Wait(t.Context())
		e := (*Error)(nil)
		if !errors.As(err, &e) || e.Code != wire.CodeBelowFloor {
			t.Fatalf("one copy: %v", err)
		}
		f = p.PublishAsync(t.Context(), body("b"))
		n1.expect(wire.OpPublish).conn.cut()
		n1.expect(wire.OpPublish).results(wire.StatusBelowFloor)
		refusedWith(t, f, ErrOutcomeUnknown)
	})
}

func TestPublish_PublishWindow_IsNeverExceeded(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n.mu.Lock()
		n.welcome.PublishWindow = 100_000
		n.mu.Unlock()
		n1.cut() // the next connection has the small window
		p := producer(t, c)
		var all []*Future
		for range 40 {
			all = append(all, p.PublishAsync(t.Context(), Message{Body: make([]byte, 10_000)}))
		}
		unanswered, got := 0, 0
		var open []*fakeRequest
		for got < 40 {
			synctest.Wait()
			select {
			case r := <-n1.requests:
				unanswered += len(r.payload)
				if unanswered > 100_000 {
					t.Fatalf("%d bytes unanswered", unanswered)
				}
				got += len(r.publish().Publishes)
				open = append(open, r)
				continue
			default:
			}
			if len(open) == 0 {
				time.Sleep(10 * time.Millisecond) // still connecting
				continue
			}
			unanswered -= len(open[0].payload)
			open[0].results(wire.StatusOK)
			open = open[1:]
		}
		for _, r := range open {
			r.results(wire.StatusOK)
		}
		for _, f := range all {
			published(t, f)
		}
	})
}

func TestPublish_MaxInFlight_Blocks(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c, WithMaxInFlight(2))
		a := p.PublishAsync(t.Context(), body("a"))
		r := n1.expect(wire.OpPublish)
		b := p.PublishAsync(t.Context(), body("b"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Publish(ctx, body("c"))
		if errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("third: %v", err)
		}
		r.results(wire.StatusOK)
		published(t, a)
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		published(t, b)
	})
}

func TestPublish_NoNodeAnswers_SaysThatNothingWasSentAndWhy(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.setDown(errors.New("connection refused"))
		n1.cut()
		synctest.Wait()
		p := producer(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := p.Publish(ctx, body("a"))
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("error %v", err)
		}
		// An asynchronous one ends with its context too.
		f := p.PublishAsync(ctx, body("b"))
		refusedWith(t, f, context.DeadlineExceeded)
		if s := p.Stats(); s.InFlight != 0 {
			t.Fatalf("stats %+v", s)
		}
	})
}

func TestPublishAsync_ContextEnds_EndsAllItsPublishes(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		sent, frames := untilItCollects(ctx, n1, p)
		waiting := p.PublishAsync(ctx, body("waiting"))
		other := p.PublishAsync(t.Context(), body("other"))
		// The seals leave before or after what comes next, or not at all.
		n1.net.mu.Lock()
		n1.auto[wire.OpSeal] = func(r *fakeRequest) {
			var stored []wire.PublishResult
			for _, s := range decoded(r, wire.DecodeSeal).Sequences {
				stored = append(stored, wire.PublishResult{Sequence: s, Status: wire.StatusOK, Queue: 7, Count: 1})
			}
			r.reply(wire.SealReply{Status: wire.StatusOK, Outcomes: stored})
		}
		n1.net.mu.Unlock()
		cancel()
		for _, f := range sent {
			refusedWith(t, f, ErrOutcomeUnknown)
		}
		if err := refusedWith(t, waiting, context.Canceled); errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("never sent: %v", err)
		}
		for _, r := range frames {
			r.results(wire.StatusOK) // before the seal's answer, or behind it
		}
		next := n1.expect(wire.OpPublish)
		if fr := next.publish(); len(fr.Publishes) != 1 || fr.Publishes[0].Sequence != eagerFrames+1 {
			t.Fatalf("frame %+v", fr)
		}
		next.results(wire.StatusOK)
		published(t, other)
	})
}

func TestPublishBatch_IsOneSequence(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		type result struct {
			rs  []Receipt
			err error
		}
		done := make(chan result)
		go func() {
			rs, err := p.PublishBatch(t.Context(), body("a"), body("b"), body("c"))
			done <- result{rs, err}
		}()
		r := n1.expect(wire.OpPublish)
		if fr := r.publish(); len(fr.Publishes) != 1 || len(fr.Publishes[0].Messages) != 3 {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		got := <-done
		if got.err != nil || len(got.rs) != 3 || got.rs[2].Message.Offset != got.rs[0].Message.Offset+2 {
			t.Fatalf("%+v", got)
		}
		if _, err := p.PublishBatch(t.Context()); err == nil {
			t.Fatal("an empty batch was taken")
		}
	})
}

func TestPublish_TooLargeForTheServer_IsRefusedHere(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		if _, err := p.Publish(t.Context(), Message{Body: make([]byte, 1<<20+1)}); !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
		n.order[0].quiet()
	})
}

func TestProducerClose_SealsWhatIsLeftAndClosesTheSession(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.manual(wire.OpCloseSession)
		p := producer(t, c)
		f := p.PublishAsync(t.Context(), body("a"))
		r := n1.expect(wire.OpPublish)
		closed := make(chan error)
		go func() { closed <- p.Close(t.Context()) }()
		n1.quiet() // it flushes first
		r.results(wire.StatusOK)
		published(t, f)
		cs := n1.expect(wire.OpCloseSession)
		if m := decoded(cs, wire.DecodeCloseSession); m.Session != 42 || m.Epoch != 1 {
			t.Fatalf("close %+v", m)
		}
		cs.reply(wire.StatusReply{Status: wire.StatusOK})
		if err := <-closed; err != nil {
			t.Fatal(err)
		}

		// With its context ended it does not wait, and seals all the same.
		p = producer(t, c)
		f = p.PublishAsync(t.Context(), body("b"))
		n1.expect(wire.OpPublish)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		refusedWith(t, f, ErrOutcomeUnknown)
		n1.expect(wire.OpSeal).reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{{Sequence: 1, Status: wire.StatusSealed}}})
	})
}

func TestClientClose_EndsPublishesAsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := producer(t, c)
		sent := p.PublishAsync(t.Context(), body("sent"))
		n.order[0].expect(wire.OpPublish)
		waiting := p.PublishAsync(t.Context(), body("waiting"))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		refusedWith(t, sent, ErrOutcomeUnknown)
		refusedWith(t, waiting, ErrClosed)
		if _, err := p.Publish(t.Context(), body("late")); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal("the second time:", err)
		}
	})
}

// A sequence that is being sealed has no record until then; what comes after it
// would be refused again and again.
func TestPublish_WhileSealing_RefusedSuccessorsWaitForTheSeal(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := producer(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		gone := p.PublishAsync(ctx, body("gone"))
		first := n1.expect(wire.OpPublish)
		next := p.PublishAsync(t.Context(), body("next"))
		n1.expect(wire.OpPublish)
		cancel()
		refusedWith(t, gone, ErrOutcomeUnknown)
		seal := n1.expect(wire.OpSeal)
		first.conn.cut()
		_ = seal
		seal = n1.expect(wire.OpSeal) // on the new connection, before anything else
		n1.quiet()
		seal.reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{{Sequence: 1, Status: wire.StatusSealed}}})
		r := n1.expect(wire.OpPublish)
		if fr := r.publish(); fr.Publishes[0].Sequence != 2 || fr.Publishes[0].After != 0 {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		published(t, next)
	})
}

// TestProducer_NamedSession_NewUnderAnOldName_StartsAtOne: the name was used and
// closed before, so its epochs go on, and its sequences begin anew.
func TestProducer_NamedSession_NewUnderAnOldName_StartsAtOne(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.manual(wire.OpOpenSession)
		p := producer(t, c, WithName("svc"))
		f := p.PublishAsync(t.Context(), body("a"))
		n1.expect(wire.OpOpenSession).reply(wire.SessionOpened{
			Status: wire.StatusOK, Session: wire.SessionID{Incarnation: fakeIncarnation, Group: 1, Number: 9}, Epoch: 7, Floor: 1, Next: 1,
		})
		r := n1.expect(wire.OpPublish)
		if fr := r.publish(); fr.Epoch != 7 || fr.Publishes[0].Sequence != 1 || fr.Floor != 1 {
			t.Fatalf("frame %+v", fr)
		}
		r.results(wire.StatusOK)
		published(t, f)
	})
}
