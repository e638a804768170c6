package bare

import (
	"encoding/binary"
	"slices"
	"sync"
)

// deliverer hands the messages of queues to those who subscribe. What was under way to
// one who is gone is not handed out again.
type deliverer struct {
	mu     sync.Mutex // guards what follows
	queues map[uint32]*outgoing
}

// outgoing is what is to be handed out of a queue.
type outgoing struct {
	ready   []ready // from first on
	first   int
	to      []*client
	turn    int
	holders map[uint64]*client // by offset
}

type ready struct {
	offset  uint64
	message []byte
}

// deliverMost is how many messages go to one of several in a turn.
const deliverMost = 256

func newDeliverer() *deliverer { return &deliverer{queues: map[uint32]*outgoing{}} }

func (d *deliverer) queue(n uint32) *outgoing {
	q := d.queues[n]
	if q == nil {
		q = &outgoing{holders: map[uint64]*client{}}
		d.queues[n] = q
	}
	return q
}

func (d *deliverer) stored(queue uint32, offset uint64, message []byte) {
	d.mu.Lock()
	q := d.queue(queue)
	q.ready = append(q.ready, ready{offset, message})
	d.mu.Unlock()
}

func (d *deliverer) acked(queue uint32, offset uint64) {
	d.mu.Lock()
	q := d.queue(queue)
	if c := q.holders[offset]; c != nil {
		c.room++
		delete(q.holders, offset)
	}
	d.mu.Unlock()
}

// gone empties a queue. Who has subscribed goes on with what is published behind that.
func (d *deliverer) gone(queue uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.queue(queue)
	for _, c := range q.holders {
		c.room++
	}
	if len(q.to) == 0 {
		delete(d.queues, queue)
		return
	}
	d.queues[queue] = &outgoing{to: q.to, holders: map[uint64]*client{}}
}

func (d *deliverer) subscribe(c *client, queue uint32, prefetch int) {
	d.mu.Lock()
	c.room += prefetch
	q := d.queue(queue)
	q.to = append(q.to, c)
	d.mu.Unlock()
}

func (d *deliverer) forget(c *client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.queues {
		q.to = slices.DeleteFunc(q.to, func(other *client) bool { return other == c })
	}
}

// send hands out what there is room for.
func (d *deliverer) send() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.queues {
		for without := 0; q.first < len(q.ready) && without < len(q.to); q.turn++ {
			without++
			if q.sendTo(q.to[q.turn%len(q.to)]) {
				without = 0
			}
		}
		if q.first == len(q.ready) {
			q.ready, q.first = q.ready[:0], 0
		}
	}
}

// sendTo hands one client what it has room for; false: nothing.
func (q *outgoing) sendTo(c *client) bool {
	n := min(c.room, deliverMost, len(q.ready)-q.first)
	if n <= 0 {
		return false
	}
	some := q.ready[q.first : q.first+n]
	c.out.frame(kindDeliver, func(out []byte) []byte {
		for _, r := range some {
			out = binary.BigEndian.AppendUint64(out, r.offset)
			out = binary.BigEndian.AppendUint32(out, uint32(len(r.message)))
			out = append(out, r.message...)
		}
		return out
	})
	for i, r := range some {
		q.holders[r.offset] = c
		some[i] = ready{}
	}
	q.first += n
	c.room -= n
	return true
}
