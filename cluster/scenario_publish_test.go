package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"onceq/client"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// once judges the first frame of an op by v and lets everything else pass. It
// returns a channel that receives the frame.
func once(op wire.Op, v clustertest.Verdict) (func(f wire.Frame) clustertest.Verdict, <-chan wire.Frame) {
	seen := make(chan wire.Frame, 1)
	var done atomic.Bool
	return func(f wire.Frame) clustertest.Verdict {
		if f.Op != op || done.Swap(true) {
			return clustertest.Pass
		}
		seen <- f
		return v
	}, seen
}

func await[A any](t *testing.T, what string, ch <-chan A) (a A) {
	t.Helper()
	bound := time.NewTimer(clustertest.Bound)
	defer bound.Stop()
	select {
	case a = <-ch:
	case <-bound.C:
		t.Fatalf("waited %v for %s", clustertest.Bound, what)
	}
	return a
}

// TestPublish_ReplyLost_RetriedOnAnotherConnection_IsStoredOnce: the answer and
// the connection are lost after the message was stored. The client sends the
// same sequence again over a new connection and gets the recorded result.
func TestPublish_ReplyLost_RetriedOnAnotherConnection_IsStoredOnce(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	proxy := clustertest.NewProxy(t)
	cl := connect(t, c, client.WithDialer(proxy.Dial))
	rule, lost := once(wire.OpPublish, clustertest.Cut)
	proxy.OnAnswer(rule)

	r, err := producerOf(t, cl, "orders").Publish(bounded(t), client.Message{Body: []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	first := must(wire.DecodePublishReply(await(t, "the lost answer", lost).Payload))(t)
	if len(first.Results) != 1 || first.Results[0].Status != wire.StatusOK || first.Results[0].Duplicate {
		t.Fatalf("the lost answer was %+v", first)
	}
	if !r.Duplicate || r.Attempts < 2 || r.Message.Offset != first.Results[0].Offset {
		t.Fatalf("receipt %+v, the lost answer was %+v", r, first.Results[0])
	}
	if cl.Stats().Connects < 2 {
		t.Fatal("the retry did not take another connection")
	}
	wantCounts(t, c, "orders", onceOf(r))
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// onceOf: it is stored once, and every other copy that came was answered from the
// record. How many the client sends hangs on how long it hears nothing.
func onceOf(r client.Receipt) func(k wire.QueueCounts) bool {
	return func(k wire.QueueCounts) bool {
		return k.Stored == 1 && k.DuplicatesRefused >= 1 && k.DuplicatesRefused < uint64(r.Attempts)
	}
}

// TestPublish_ReplyLost_LeaderKilled_IsStoredOnce: the same, but who stored it
// is dead, and the retry is judged by the next leader's copy of the table.
// Whether the dying node still says why it closes makes no difference.
func TestPublish_ReplyLost_LeaderKilled_IsStoredOnce(t *testing.T) {
	t.Parallel()
	for _, farewell := range []bool{false, true} {
		t.Run(fmt.Sprint("farewell_", farewell), func(t *testing.T) {
			t.Parallel()
			c := clustertest.New(t, 3, clustertest.Steady) // who dies is who owes the answer
			leader := c.WaitLeader()
			createQueue(t, c, "orders", wire.QueueSettings{})
			proxy := clustertest.NewProxy(t)
			cl := connect(t, c, client.WithDialer(proxy.Dial))
			rule, lost := once(wire.OpPublish, clustertest.Drop)
			proxy.OnAnswer(func(f wire.Frame) clustertest.Verdict {
				if f.Op == wire.OpError && f.Corr == 0 && !farewell {
					return clustertest.Drop
				}
				return rule(f)
			})

			f := producerOf(t, cl, "orders").PublishAsync(bounded(t), client.Message{Body: []byte("a")})
			first := must(wire.DecodePublishReply(await(t, "the lost answer", lost).Payload))(t)
			select {
			case <-f.Done():
				t.Fatal("answered although the answer was lost")
			default:
			}
			c.Kill(leader)
			r, err := f.Wait(bounded(t))
			if err != nil {
				t.Fatal(err)
			}
			if !r.Duplicate || r.Attempts < 2 || r.Message.Offset != first.Results[0].Offset {
				t.Fatalf("receipt %+v, the lost answer was %+v", r, first.Results[0])
			}
			wantCounts(t, c, "orders", onceOf(r))
			c.Restart(leader)
			c.WaitCaughtUp()
			c.DigestsAgree()
		})
	}
}

// TestPublish_Cancelled_LateCopyAfterItsSeal_IsNeverStored: a publish whose only
// copy is stuck on its way is cancelled. The client seals it behind the caller's
// back; the copy arrives after that, at this leader and at the next one, and is
// refused for good.
func TestPublish_Cancelled_LateCopyAfterItsSeal_IsNeverStored(t *testing.T) {
	t.Parallel()
	c := clustertest.New(t, 3)
	leader := c.WaitLeader()
	createQueue(t, c, "orders", wire.QueueSettings{})
	proxy := clustertest.NewProxy(t)
	cl, other := connect(t, c, client.WithDialer(proxy.Dial)), connect(t, c)
	rule, stuck := once(wire.OpPublish, clustertest.Cut)
	p := producerOf(t, cl, "orders")

	ctx, cancel := context.WithCancel(bounded(t))
	// What the client sends again must not arrive before the seal either.
	var sealed atomic.Bool
	proxy.OnRequest(func(f wire.Frame) clustertest.Verdict {
		if v := rule(f); v != clustertest.Pass {
			cancel()
			return v
		}
		if f.Op == wire.OpPublish && !sealed.Load() {
			return clustertest.Cut
		}
		return clustertest.Pass
	})
	_, err := p.Publish(ctx, client.Message{Body: []byte("a")})
	var unknown *client.OutcomeUnknownError
	if !errors.As(err, &unknown) || !errors.Is(err, context.Canceled) {
		t.Fatalf("publish: %v", err)
	}
	copyOfIt := await(t, "the copy", stuck)
	// Another client knows nothing but what the cluster tells.
	clustertest.Eventually(t, func() string {
		o, err := other.Outcome(bounded(t), unknown.ID)
		if err != nil {
			t.Fatal(err)
		}
		if o.State != client.Never {
			return fmt.Sprintf("outcome %v", o.State)
		}
		return ""
	})
	sealed.Store(true)
	if r := lateCopy(t, c, copyOfIt.Payload); r.Status != wire.StatusSealed {
		t.Fatalf("late copy: %+v", r)
	}
	c.Kill(leader)
	if r := lateCopy(t, c, copyOfIt.Payload); r.Status != wire.StatusSealed {
		t.Fatalf("late copy at the next leader: %+v", r)
	}
	// The producer goes on; its floor passes the sealed sequence, whose copies are
	// still refused, and whose fate the client that published it still knows.
	if _, err := p.Publish(bounded(t), client.Message{Body: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if r := lateCopy(t, c, copyOfIt.Payload); r.Status != wire.StatusBelowFloor {
		t.Fatalf("late copy below the floor: %+v", r)
	}
	if o, err := cl.Outcome(bounded(t), unknown.ID); err != nil || o.State != client.Never {
		t.Fatalf("outcome: %+v, %v", o, err)
	}
	if o, err := other.Outcome(bounded(t), unknown.ID); err != nil || o.State != client.Unknown {
		t.Fatalf("outcome below the floor, as another client sees it: %+v, %v", o, err)
	}
	wantCounts(t, c, "orders", func(k wire.QueueCounts) bool { return k.Stored == 1 })
	c.Restart(leader)
	c.WaitCaughtUp()
	c.DigestsAgree()
}

// TestPublish_FullOnOneCopyUnknownOnAnother_IsNotFailedBeforeItsSeal: one copy is
// stuck on its way, the next is refused as full. "Failed" would be a lie if the
// first were stored later, so the client seals before it says so.
func TestPublish_FullOnOneCopyUnknownOnAnother_IsNotFailedBeforeItsSeal(t *testing.T) {
	t.Parallel()
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprint("stored_", stored), func(t *testing.T) {
			t.Parallel()
			c := clustertest.New(t, 3, clustertest.Steady)
			c.WaitLeader()
			createQueue(t, c, "small", wire.QueueSettings{LengthMax: 1})
			full := connect(t, c)
			if _, err := producerOf(t, full, "small").Publish(bounded(t), client.Message{Body: []byte("in the way")}); err != nil {
				t.Fatal(err)
			}
			consumer := dial(t, c.WaitLeader())
			id := clustertest.NewConsumer()
			must(consumer.Attach(id, 1, "small", 1, 1))(t)
			makeRoom := func() {
				if a := must(consumer.Ack(id, 1, 1, 1))(t); a.Status != wire.StatusOK || a.Results[0].State != wire.LeaseAcked {
					t.Fatalf("ack: %+v", a)
				}
			}

			proxy := clustertest.NewProxy(t)
			cl := connect(t, c, client.WithDialer(proxy.Dial))
			rule, stuck := once(wire.OpPublish, clustertest.Cut)
			sealing, goOn := make(chan struct{}, 16), make(chan struct{})
			proxy.OnRequest(func(f wire.Frame) clustertest.Verdict {
				if f.Op == wire.OpSeal {
					sealing <- struct{}{}
					<-goOn
				}
				return rule(f)
			})
			f := producerOf(t, cl, "small").PublishAsync(bounded(t), client.Message{Body: []byte("a")})
			await(t, "the seal", sealing)
			select {
			case <-f.Done():
				_, err := f.Wait(bounded(t))
				t.Fatalf("answered before the seal: %v", err)
			default:
			}
			payload := await(t, "the copy", stuck).Payload
			if stored {
				// The stuck copy arrives before the seal does, and there is room.
				makeRoom()
				if r := lateCopy(t, c, payload); r.Status != wire.StatusOK || r.Duplicate {
					t.Fatalf("the stuck copy: %+v", r)
				}
			}
			close(goOn)
			r, err := f.Wait(bounded(t))
			if stored {
				if err != nil {
					t.Fatalf("stored, and reported as %v", err)
				}
				if r.Message.Offset != 1 {
					t.Fatalf("receipt %+v", r)
				}
				wantCounts(t, c, "small", func(k wire.QueueCounts) bool { return k.Stored == 2 })
			} else {
				if !errors.Is(err, client.ErrQueueFull) {
					t.Fatalf("publish: %+v, %v", r, err)
				}
				// There is room when the stuck copy arrives, and it is refused all the same.
				makeRoom()
				if r := lateCopy(t, c, payload); r.Status != wire.StatusSealed {
					t.Fatalf("the stuck copy: %+v", r)
				}
				wantCounts(t, c, "small", func(k wire.QueueCounts) bool { return k.Stored == 1 })
			}
			c.WaitCaughtUp()
			c.DigestsAgree()
		})
	}
}
