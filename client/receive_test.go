package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// pull is a Receive call under way.
type pull struct {
	t      *testing.T
	result chan pulled
}

type pulled struct {
	ds  []*Delivery
	err error
}

func receive(ctx context.Context, t *testing.T, c *Client, n int, opts ...ReceiveOption) *pull {
	p := &pull{t, make(chan pulled, 1)}
	go func() {
		ds, err := c.Receive(ctx, "orders", n, opts...)
		p.result <- pulled{ds, err}
	}()
	return p
}

// got expects messages.
func (p *pull) got(texts ...string) []*Delivery {
	p.t.Helper()
	r := <-p.result
	if r.err != nil || len(r.ds) != len(texts) {
		p.t.Fatalf("received %d messages, error %v, expected %q", len(r.ds), r.err, texts)
	}
	for i, d := range r.ds {
		if string(d.Body()) != texts[i] {
			p.t.Errorf("received %q as number %d, expected %q", d.Body(), i, texts[i])
		}
	}
	return r.ds
}

// pushes pushes messages for a receive, without the answer.
func (r *fakeRequest) pushes(first uint64, bodies ...string) {
	r.t.Helper()
	m := wire.Deliver{Consumer: decoded(r, wire.DecodeReceive).Consumer}
	for i, b := range bodies {
		var w pack.Writer
		wire.Message{Body: []byte(b)}.Append(&w)
		m.Deliveries = append(m.Deliveries, wire.Delivery{
			Number: first + uint64(i), Queue: 7, Offset: 100 + first + uint64(i), Attempt: 1, Remaining: fakeLease, Message: w.Take(),
		})
	}
	r.conn.push(wire.OpDeliver, m)
}

func (r *fakeRequest) received(st wire.Status, next uint64) {
	r.reply(wire.Received{Status: st, QueueNumber: 7, LeaseTime: fakeLease, Next: next})
}

// asks expects a receive with its numbers and returns it.
func (node *fakeNode) asks(first, done uint64) (*fakeRequest, wire.Receive) {
	node.net.t.Helper()
	r := node.expect(wire.OpReceive)
	m := decoded(r, wire.DecodeReceive)
	if m.First != first || m.Done != done {
		node.net.t.Fatalf("receive of first %d, done %d, expected %d and %d", m.First, m.Done, first, done)
	}
	return r, m
}

func TestReceive_SettledAndAskedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := receive(t.Context(), t, c, 2)
		r, m := n1.asks(1, 1)
		if m.Queue != "orders" || m.Limit != 2 || m.Wait != wire.ReceiveWaitMax {
			t.Errorf("asked for %+v", m)
		}
		r.pushes(1, "a")
		r.pushes(2, "b")
		r.received(wire.StatusOK, 3)
		ds := p.got("a", "b")

		// b is acked, a not yet: done stays at 1.
		go func() { _ = ds[1].Ack(t.Context()) }()
		n1.expect(wire.OpSettle).allSettled()
		p = receive(t.Context(), t, c, 1)
		r, again := n1.asks(3, 1)
		if again.Consumer != m.Consumer {
			t.Error("another puller asks, although the first is free")
		}
		r.pushes(3, "c")
		r.received(wire.StatusOK, 4)
		p.got("c")

		acked := make(chan error, 1)
		go func() { acked <- ds[0].Ack(t.Context()) }()
		s := n1.expect(wire.OpSettle)
		if got := s.settle(); got.Consumer != m.Consumer || got.Items[0].From != 1 {
			t.Errorf("settle %+v", got)
		}
		s.allSettled()
		if err := <-acked; err != nil {
			t.Error(err)
		}
		_ = receive(t.Context(), t, c, 1)
		n1.asks(4, 3)
	})
}

func TestReceive_ReplyLost_AsksAgainForTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := receive(t.Context(), t, c, 3)
		r, m := n1.asks(1, 1)
		r.pushes(1, "a", "b")
		n1.cut()
		r, again := n1.asks(1, 1)
		if again.Consumer != m.Consumer {
			t.Error("asked again under another name")
		}
		r.pushes(1, "a", "b", "c")
		r.received(wire.StatusOK, 4)
		p.got("a", "b", "c")
	})
}

func TestReceive_AnotherLeader_IsAskedTheSame(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		p := receive(t.Context(), t, c, 1)
		r, m := n.order[0].asks(1, 1)
		n.lead(2, "n2", true)
		r.fail(wire.CodeNotLeader, "n2:7450")
		r, again := n.order[1].asks(1, 1)
		if again.Consumer != m.Consumer {
			t.Error("asked again under another name")
		}
		r.pushes(1, "a")
		r.received(wire.StatusOK, 2)
		p.got("a")
	}, "n1", "n2")
}

func TestReceive_Stale_GoesOnWithTheNumberItIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := receive(t.Context(), t, c, 3)
		r, _ := n1.asks(1, 1)
		r.pushes(1, "a") // half of it came
		n1.cut()
		r, _ = n1.asks(1, 1)
		r.received(wire.StatusStale, 4) // and all of it has run out since
		r, _ = n1.asks(4, 4)
		r.pushes(4, "b")
		r.received(wire.StatusOK, 5)
		p.got("b")
	})
}

func TestReceive_ConsumerGone_BeginsAnew(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := receive(t.Context(), t, c, 1)
		r, m := n1.asks(1, 1)
		r.pushes(1, "a")
		r.received(wire.StatusOK, 2)
		held := p.got("a")[0]
		p = receive(t.Context(), t, c, 1)
		r, _ = n1.asks(2, 1)
		r.received(wire.StatusConsumerGone, 0)
		r, again := n1.asks(1, 1)
		if again.Consumer == m.Consumer {
			t.Error("goes on under a name that is not known any more")
		}
		r.pushes(1, "b")
		r.received(wire.StatusOK, 2)
		p.got("b")
		if err := held.Ack(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Errorf("ack of what went with the puller: %v", err)
		}
	})
}

func TestReceive_WaitIsOver_NoneAndNoError(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := receive(t.Context(), t, c, 1, WithWait(90*time.Second))
		r, _ := n1.asks(1, 1)
		time.Sleep(wire.ReceiveWaitMax)
		r.received(wire.StatusOK, 1)
		r, m := n1.asks(1, 1)
		if m.Wait != 30*time.Second {
			t.Errorf("waits %v more, expected 30s", m.Wait)
		}
		time.Sleep(m.Wait)
		r.received(wire.StatusOK, 1)
		p.got()

		p = receive(t.Context(), t, c, 1, WithWait(0))
		r, m = n1.asks(1, 1)
		if m.Wait != 0 {
			t.Errorf("waits %v, expected not at all", m.Wait)
		}
		r.received(wire.StatusOK, 1)
		p.got()
	})
}

func TestReceive_ContextEnds_GivesBackWhatItMayHaveTaken(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		ctx, cancel := context.WithCancel(t.Context())
		p := receive(ctx, t, c, 1)
		r, m := n1.asks(1, 1)
		cancel()
		if got := <-p.result; !errors.Is(got.err, context.Canceled) {
			t.Errorf("receive: %v", got.err)
		}
		release := n1.expect(wire.OpRelease)
		if l := decoded(release, wire.DecodeRelease); l.Consumer != m.Consumer || l.First != 1 || l.Queue != "orders" {
			t.Errorf("released %+v", l)
		}
		// What came all the same is nobody's.
		r.pushes(1, "a")
		r.received(wire.StatusOK, 2)
		release.received(wire.StatusOK, 2)
		synctest.Wait()
		p = receive(t.Context(), t, c, 1)
		r, again := n1.asks(2, 2)
		if again.Consumer != m.Consumer {
			t.Error("the puller is not used again")
		}
		r.pushes(2, "b")
		r.received(wire.StatusOK, 3)
		p.got("b")
	})
}

func TestReceive_NoAnswerToTheRelease_ThePullerIsNotUsedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		ctx, cancel := context.WithCancel(t.Context())
		p := receive(ctx, t, c, 1)
		_, m := n1.asks(1, 1)
		cancel()
		<-p.result
		n1.expect(wire.OpRelease)
		time.Sleep(drainTimeout)
		_ = receive(t.Context(), t, c, 1)
		if _, again := n1.asks(1, 1); again.Consumer == m.Consumer {
			t.Error("goes on with a number that may be used up")
		}
	})
}

// Nobody is handed what comes then, and nobody settles it.
func TestReceive_NoAnswerToTheRelease_CarriedOutLate_ThePullerEnds(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		ctx, cancel := context.WithCancel(t.Context())
		p := receive(ctx, t, c, 1)
		r, _ := n1.asks(1, 1)
		cancel()
		<-p.result
		n1.expect(wire.OpRelease)
		time.Sleep(drainTimeout + time.Second)
		r.pushes(1, "a")
		r.received(wire.StatusOK, 2)
		s := n1.expect(wire.OpSettle)
		if it := s.settle().Items; len(it) != 1 || it[0].Verb != wire.VerbExtend || it[0].Time != atOnce {
			t.Errorf("asked with %+v", it)
		}
		s.states(state(1, 1, wire.LeaseExpired))
		time.Sleep(3 * pullerLook)
		c.mu.Lock()
		defer c.mu.Unlock()
		if left := len(c.consumers); left > 0 {
			t.Errorf("%d pullers are left", left)
		}
	})
}

func TestReceive_NeverSettled_IsAskedAfterWhenItsLeaseIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := receive(t.Context(), t, c, 1)
		r, _ := n1.asks(1, 1)
		r.pushes(1, "a")
		r.received(wire.StatusOK, 2)
		d := p.got("a")[0]
		time.Sleep(2 * fakeLease)
		s := n1.expect(wire.OpSettle)
		if it := s.settle().Items[0]; it.Verb != wire.VerbExtend || it.Time != atOnce {
			t.Errorf("asked with %+v", it)
		}
		s.states(state(1, 1, wire.LeaseExpired))
		synctest.Wait()
		_ = receive(t.Context(), t, c, 1)
		n1.asks(2, 2) // it has its answer, so it is not open any more
		if err := d.Ack(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Errorf("ack: %v", err)
		}
	})
}

func TestReceive_RefusedForGood(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		for st, want := range map[wire.Status]error{wire.StatusNoQueue: ErrNoQueue, wire.StatusWindowFull: &Error{Code: wire.CodeWindowFull}} {
			p := receive(t.Context(), t, c, 1)
			r, _ := n.order[0].asks(1, 1)
			r.received(st, 1)
			if got := <-p.result; !errors.Is(got.err, want) {
				t.Errorf("%v: %v", st, got.err)
			}
		}
		for _, k := range []int{0, wire.ReceiveMax + 1} {
			if _, err := c.Receive(t.Context(), "orders", k); err == nil {
				t.Errorf("%d messages at once are accepted", k)
			}
		}
		if _, err := c.Receive(t.Context(), "no/name", 1); !errors.Is(err, ErrBadName) {
			t.Errorf("bad name: %v", err)
		}
	})
}

// TestChaos_Receive is three receivers under the faults of TestChaos, who give up
// now and then. Each message is acked once, and no lease runs out: no late copy has
// leased anything for nobody.
func TestChaos_Receive(t *testing.T) { chaosSeeds(t, chaosReceive) }

func chaosReceive(t *testing.T, seed int64) {
	n := newFakeNet(t, "n1", "n2", "n3")
	w := newWorld(t, n, seed)
	t.Cleanup(n.stop)
	t.Cleanup(w.close)
	c, err := Dial(t.Context(), n.url(), WithDialer(n.dial), WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Admin().CreateQueue(t.Context(), "orders", QueueSettings{LeaseTime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	quiet := make(chan struct{})
	var faults, work sync.WaitGroup
	faults.Go(func() {
		rng := rand.New(rand.NewSource(seed))
		for {
			select {
			case <-time.After(time.Duration(rng.Intn(int(900 * time.Millisecond)))):
			case <-quiet:
				return
			}
			if rng.Intn(2) == 0 {
				n.order[rng.Intn(3)].cut()
			} else {
				w.lead(rng.Intn(3))
			}
		}
	})
	work.Go(func() {
		p := producer(t, c)
		for k := range chaosMessages {
			if _, err := p.Publish(t.Context(), body(fmt.Sprint(k))); err != nil {
				t.Errorf("publish %d: %v", k, err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	var mu sync.Mutex
	acked := map[string]int{}
	finished := make(chan struct{})
	for i := range 3 {
		rng := rand.New(rand.NewSource(seed*100 + int64(i)))
		work.Go(func() {
			for {
				select {
				case <-finished:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.Intn(int(300*time.Millisecond))))
				ds, _ := c.Receive(ctx, "orders", 1+rng.Intn(20))
				cancel()
				rng.Shuffle(len(ds), func(a, b int) { ds[a], ds[b] = ds[b], ds[a] })
				for _, d := range ds {
					if rng.Intn(20) == 0 {
						_ = d.Nack(t.Context(), nil)
						continue
					}
					if err := d.Ack(t.Context()); err != nil {
						t.Errorf("ack of %s: %v", d.Body(), err)
						continue
					}
					mu.Lock()
					acked[string(d.Body())]++
					if len(acked) == chaosMessages {
						select {
						case <-finished:
						default:
							close(finished)
						}
					}
					mu.Unlock()
				}
			}
		})
	}
	work.Wait()
	close(quiet)
	faults.Wait()
	w.settleDown()
	for text, times := range acked {
		if times != 1 {
			t.Errorf("%s was acked %d times", text, times)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	info, _ := w.machine.QueueByName("orders")
	if k := info.Counts; k.Acked != chaosMessages || k.RedeliveredExpired != 0 || k.RedeliveredGone != 0 {
		t.Errorf("counts %+v", k)
	}
}

// What came before a receive was refused goes back: an error comes without messages.
func TestReceive_RefusedBehindItsMessages_HandsOverNone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		p := receive(t.Context(), t, c, 1)
		r, _ := n1.asks(1, 1)
		r.pushes(1, "a")
		r.received(wire.StatusNoQueue, 1)
		if got := <-p.result; got.err == nil || len(got.ds) > 0 {
			t.Errorf("%d messages, error %v", len(got.ds), got.err)
		}
	}, "n1")
}
