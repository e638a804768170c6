package sim

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"onceq/client"
	"onceq/cluster"
	"onceq/fsm"
	"onceq/jepsen/raw"
	"onceq/transport/wire"
)

// pass lets cluster time go on by d, at whoever leads.
func (w *World) pass(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for {
		err := w.Leader().Advance(ctx, d)
		if err == nil {
			return
		}
		if !errors.Is(err, cluster.ErrNotLeading) {
			w.T.Fatal(err)
		}
	}
}

// TestSession_IdleForTooLong_LateCopiesAreRefusedByEveryLeader: what its producer has a
// receipt for is sent once more, days later, and to the next leader too.
func TestSession_IdleForTooLong_LateCopiesAreRefusedByEveryLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(t, 3)
		defer w.Close()
		c := w.Dial("producer")
		defer c.Close()
		ctx := context.Background()
		if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
			t.Fatal(err)
		}
		p, err := c.NewProducer("orders")
		if err != nil {
			t.Fatal(err)
		}
		stored, err := p.Publish(ctx, client.Message{Body: []byte("order")})
		if err != nil {
			t.Fatal(err)
		}
		messages := []wire.Message{{Body: []byte("order")}}
		frame := wire.PublishFrame{
			Incarnation: stored.ID.Session.Incarnation, Group: stored.ID.Session.Group, Session: stored.ID.Session.Number, Epoch: 1, Floor: 1, Queue: "orders",
			Publishes: []wire.Publish{{Sequence: stored.ID.Sequence, Checksum: wire.PublishChecksum("orders", messages), Messages: messages}},
		}
		expect := func(when string, to *Node, want wire.Status) {
			t.Helper()
			line, err := raw.Dial(ctx, w.Net.Dialer("late"), to.Host+":7450", "late", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer line.Close()
			payload, err := line.Call(ctx, wire.OpPublish, frame)
			if err != nil {
				t.Fatal(err)
			}
			reply, err := wire.DecodePublishReply(payload)
			if err != nil || len(reply.Results) != 1 || reply.Results[0].Status != want || want == wire.StatusOK && !reply.Results[0].Duplicate {
				t.Errorf("%s: %+v, %v, want %v", when, reply.Results, err, want)
			}
		}
		first := w.Leader()
		w.pass(fsm.SessionExpiry - time.Hour)
		expect("before its session ends", first, wire.StatusOK) // and it was active now
		w.pass(fsm.SessionExpiry - time.Hour)
		expect("after it was active in between", first, wire.StatusOK)
		w.pass(fsm.SessionExpiry + time.Hour)
		expect("after its session has ended", first, wire.StatusSessionExpired)
		w.Kill(first)
		expect("at the next leader", w.Leader(), wire.StatusSessionExpired)
		if q, err := c.Admin().Queue(ctx, "orders"); err != nil || q.Counts.Stored != 1 {
			t.Errorf("%d messages are stored, %v", q.Counts.Stored, err)
		}
	})
}
