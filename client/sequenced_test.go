package client

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"onceq/client/internal/sequenced"
	"onceq/transport/wire"
)

// told is what a sequenced producer has said of one publish.
type told struct {
	stored sequenced.Stored
	err    error
	done   chan struct{}
}

func (o *told) wait() error { <-o.done; return o.err }

// sequencedOn opens a session as an outbox does: s1.42, floor 1.
func sequencedOn(t *testing.T, c *Client) sequenced.Session {
	t.Helper()
	s, err := sequenced.Open(t.Context(), c, "orders", "svc")
	if err != nil {
		t.Fatal(err)
	}
	s.KeepFloor(s.Next())
	return s
}

func give(t *testing.T, s sequenced.Session, sequence uint64, resent bool, text string) *told {
	t.Helper()
	p, err := sequenced.Encode("orders", []Message{body(text)}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	o := &told{done: make(chan struct{})}
	s.Publish(sequence, p, resent, func(at sequenced.Stored, err error) {
		o.stored, o.err = at, err
		close(o.done)
	})
	return o
}

func sequences(f wire.PublishFrame) (all []uint64) {
	for _, p := range f.Publishes {
		all = append(all, p.Sequence)
	}
	return all
}

// The floor is the caller's: an outcome that is not on its disk may be asked for
// again.
func TestSequenced_FloorStaysUntilTheCallerRaisesIt(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		s := sequencedOn(t, c)
		defer s.Close()
		a := give(t, s, 1, false, "a")
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		if err := a.wait(); err != nil || a.stored.Offset != 1001 {
			t.Fatalf("told %+v", a)
		}
		for i, floor := range []uint64{1, 3} {
			sequence := uint64(2 + i)
			s.KeepFloor(floor)
			o := give(t, s, sequence, false, "b")
			r := n1.expect(wire.OpPublish)
			if f := r.publish(); f.Floor != floor || f.Publishes[0].Sequence != sequence {
				t.Fatalf("frame %+v, want floor %d", f, floor)
			}
			r.results(wire.StatusOK)
			if err := o.wait(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What waits beyond the window goes out when the caller has raised the floor.
func TestSequenced_BeyondTheWindow_WaitsForTheFloor(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		s := sequencedOn(t, c)
		defer s.Close()
		a := give(t, s, 1, true, "a")
		b := give(t, s, 1+2*65_536, false, "b")
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		if err := a.wait(); err != nil {
			t.Fatal(err)
		}
		n1.quiet()
		s.KeepFloor(1 + 2*65_536)
		r := n1.expect(wire.OpPublish)
		if f := r.publish(); f.Floor != 1+2*65_536 || f.Publishes[0].After != 0 {
			t.Fatalf("frame %+v", f)
		}
		r.results(wire.StatusOK)
		if err := b.wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// A full queue is tried with its head alone, under the same sequence, and nothing
// behind it is refused.
func TestSequenced_QueueFull_IsTriedAgainWithTheHead(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		s := sequencedOn(t, c)
		defer s.Close()
		a := give(t, s, 1, false, "a")
		r := n1.expect(wire.OpPublish)
		b := give(t, s, 2, false, "b")
		second := n1.expect(wire.OpPublish)
		d := give(t, s, 3, false, "d")
		third := n1.expect(wire.OpPublish)
		r.results(wire.StatusQueueFull)
		second.results(wire.StatusOutOfOrder)
		third.results(wire.StatusOutOfOrder)
		for range 4 {
			r = n1.expect(wire.OpPublish)
			if got := sequences(r.publish()); !slices.Equal(got, []uint64{1}) {
				t.Fatalf("sequences %v", got)
			}
			r.results(wire.StatusQueueFull)
		}
		n1.expect(wire.OpPublish).results(wire.StatusOK)
		r = n1.expect(wire.OpPublish)
		if got := sequences(r.publish()); !slices.Equal(got, []uint64{2, 3}) {
			t.Fatalf("sequences %v", got)
		}
		r.results(wire.StatusOK)
		for _, o := range []*told{a, b, d} {
			if err := o.wait(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A copy of an earlier process may be on its way: no refusal of this one's copy is
// an outcome before the seal.
func TestSequenced_RefusedForGood_ResentIsSealedFirst(t *testing.T) {
	for _, stored := range []bool{false, true} {
		bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
			n1 := n.order[0]
			s := sequencedOn(t, c)
			defer s.Close()
			a := give(t, s, 1, true, "a")
			n1.expect(wire.OpPublish).results(wire.StatusTooLarge)
			res := wire.PublishResult{Sequence: 1, Status: wire.StatusSealed}
			if stored {
				res = wire.PublishResult{Sequence: 1, Status: wire.StatusOK, Queue: 7, Offset: 5, Count: 1}
			}
			n1.expect(wire.OpSeal).reply(wire.SealReply{Status: wire.StatusOK, Outcomes: []wire.PublishResult{res}})
			err := a.wait()
			if stored && (err != nil || a.stored.Offset != 5) || !stored && (!errors.Is(err, ErrTooLarge) || errors.Is(err, ErrOutcomeUnknown)) {
				t.Fatalf("stored %v: %+v", stored, a)
			}
		})
	}
}

func TestSequenced_BelowFloor_IsNoConfirmation(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		s := sequencedOn(t, c)
		defer s.Close()
		a := give(t, s, 1, true, "a")
		n.order[0].expect(wire.OpPublish).results(wire.StatusBelowFloor)
		if err := a.wait(); !errors.Is(err, ErrOutcomeUnknown) {
			t.Fatalf("told %v", err)
		}
	})
}

// With its session a sequenced producer ends: what may have left it is unknown, what
// did not is known not to be stored.
func TestSequenced_SessionExpired_EndsWithAllItHas(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		s := sequencedOn(t, c)
		var maybe []*told
		var frames []*fakeRequest
		next := uint64(1)
		for ; next <= eagerFrames; next++ {
			maybe = append(maybe, give(t, s, next, false, "sent"))
			frames = append(frames, n1.expect(wire.OpPublish))
		}
		waits := give(t, s, next, false, "waits")
		maybe = append(maybe, give(t, s, next+1, true, "resent"))
		for _, r := range frames {
			r.results(wire.StatusSessionExpired)
		}
		for _, o := range maybe {
			if err := o.wait(); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrSessionExpired) {
				t.Errorf("may have left: %v", err)
			}
		}
		if err := waits.wait(); errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrSessionExpired) {
			t.Errorf("has never left: %v", err)
		}
		<-s.Ended()
		if !errors.Is(s.Err(), ErrSessionExpired) {
			t.Errorf("ended with %v", s.Err())
		}
		late := give(t, s, next+2, false, "late")
		if err := late.wait(); errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrSessionExpired) {
			t.Errorf("after the end: %v", err)
		}
		s.Close()
		n1.quiet()
	})
}

func TestSequenced_Close_SealsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		s := sequencedOn(t, c)
		a := give(t, s, 1, false, "a")
		n1.expect(wire.OpPublish)
		s.Close()
		if err := a.wait(); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrClosed) {
			t.Errorf("told %v", err)
		}
		n1.quiet()
	})
}

func TestSequenced_Open_NoLeader_EndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		n1.manual(wire.OpOpenSession)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := sequenced.Open(ctx, c, "orders", "svc")
			ended <- err
		}()
		n1.expect(wire.OpOpenSession)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
	})
}

func TestSequenced_Decode_IsWhatWasEncoded(t *testing.T) {
	m := Message{Body: []byte("b"), BizID: "biz", Headers: []Header{{Name: "n", Value: "v"}}, OrderingKey: "k"}
	p, err := sequenced.Encode("orders", []Message{m, body("second")}, 1<<20)
	if err != nil || p.Count != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	out, err := sequenced.Decode(p.Encoded)
	ms, _ := out.([]Message)
	if err != nil || len(ms) != 2 || ms[0].BizID != "biz" || ms[0].Headers[0].Value != "v" || ms[0].OrderingKey != "k" || string(ms[1].Body) != "second" {
		t.Fatalf("%+v, %v", out, err)
	}
	for cut := range p.Encoded {
		if _, err := sequenced.Decode(p.Encoded[:cut]); err == nil {
			t.Errorf("cut at %d: no error", cut)
		}
	}
}
