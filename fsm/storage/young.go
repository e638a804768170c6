package storage

// place is where a body belongs.
type place struct {
	lane   laneID
	offset uint64
}

// item is a body in memory. Its value does not change; the flags are guarded by
// Pebble.mu.
type item struct {
	place
	value   []byte // as on disk
	number  uint64 // grows with each Put
	disk    bool   // there may be something under its key on disk
	written bool   // it is on disk as it is here

	prev, next *item
}

// itemBytes is about what a body costs beside its value.
const itemBytes = 160

func (it *item) bytes() int64 { return int64(len(it.value)) + itemBytes }

// young holds the bodies in memory, in the order in which they came.
// Invariant: what is in at is in the list, and the reverse.
type young struct {
	at          map[place]*item
	first, last *item
	bytes       int64
	number      uint64 // of the newest
	cursors     map[*cursor]struct{}
}

// cursor walks the list while it changes.
type cursor struct{ next *item }

func (y *young) reset() {
	*y = young{at: make(map[place]*item), number: y.number, cursors: make(map[*cursor]struct{})}
}

func (y *young) push(it *item) {
	y.number++
	it.number = y.number
	it.prev = y.last
	if y.last != nil {
		y.last.next = it
	} else {
		y.first = it
	}
	y.last = it
	y.at[it.place] = it
	y.bytes += it.bytes()
}

func (y *young) remove(it *item) {
	for c := range y.cursors {
		if c.next == it {
			c.next = it.next
		}
	}
	if it.prev != nil {
		it.prev.next = it.next
	} else {
		y.first = it.next
	}
	if it.next != nil {
		it.next.prev = it.prev
	} else {
		y.last = it.prev
	}
	it.prev, it.next = nil, nil
	delete(y.at, it.place)
	y.bytes -= it.bytes()
}

// each calls f for the bodies of a range; f may remove them.
func (y *young) each(id laneID, from, to uint64, f func(*item)) {
	if to-from <= uint64(len(y.at)) {
		for o := from; o < to; o++ {
			if it := y.at[place{id, o}]; it != nil {
				f(it)
			}
		}
		return
	}
	for it := y.first; it != nil; {
		next := it.next
		if it.lane == id && from <= it.offset && it.offset < to {
			f(it)
		}
		it = next
	}
}
