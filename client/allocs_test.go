package client

import (
	"sync"
	"testing"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// A publish costs its future, the channel that tells its end, and its encoded
// bytes. What is counted is handed in while no session is open yet.
func TestAllocs_PublishAsync(t *testing.T) {
	bubble(t, func(t *testing.T, n *fakeNet, c *Client) {
		n.order[0].manual(wire.OpOpenSession)
		p := producer(t, c)
		m := Message{Body: make([]byte, 100)}
		ctx := t.Context()
		p.PublishAsync(ctx, m)
		n.order[0].expect(wire.OpOpenSession)
		if got := testing.AllocsPerRun(1000, func() { p.PublishAsync(ctx, m) }); got > 3 {
			t.Errorf("%v allocations for a publish, at most 3 are allowed", got)
		}
	}, "n1")
}

// A delivery costs the Delivery, and its share of a table.
func TestAllocs_Deliver(t *testing.T) {
	const frame = 64
	var w pack.Writer
	wire.Message{Body: make([]byte, 100)}.Append(&w)
	s := &consumer{o: consumeOptions{prefetch: 65_536, concurrency: 1}, life: &life{open: map[uint64]*Delivery{}, low: 1, next: 1, told: 1, n: 1}}
	s.more = sync.NewCond(&s.mu)
	m := wire.Deliver{Consumer: s.life.id, N: 1, Deliveries: make([]wire.Delivery, frame)}
	cn := &conn{started: time.Now()}
	cn.ticked.Store(int64(time.Hour))
	number := uint64(0)
	deliver := func() {
		for i := range m.Deliveries {
			number++
			m.Deliveries[i] = wire.Delivery{Number: number, Attempt: 1, Remaining: time.Hour, Message: w.Bytes()}
		}
		s.deliver(cn, m, 100)
	}
	if got := testing.AllocsPerRun(100, deliver); got > frame+frame/4 {
		t.Errorf("%v allocations for a frame of %d deliveries, at most %d are allowed", got, frame, frame+frame/4)
	}
}
