package cluster

import (
	"fmt"
	"slices"
	"testing"

	"onceq/fsm"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// tapeConn keeps what is sent, in order; lazies are encoded when a test writes.
type tapeConn struct {
	nullConn
	queue []func() (wire.Op, []byte, bool)
	sent  []string
}

func (c *tapeConn) Push(op wire.Op, payload []byte) {
	c.queue = append(c.queue, func() (wire.Op, []byte, bool) { return op, payload, true })
}

func (c *tapeConn) PushLazy(op wire.Op, _ int, encode func(w *pack.Writer) bool) {
	c.queue = append(c.queue, func() (wire.Op, []byte, bool) {
		w := pack.NewWriter(nil)
		ok := encode(w)
		return op, w.Bytes(), ok
	})
}

// write plays the connection's writer until nothing is queued.
func (c *tapeConn) write(t *testing.T) {
	t.Helper()
	for len(c.queue) > 0 {
		next := c.queue[0]
		c.queue = c.queue[1:]
		op, payload, ok := next()
		if !ok {
			continue
		}
		switch op {
		case wire.OpDeliver:
			m, err := wire.DecodeDeliver(payload)
			if err != nil {
				t.Fatal(err)
			}
			var numbers []uint64
			for _, d := range m.Deliveries {
				numbers = append(numbers, d.Number)
			}
			c.sent = append(c.sent, fmt.Sprintf("deliver n=%d %v", m.N, numbers))
		case wire.OpLost:
			m, err := wire.DecodeLost(payload)
			if err != nil {
				t.Fatal(err)
			}
			c.sent = append(c.sent, fmt.Sprintf("lost n=%d gone=%v %v", m.N, m.Gone, m.Lost))
		}
	}
}

// fakeBodies has a message of a size for each offset, unless it is gone.
type fakeBodies struct {
	size int
	gone map[uint64]bool
	read int
}

func (b *fakeBodies) Get(_ uint64, _ uint8, offset uint64) (int64, []byte, bool) {
	b.read++
	return 7, make([]byte, b.size), !b.gone[offset]
}

var consumerA = fsm.ConsumerID{1}

func leases(n, from, to uint64) (ds []fsm.Delivery) {
	for i := from; i <= to; i++ {
		ds = append(ds, fsm.Delivery{Consumer: consumerA, N: n, Number: i, Offset: i, Attempt: 1})
	}
	return ds
}

type detachCall struct {
	n    uint64
	done func(outcome)
}

func hubTest(b *fakeBodies) (h *hub, detached *[]detachCall) {
	h = newHub(b, newClock(monotonic()))
	h.missing = func(*fsm.Delivery) (int64, []byte, bool) { return 0, nil, false } // its lease has ended
	detached = &[]detachCall{}
	h.detach = func(_ fsm.ConsumerID, n uint64, done func(outcome)) {
		*detached = append(*detached, detachCall{n, done})
	}
	h.start()
	return h, detached
}

func expect(t *testing.T, c *tapeConn, want ...string) {
	t.Helper()
	c.write(t)
	if !slices.Equal(c.sent, want) {
		t.Fatalf("sent %q, want %q", c.sent, want)
	}
}

func TestHub_DeliversOnlyToTheVeryAttachment(t *testing.T) {
	h, _ := hubTest(&fakeBodies{size: 10})
	c := &tapeConn{}
	h.connected(c)
	h.deliver(leases(1, 1, 1)) // not registered
	h.register(c, consumerA, 2)
	h.deliver(leases(1, 2, 2)) // of an older attachment
	h.deliver(leases(2, 3, 4))
	expect(t, c, "deliver n=2 [3 4]")
}

func TestHub_TellsWhatAMessageHasBehindIt(t *testing.T) {
	h, _ := hubTest(&fakeBodies{size: 10})
	c := &tapeConn{}
	h.connected(c)
	h.register(c, consumerA, 1)
	ds := leases(1, 1, 2)
	ds[0].Attempt, ds[0].Failures = 4, 3
	ds[1].Dead = &fsm.DeadLetter{Reason: "r", FirstError: "f", LastError: "l", OriginQueue: "o", OriginLane: 2, OriginOffset: 17, OriginAttempts: 5}
	h.deliver(ds)
	_, payload, _ := c.queue[0]()
	m, err := wire.DecodeDeliver(payload)
	if err != nil || len(m.Deliveries) != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	want := wire.DeadLetter{Reason: "r", FirstError: "f", LastError: "l", OriginQueue: "o", OriginLane: 2, OriginOffset: 17, OriginAttempts: 5}
	switch a, b := m.Deliveries[0], m.Deliveries[1]; {
	case a.Attempt != 4 || a.Failures != 3 || len(a.Dead) != 0:
		t.Errorf("first %+v", a)
	case b.Failures != 0 || len(b.Dead) != 1 || b.Dead[0] != want:
		t.Errorf("second %+v", b)
	}
}

func TestHub_ReadsBodiesWhenTheSocketTakesThem(t *testing.T) {
	b := &fakeBodies{size: deliverFrameBytes / 2, gone: map[uint64]bool{2: true}}
	h, _ := hubTest(b)
	c := &tapeConn{}
	h.connected(c)
	h.register(c, consumerA, 1)
	h.deliver(leases(1, 1, 3))
	h.deliver(leases(1, 4, 6))
	if b.read != 0 {
		t.Fatal("bodies are read before the socket takes them")
	}
	if len(c.queue) != 1 {
		t.Fatalf("%d frames are queued for one consumer", len(c.queue))
	}
	// The second is acked meanwhile; frames are bounded in bytes.
	expect(t, c, "deliver n=1 [1 3]", "deliver n=1 [4 5]", "deliver n=1 [6]")
}

// A body that is there when somebody looks again goes out in its place.
func TestHub_BodyFoundAtTheSecondLook_IsDelivered(t *testing.T) {
	h, _ := hubTest(&fakeBodies{size: 10, gone: map[uint64]bool{2: true, 3: true}})
	h.missing = func(d *fsm.Delivery) (int64, []byte, bool) { return 7, []byte("body"), d.Offset == 2 }
	c := &tapeConn{}
	h.connected(c)
	h.register(c, consumerA, 1)
	h.deliver(leases(1, 1, 4))
	expect(t, c, "deliver n=1 [1 2 4]")
}

func TestHub_WhatIsLostIsNotDeliveredAfterTheNotice(t *testing.T) {
	h, _ := hubTest(&fakeBodies{size: deliverFrameBytes})
	c := &tapeConn{}
	h.connected(c)
	h.register(c, consumerA, 1)
	h.deliver(leases(1, 1, 4))
	h.lost([]fsm.Loss{{Consumer: consumerA, N: 1, Lost: []fsm.DeliveryState{{From: 2, To: 3, State: fsm.LeaseExpired}}}})
	expect(t, c, "deliver n=1 [1]", "lost n=1 gone=false [{2 3 "+wire.LeaseExpired.String()+"}]", "deliver n=1 [4]")
}

func TestHub_AGoneConsumerIsToldAndForgotten(t *testing.T) {
	h, _ := hubTest(&fakeBodies{size: 10})
	c := &tapeConn{}
	h.connected(c)
	h.register(c, consumerA, 1)
	h.lost([]fsm.Loss{{Consumer: consumerA, N: 1, Gone: true}})
	h.deliver(leases(1, 1, 1))
	expect(t, c, "lost n=1 gone=true []")
}

func TestHub_ADroppedConnectionDetachesUntilItIsInTheLog(t *testing.T) {
	h, detached := hubTest(&fakeBodies{})
	c := &tapeConn{}
	h.connected(c)
	h.register(c, consumerA, 3)
	h.disconnected(c)
	if len(*detached) != 1 || (*detached)[0].n != 3 {
		t.Fatalf("proposed %+v", *detached)
	}
	(*detached)[0].done(outcome{Err: errOverloaded("settles")})
	h.proposeDetaches()
	if len(*detached) != 2 {
		t.Fatal("a detach that did not get into the log is not proposed again")
	}
	// While the leadership is handed over, which may fail: then the term goes on.
	(*detached)[1].done(outcome{Err: &wire.ErrorReply{Code: wire.CodeShuttingDown}})
	h.proposeDetaches()
	if len(*detached) != 3 {
		t.Fatal("a detach is forgotten that was refused for the hand-over")
	}
	(*detached)[2].done(outcome{Result: &fsm.Result{}})
	h.proposeDetaches()
	if len(*detached) != 3 {
		t.Fatal("proposed again after it was applied")
	}
}

// TestHub_AnOldConnectionsEndDoesNotDetachTheNewAttachment: a client reconnects
// before the server notices that the old connection is dead.
func TestHub_AnOldConnectionsEndDoesNotDetachTheNewAttachment(t *testing.T) {
	h, detached := hubTest(&fakeBodies{size: 10})
	a, b := &tapeConn{}, &tapeConn{}
	h.connected(a)
	h.connected(b)
	h.register(a, consumerA, 1)
	h.register(b, consumerA, 2)
	h.disconnected(a)
	if len(*detached) != 0 {
		t.Fatalf("proposed %+v", *detached)
	}
	h.deliver(leases(2, 1, 1))
	expect(t, b, "deliver n=2 [1]")
}

func TestHub_AnAttachThatOutlivesItsConnectionIsDetached(t *testing.T) {
	h, detached := hubTest(&fakeBodies{})
	c := &tapeConn{}
	h.connected(c)
	h.disconnected(c)
	h.register(c, consumerA, 1)
	if len(*detached) != 1 || (*detached)[0].n != 1 {
		t.Fatalf("proposed %+v", *detached)
	}
}

func TestHub_NothingIsHandedOutWithoutLeading(t *testing.T) {
	h, detached := hubTest(&fakeBodies{size: 10})
	c := &tapeConn{}
	h.connected(c)
	h.register(c, consumerA, 1)
	h.deliver(leases(1, 1, 1)) // queued, not written
	h.reset()
	h.deliver(leases(1, 2, 2))
	h.register(c, consumerA, 2)
	h.deliver(leases(2, 3, 3))
	expect(t, c)
	h.disconnected(c)
	if len(*detached) != 0 {
		t.Fatalf("a node that does not lead proposed %+v", *detached)
	}
}
