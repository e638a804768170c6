package fsm

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/btree"

	"onceq/transport/wire/pack"
)

// What is gone ahead of a lane's head is told by ranges of offsets. Between two of
// them at least one message is there, so what they cost follows what a queue holds and
// not what has passed through it: a queue that nobody reads may have messages come and
// expire behind its first one for ever. Before versionGoneRanges each such place kept
// its record, in stateGone, and those of then stay until the head has passed them.

// goneRange is the offsets [from, end).
type goneRange struct{ from, end uint64 }

const (
	// goneBlockBits: that many low bits of an offset are within its block.
	goneBlockBits = 10
	// goneBlockRanges is how many ranges can begin in one block.
	goneBlockRanges = 1 << (goneBlockBits - 1)
)

// goneBlock has the ranges of a lane that begin in one block of offsets; the last may
// end in any later one. It is a row of its own, so that a change costs a digest and a
// snapshot one block, however many ranges there are. Which blocks there are, and what
// is in them, depends only on what is gone.
type goneBlock struct {
	record
	q      *queue
	lane   uint8
	number uint64
	gen    uint32      // of the queue's records, see queue.gen
	ranges []goneRange // ascending, and none touches the next; at least one
}

func (b *goneBlock) inTable() bool { return !b.dropped && b.gen == b.q.gen }

// goneBlockAt is a block in the order of a lane.
type goneBlockAt struct {
	number uint64
	*goneBlock
}

func newGoneBlocks() *btree.BTreeG[goneBlockAt] {
	return btree.NewG(16, func(a, b goneBlockAt) bool { return a.number < b.number })
}

func (l *lane) anyGone() bool { return l.gone != nil && l.gone.Len() > 0 }

// goneAt returns the last range that begins at an offset or before it, as one of a
// block's; nil for none.
func (l *lane) goneAt(offset uint64) (b *goneBlock, i int) {
	if !l.anyGone() {
		return nil, 0
	}
	return l.goneBefore(offset)
}

func (l *lane) goneBefore(offset uint64) (b *goneBlock, i int) {
	l.gone.DescendLessOrEqual(goneBlockAt{number: offset >> goneBlockBits}, func(at goneBlockAt) bool {
		after, _ := slices.BinarySearchFunc(at.ranges, offset+1, func(g goneRange, o uint64) int { return cmp.Compare(g.from, o) })
		if after > 0 {
			b, i = at.goneBlock, after-1
		}
		return b == nil
	})
	return b, i
}

// goneEnd returns the end of the range that an offset is in, or the offset itself when
// it is in none.
func (l *lane) goneEnd(offset uint64) uint64 {
	if b, i := l.goneAt(offset); b != nil && b.ranges[i].end > offset {
		return b.ranges[i].end
	}
	return offset
}

func (l *lane) isGone(offset uint64) bool { return l.goneEnd(offset) > offset }

// leaveGone notes that what was at an offset is gone. The offset is not behind the head.
func (m *Machine) leaveGone(q *queue, l *lane, offset uint64) {
	g := goneRange{offset, offset + 1}
	if b, i := l.goneAt(g.end); b != nil && b.ranges[i].from == g.end {
		g.end = b.ranges[i].end
		m.removeGone(l, b, i)
	}
	if b, i := l.goneAt(offset); b != nil && b.ranges[i].end == offset {
		b.ranges[i].end = g.end
		m.dirty(b)
		return
	}
	m.addGone(q, l, g)
}

// headIsGone says whether the head stands on a range.
func (l *lane) headIsGone() bool {
	if !l.anyGone() {
		return false
	}
	first, _ := l.gone.Min()
	return first.ranges[0].from == l.head
}

// passGone moves the head over the range that it stands on, and says whether it stood
// on one.
func (m *Machine) passGone(l *lane) bool {
	if !l.headIsGone() {
		return false
	}
	first, _ := l.gone.Min()
	l.head = first.ranges[0].end
	m.removeGone(l, first.goneBlock, 0)
	return true
}

func (m *Machine) addGone(q *queue, l *lane, g goneRange) {
	if l.gone == nil {
		l.gone = newGoneBlocks()
	}
	at, ok := l.gone.Get(goneBlockAt{number: g.from >> goneBlockBits})
	if !ok {
		at.number = g.from >> goneBlockBits
		at.goneBlock = &goneBlock{q: q, lane: l.number, number: at.number, gen: q.gen}
		l.gone.ReplaceOrInsert(at)
	}
	b := at.goneBlock
	i, _ := slices.BinarySearchFunc(b.ranges, g.from, func(g goneRange, o uint64) int { return cmp.Compare(g.from, o) })
	b.ranges = slices.Insert(b.ranges, i, g)
	m.countGone(q, 1)
	m.dirty(b)
}

func (m *Machine) removeGone(l *lane, b *goneBlock, i int) {
	m.countGone(b.q, -1)
	b.ranges = slices.Delete(b.ranges, i, i+1)
	if len(b.ranges) == 0 {
		m.forget(b)
		l.gone.Delete(goneBlockAt{number: b.number})
		return
	}
	if cap(b.ranges) > 8+4*len(b.ranges) {
		b.ranges = slices.Clone(b.ranges)
	}
	m.dirty(b)
}

func (m *Machine) countGone(q *queue, n int) {
	q.goneRanges += n
	m.goneRanges += n
}

// mayLeave says whether there is room for so many more ranges. What expires cannot be
// refused, so who publishes a message that may leave one, or takes one out, looks first;
// dead letters are never refused.
func (m *Machine) mayLeave(n int) bool {
	return m.version < versionGoneRanges || m.goneRanges+n <= m.limits.GoneRangesMax
}

// mayEndAhead says whether a message that the head has not reached may be taken out by
// command.
func (m *Machine) mayEndAhead() bool {
	if m.version < versionGoneRanges {
		return m.mayIndex(1)
	}
	return m.mayLeave(1)
}

// eachGone visits the blocks of a queue, also while they change between the visits.
func (q *queue) eachGone(yield func(*goneBlock) bool) bool {
	for i := range q.lanes {
		for from := uint64(0); ; {
			var b *goneBlock
			if l := q.lanes[i]; l != nil && l.anyGone() {
				l.gone.AscendGreaterOrEqual(goneBlockAt{number: from}, func(at goneBlockAt) bool { b = at.goneBlock; return false })
			}
			if b == nil {
				break
			}
			if !yield(b) {
				return false
			}
			from = b.number + 1
		}
	}
	return true
}

const goneBlockFields = 4

// appendRow writes each range as where it begins within the block, and its length.
func (b *goneBlock) appendRow(w *pack.Writer) {
	w.Array(goneBlockFields)
	w.Uint(b.q.number)
	w.Uint(uint64(b.lane))
	w.Uint(b.number)
	w.Array(2 * len(b.ranges))
	for _, g := range b.ranges {
		w.Uint(g.from - b.number<<goneBlockBits)
		w.Uint(g.end - g.from)
	}
}

func (b *goneBlock) appendDigest(w *pack.Writer) { b.appendRow(w) }

// readGone follows the queues.
func (m *Machine) readGone(r *pack.Reader, from *origins) {
	r.ArrayExact(goneBlockFields)
	q := m.queues[from.base+r.Uint()]
	lane, number := r.Uint8(), r.Uint()
	n := r.Array(2 * goneBlockRanges)
	switch {
	case r.Err() != nil:
		return
	case m.version < versionGoneRanges:
		r.Failf("ranges of what is gone in tables of version %d", m.version)
		return
	case q == nil || lane >= Priorities || q.lanes[lane] == nil || number > q.lanes[lane].tail>>goneBlockBits || n == 0 || n%2 != 0:
		r.Failf("%d numbers of ranges in block %d of lane %d belong nowhere", n, number, lane)
		return
	}
	l := q.lanes[lane]
	if l.gone == nil {
		l.gone = newGoneBlocks()
	}
	b := &goneBlock{q: q, lane: lane, number: number, gen: q.gen, ranges: make([]goneRange, 0, n/2)}
	for range n / 2 {
		begin, length := r.Uint(), r.Uint()
		g := goneRange{from: number<<goneBlockBits + begin}
		if r.Err() == nil && (begin>>goneBlockBits != 0 || g.from >= l.tail || length == 0 || length > l.tail-g.from) {
			r.Failf("a range of %d from %d on in block %d of lane %d, which ends at %d", length, begin, number, lane, l.tail)
		}
		if r.Err() != nil {
			return
		}
		g.end = g.from + length
		b.ranges = append(b.ranges, g)
	}
	if _, twice := l.gone.ReplaceOrInsert(goneBlockAt{number, b}); twice {
		r.Failf("block %d of lane %d of queue %d stands twice", number, lane, q.number)
		return
	}
	m.countGone(q, len(b.ranges))
	m.dirty(b)
}

// auditGone holds the ranges of a lane against each other and against the lane, and
// counts the places in them.
func (l *lane) auditGone() (places uint64, err error) {
	if !l.anyGone() {
		return 0, nil
	}
	last := goneRange{}
	l.gone.Ascend(func(at goneBlockAt) bool {
		for _, g := range at.ranges {
			switch {
			case g.from>>goneBlockBits != at.number || g.from >= g.end:
				err = fmt.Errorf("a range from %d to %d in block %d of what is gone", g.from, g.end, at.number)
			case g.from < l.head || g.end > l.tail:
				err = fmt.Errorf("gone from %d to %d, and the lane goes from %d to %d", g.from, g.end, l.head, l.tail)
			case places > 0 && g.from <= last.end:
				err = fmt.Errorf("gone to %d, and again from %d on", last.end, g.from)
			}
			if err != nil {
				return false
			}
			places += g.end - g.from
			last = g
		}
		return true
	})
	return places, err
}
