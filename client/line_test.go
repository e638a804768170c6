package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

const largeBody = 900 << 10

// joinsLarge hands out so many messages and calls AckAndPublish with a large body for
// one after the other, the last one with ctx.
func joinsLarge(t *testing.T, n *fakeNet, c *Client, count int, ctx context.Context) (e *eater, calls []*call, results []chan joined) {
	t.Helper()
	n1 := n.order[0]
	e = eat(t, c, WithConcurrency(count))
	r := n1.expect(wire.OpAttach)
	attached(r, 1)
	r.deliver(1, strings.Split(strings.Repeat("x", count), "")...)
	large := Outgoing{"b", Message{Body: make([]byte, largeBody)}}
	for i := range count {
		k, result, of := e.next("x"), make(chan joined, 1), t.Context()
		if i == count-1 {
			of = ctx
		}
		go func() {
			rs, err := c.AckAndPublish(of, k.d, large)
			result <- joined{rs, err}
		}()
		synctest.Wait()
		calls, results = append(calls, k), append(results, result)
	}
	return e, calls, results
}

func (n *fakeNode) waiting() int {
	synctest.Wait()
	return len(n.requests)
}

func (r *fakeRequest) largeStored() {
	r.reply(wire.PublishReply{Results: []wire.PublishResult{{Sequence: r.join().Sequence, Status: wire.StatusOK,
		Outputs: []wire.Position{{Queue: 8, Offset: 70, Count: 1}}}}})
}

// A server ends a connection on which more bytes of requests have no answer than it
// takes, and all that was under way on it with it.
func TestAckAndPublish_MoreLargeOnesThanAServerTakes_WaitInLine(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		const count = 32
		n1 := n.order[0]
		connects := c.Stats().Connects
		ctx, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		e, calls, results := joinsLarge(t, n, c, count, ctx)
		sent := n1.waiting()
		if sent < 10 || sent == count {
			t.Fatalf("%d of %d are sent at once", sent, count)
		}

		// Others do not wait behind them.
		n1.answer(wire.OpPublish, func(r *fakeRequest) { r.results(wire.StatusOK) })
		published(t, producer(t, c).PublishAsync(t.Context(), body("small")))
		n1.answer(wire.OpQueueList, func(r *fakeRequest) { r.reply(wire.QueuesReply{}) })
		if _, err := c.Admin().Queues(t.Context()); err != nil {
			t.Fatal(err)
		}

		// Of one that was not sent it is known that nothing has happened.
		giveUp()
		if j := <-results[count-1]; !errors.Is(j.err, context.Canceled) || errors.Is(j.err, ErrOutcomeUnknown) {
			t.Fatalf("given up in line: %v", j.err)
		}

		// Each answer lets in the one that has waited longest.
		for i := range count - 1 {
			r := n1.expect(wire.OpAckPublish)
			if m := r.join(); m.Sequence != uint64(i+1) {
				t.Fatalf("sequence %d comes as number %d", m.Sequence, i+1)
			}
			r.largeStored()
			if j := <-results[i]; j.err != nil {
				t.Fatal(j.err)
			}
			if now := n1.waiting(); now != min(sent, count-2-i) {
				t.Fatalf("%d are sent after %d answers", now, i+1)
			}
		}
		if again := c.Stats().Connects - connects; again > 1 { // the one that consumes
			t.Errorf("%d connections were made", again)
		}
		n1.answer(wire.OpSettle, func(r *fakeRequest) { r.allSettled() })
		for _, k := range calls {
			k.end <- nil
		}
		e.drained(n1)
	})
}

func TestAckAndPublish_ConnectionEndsUnderTheLine_AllGoOverTheNext(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		const count = 32
		n1 := n.order[0]
		e, calls, results := joinsLarge(t, n, c, count, t.Context())
		n1.expect(wire.OpAckPublish).conn.cut()
		for n1.waiting() > 0 {
			<-n1.requests // their answers would go nowhere
		}
		n1.answer(wire.OpAckPublish, func(r *fakeRequest) { r.largeStored() })
		for _, result := range results {
			if j := <-result; j.err != nil {
				t.Fatal(j.err)
			}
		}
		for _, k := range calls {
			k.end <- nil
		}
		e.drained(n1)
	})
}

func TestAckAndPublish_BytesAreAtLeastThoseOfTheRequest(t *testing.T) {
	t.Parallel()
	most := wire.AckPublish{
		Incarnation: 1 << 63, Group: 1 << 31, Session: 1 << 63, Epoch: 1 << 63, Floor: 1 << 63, Sequence: 1 << 63, Checksum: 1 << 63,
		Number: 1 << 63, Done: 1 << 63,
	}
	long := strings.Repeat("x", wire.QueueNameBytesMax)
	for range wire.AckPublishQueuesMax {
		most.Outputs = append(most.Outputs, wire.Output{Queue: long, Messages: []wire.Message{{
			Body: make([]byte, 70_000), BizID: long + long, OrderingKey: long + long, Priority: 9,
			Headers: []wire.Header{{Name: long}, {Name: "n", Value: long + long}}, Delay: 1 << 62, DeliverAt: -1 << 62, TTL: 1 << 62,
		}, {}}})
	}
	for _, m := range []wire.AckPublish{most, {}, {Outputs: []wire.Output{{Queue: "b", Messages: make([]wire.Message, wire.MessagesMax)}}}} {
		j := &join{request: m, grouped: m.Outputs}
		if got, least := j.bytes(), len(encoded(m)); got < least {
			t.Errorf("%d bytes are said, %d taken", got, least)
		}
	}
}

// What keeps leases and the connection alive is small.
func TestConn_FullOfLargeRequests_SmallOnesPass(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n1 := n.order[0]
		cn, err := c.produce.ready(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		large := func(w *pack.Writer) { w.Bin(make([]byte, 2<<20)) } // settles with many reasons
		answers := 0
		send := func() error {
			return cn.send(wire.OpSettle, large, func(wire.Op, []byte, error) { answers++ })
		}
		sent := 0
		for ; err == nil && sent < 100; sent++ {
			err = send()
		}
		if !errors.Is(err, errBusy) {
			t.Fatalf("one more than %d: %v", sent-1, err)
		}
		for range requestsMax / 4 {
			if err := cn.send(wire.OpSettle, wire.Settle{}.Append, func(wire.Op, []byte, error) {}); err != nil {
				t.Fatalf("a small one: %v", err)
			}
		}
		time.Sleep(2 * silentTicksMax * listenInterval)
		if answers > 0 {
			t.Fatalf("the connection has ended: %v", cn.reason())
		}
		n1.expect(wire.OpSettle).reply(wire.SettleReply{})
		synctest.Wait()
		if err := send(); err != nil || answers != 1 {
			t.Errorf("after %d answers: %v", answers, err)
		}
	})
}

// There may be many goroutines with an ack-and-publish or a receive, and whoever waits in
// line for one of the former takes what becomes free: nothing else waits for them.
func TestConn_FullOfOneKindOfRequests_OthersPass(t *testing.T) {
	for _, full := range []wire.Op{wire.OpAckPublish, wire.OpReceive, wire.OpDigest} {
		t.Run(full.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
				n1 := n.order[0]
				n1.answer(full, func(*fakeRequest) {})
				n1.answer(wire.OpPublish, func(r *fakeRequest) { r.results(wire.StatusOK) })
				n1.answer(wire.OpQueueList, func(r *fakeRequest) { r.reply(wire.QueuesReply{}) })
				cn, err := c.produce.ready(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				p := producer(t, c)
				published(t, p.PublishAsync(t.Context(), body("its session is open")))
				for range requestsMax {
					if err := cn.send(full, nil, func(wire.Op, []byte, error) {}); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				waits := make(chan error, 1)
				if full == wire.OpAckPublish {
					go func() {
						_, err := cn.callInLine(ctx, full, 1, nil)
						waits <- err
					}()
					synctest.Wait() // it would take what becomes free
				}
				if _, err := p.Publish(ctx, body("a")); err != nil {
					t.Errorf("publish: %v", err)
				}
				if full != wire.OpDigest { // they are of one kind
					if _, err := c.Admin().Queues(ctx); err != nil {
						t.Errorf("queues: %v", err)
					}
				}
				if full == wire.OpAckPublish {
					cancel()
					if err := <-waits; !errors.Is(err, errUnsent) {
						t.Errorf("one more: %v", err)
					}
				}
			})
		})
	}
}
