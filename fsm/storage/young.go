package storage

import (
	"cmp"
	"math/bits"
)

const (
	// runOffsets is the number of offsets of a run: one word has a bit for each.
	runOffsets = 64
	// runBytes is about what a run costs beside the bodies.
	runBytes = 64*16 + 160
	// chunkBytes is how much memory is taken at once for small bodies.
	chunkBytes = 64 << 10
	// aloneBytes: a body from here on has memory of its own.
	aloneBytes = 16 << 10
)

// place is where a body belongs.
type place struct {
	lane   laneID
	offset uint64
}

// compare is the order of their keys.
func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.lane.queue, q.lane.queue), cmp.Compare(p.lane.lane, q.lane.lane), cmp.Compare(p.offset, q.offset))
}

// chunk is memory for bodies. None of it is used twice, so what was read from it
// stays as it is; the garbage collector frees it.
type chunk struct {
	buf  []byte
	used int
	live int // slots that have a body in it
}

// slot is a body: a value as it is on disk, in a chunk.
type slot struct {
	in   *chunk // nil: none
	from uint32
	size uint32
}

func (s slot) value() []byte { return s.in.buf[s.from : s.from+s.size : s.from+s.size] }

// run holds the bodies in memory of some offsets that follow each other. The slots' values do not
// change; everything is guarded by Pebble.mu.
type run struct {
	lane    laneID
	n       uint64 // offset / runOffsets
	number  uint64 // grows from run to run: a view has those that were there
	slots   [runOffsets]slot
	live    uint64 // a bit for each slot that has a body
	disk    uint64 // there may be something under its key on disk
	written uint64 // it is on disk as it is here

	prev, next *run
}

func (p *run) offset(i int) uint64 { return p.n*runOffsets + uint64(i) }

// mask has a bit for each slot of the run in from <= offset < to.
func (p *run) mask(from, to uint64) uint64 {
	first := p.n * runOffsets
	m := ^uint64(0)
	if from > first {
		if from-first >= runOffsets {
			return 0
		}
		m <<= from - first
	}
	if to <= first {
		return 0
	}
	if to-first < runOffsets {
		m &= 1<<(to-first) - 1
	}
	return m
}

// each calls f for each bit.
func each(mask uint64, f func(i int)) {
	for ; mask != 0; mask &= mask - 1 {
		f(bits.TrailingZeros64(mask))
	}
}

// young holds the bodies in memory. Runs are in the order in which they were
// made, and leave in that order. Bodies are copied into chunks, many small ones
// together; a full chunk counts whole until its last body is gone, so the budget
// sees what is really held.
//
// Invariant: each run is in its lane and in the list, and has a body.
type young struct {
	lanes       map[laneID]*youngLane
	last        *youngLane // found last
	first, tail *run
	chunk       *chunk // open for more
	spare       *run
	bytes       int64
	bodies      int
	number      uint64 // of the newest run
	cursors     map[*cursor]struct{}
}

type youngLane struct {
	id   laneID
	runs map[uint64]*run
}

// cursor walks the list while it changes.
type cursor struct{ next *run }

func (y *young) reset() {
	*y = young{lanes: make(map[laneID]*youngLane), number: y.number, cursors: make(map[*cursor]struct{})}
}

// lane returns a lane that has bodies, else nil.
func (y *young) lane(id laneID) *youngLane {
	if y.last == nil || y.last.id != id {
		l := y.lanes[id]
		if l == nil {
			return nil
		}
		y.last = l
	}
	return y.last
}

// run returns the run of an offset, nil for none.
func (y *young) run(id laneID, offset uint64) *run {
	if l := y.lane(id); l != nil {
		return l.runs[offset/runOffsets]
	}
	return nil
}

// get returns a body's value.
func (y *young) get(p place) ([]byte, bool) {
	l := y.lanes[p.lane] // no more: this is asked beside others
	if l == nil {
		return nil, false
	}
	r := l.runs[p.offset/runOffsets]
	if r == nil || r.live>>(p.offset%runOffsets)&1 == 0 {
		return nil, false
	}
	return r.slots[p.offset%runOffsets].value(), true
}

// room returns a slot of size bytes whose value the caller fills before anybody
// else can see it.
func (y *young) room(size int) slot {
	if size >= aloneBytes {
		c := &chunk{buf: make([]byte, size)}
		y.bytes += int64(size)
		return slot{c, 0, uint32(size)}
	}
	c := y.chunk
	if c == nil || len(c.buf)-c.used < size {
		if c != nil && c.live > 0 {
			y.bytes += chunkBytes
		}
		c = &chunk{buf: make([]byte, chunkBytes)}
		y.chunk = c
	}
	from := c.used
	c.used += size
	return slot{c, uint32(from), uint32(size)}
}

// put gives a place a body; disk says whether there may be one on disk already.
func (y *young) put(p place, s slot, disk bool) {
	l := y.lane(p.lane)
	if l == nil {
		l = &youngLane{id: p.lane, runs: make(map[uint64]*run)}
		y.lanes[p.lane], y.last = l, l
	}
	n, bit := p.offset/runOffsets, uint64(1)<<(p.offset%runOffsets)
	r := l.runs[n]
	if r == nil {
		r = y.newRun(p.lane, n)
		l.runs[n] = r
	}
	s.in.live++
	if r.live&bit != 0 {
		y.drop(r.slots[p.offset%runOffsets])
	} else {
		y.bodies++
	}
	r.slots[p.offset%runOffsets] = s
	r.live |= bit
	r.written &^= bit
	if disk {
		r.disk |= bit
	}
}

func (y *young) newRun(id laneID, n uint64) *run {
	r := y.spare
	y.spare = nil
	if r == nil {
		r = &run{}
	}
	y.number++
	r.lane, r.n, r.number = id, n, y.number
	r.prev = y.tail
	if y.tail != nil {
		y.tail.next = r
	} else {
		y.first = r
	}
	y.tail = r
	y.bytes += runBytes
	return r
}

// drop lets go of a slot's memory.
func (y *young) drop(s slot) {
	s.in.live--
	if s.in.live == 0 && s.in != y.chunk {
		y.bytes -= int64(len(s.in.buf))
	}
}

// remove takes the bodies of a mask out of a run, and the run out when none is
// left.
func (y *young) remove(r *run, mask uint64) {
	mask &= r.live
	each(mask, func(i int) {
		y.drop(r.slots[i])
		r.slots[i] = slot{}
	})
	y.bodies -= bits.OnesCount64(mask)
	r.live &^= mask
	if r.live != 0 {
		return
	}
	for c := range y.cursors {
		if c.next == r {
			c.next = r.next
		}
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		y.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		y.tail = r.prev
	}
	l := y.lanes[r.lane]
	if delete(l.runs, r.n); len(l.runs) == 0 {
		delete(y.lanes, r.lane)
		if y.last == l {
			y.last = nil
		}
	}
	y.bytes -= runBytes
	*r = run{}
	y.spare = r
}

// runs calls f for the runs that overlap a range; f may remove them.
func (y *young) runs(id laneID, from, to uint64, f func(*run)) {
	l := y.lane(id)
	if l == nil || from >= to {
		return
	}
	first, last := from/runOffsets, (to-1)/runOffsets
	if last-first < uint64(len(l.runs)) {
		for n := first; n <= last; n++ {
			if r := l.runs[n]; r != nil {
				f(r)
			}
		}
		return
	}
	for n, r := range l.runs {
		if first <= n && n <= last {
			f(r)
		}
	}
}
