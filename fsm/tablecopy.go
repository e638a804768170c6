package fsm

import (
	"cmp"
	"iter"
	"slices"

	"onceq/transport/wire/pack"
)

// tableCopy is the tables' rows in their encoded form, made a few at a time
// between entries, so that a snapshot of a million sessions does not hold Apply
// up: rows that change after they were copied are noted and copied again, and
// what is left for the moment of the freeze is what has changed in the last few
// milliseconds.
//
// It relies on what the digest relies on: whoever changes a row calls dirty, and
// whoever takes one out of its table calls forget, or drops all of a queue's
// records at once by raising its gen.
type tableCopy struct {
	next func() (row, bool) // the rows that were never looked at
	stop func()
	// pages hold the rows, all pages but the last are full. One slice of millions
	// would hold Apply up whenever it is made larger.
	pages [][]copiedRow
	gens  map[*queue]uint32 // of queues whose records were dropped since: older ones are gone
	// changed may name a row twice, and rows that are gone.
	changed []row
	chunk   []byte    // open for more
	room    *CopyRoom // for what is needed next; nil for none
	w       pack.Writer
}

// copiedRow: row is nil when it has left its table.
type copiedRow struct {
	row  row
	data []byte
}

const (
	copyChunkBytes = 64 << 10
	copyPageRows   = 1 << 10
)

// CopyRoom is memory for the next piece of a copy, made while nobody waits for it:
// in a heap of a gigabyte whoever takes 64 KiB may have to sweep, to mark or to
// wait for the system for milliseconds.
type CopyRoom struct {
	chunk []byte
	page  []copiedRow
}

// Make makes what the last piece has used up. Not beside CopySome.
func (r *CopyRoom) Make() {
	if r.chunk == nil {
		r.chunk = make([]byte, 0, copyChunkBytes)
		for i := 0; i < copyChunkBytes; i += 4 << 10 {
			r.chunk[:copyChunkBytes][i] = 0 // the system gives a page when it is written to
		}
	}
	if r.page == nil {
		r.page = make([]copiedRow, 0, copyPageRows)
	}
}

// BeginCopy begins to copy the tables for the next Snapshot. It costs nothing,
// and neither does it have to be called: a Snapshot without it copies all.
func (m *Machine) BeginCopy() {
	m.EndCopy()
	c := &tableCopy{gens: map[*queue]uint32{}}
	// The maps change while they are walked, never at the same moment: what is
	// new may be met or not, and is noted as changed in any case.
	c.next, c.stop = iter.Pull(func(yield func(row) bool) {
		for _, s := range m.sessions.rows {
			if !yield(s) {
				return
			}
		}
		for _, q := range m.queues {
			if !yield(q) {
				return
			}
			for _, msg := range q.records.rows {
				if !yield(msg) {
					return
				}
			}
			if !q.eachGone(func(b *goneBlock) bool { return yield(b) }) {
				return
			}
		}
		for _, c := range m.consumers {
			if !yield(c) {
				return
			}
		}
	})
	m.copying = c
}

// CopySome copies about so many bytes of rows, beside readers and not beside
// Apply. walked says that each row was copied once; left is how many have changed
// since. No room is fine, and makes some.
func (m *Machine) CopySome(bytes int, room *CopyRoom) (left int, walked bool) {
	c := m.copying
	if c == nil {
		return 0, true
	}
	c.room = room
	defer func() { c.room = nil }()
	for bytes > 0 {
		r, ok := c.take()
		if !ok {
			break
		}
		bytes -= c.copy(r)
	}
	return len(c.changed), c.next == nil
}

// EndCopy drops a copy that no Snapshot has taken.
func (m *Machine) EndCopy() {
	if c := m.copying; c != nil {
		c.end()
		m.copying = nil
	}
}

func (c *tableCopy) end() {
	if c.next != nil {
		c.stop()
		c.next, c.stop = nil, nil
	}
	for _, r := range c.changed {
		r.rec().copyStale = false
	}
	c.changed = nil
}

// take returns a row to copy.
func (c *tableCopy) take() (row, bool) {
	if c.next != nil {
		if r, ok := c.next(); ok {
			return r, true
		}
		c.stop()
		c.next, c.stop = nil, nil
	}
	for n := len(c.changed); n > 0; n-- {
		r := c.changed[n-1]
		c.changed[n-1] = nil
		c.changed = c.changed[:n-1]
		if r.rec().copyStale {
			return r, true
		}
	}
	return nil, false
}

// copy copies a row, also again, and returns what that costs, in bytes.
func (c *tableCopy) copy(r row) int {
	const least = 64 // looking at it costs as well
	rec := r.rec()
	rec.copyStale = false
	if !r.inTable() {
		return least
	}
	c.w.Reset()
	r.appendRow(&c.w)
	data := c.keep(c.w.Bytes())
	if was := c.at(r); was != nil {
		was.data = data
		return least + len(data)
	}
	n := len(c.pages)
	if n == 0 || len(c.pages[n-1]) == copyPageRows {
		c.pages = append(c.pages, c.newPage())
		n++
	}
	last := &c.pages[n-1]
	rec.copyAt = uint32((n-1)*copyPageRows + len(*last))
	*last = append(*last, copiedRow{r, data})
	return least + len(data)
}

// at returns a row's copy, nil for none. copyAt may be from an older copy.
func (c *tableCopy) at(r row) *copiedRow {
	page, i := int(r.rec().copyAt/copyPageRows), int(r.rec().copyAt%copyPageRows)
	if page >= len(c.pages) || i >= len(c.pages[page]) || c.pages[page][i].row != r {
		return nil
	}
	return &c.pages[page][i]
}

func (c *tableCopy) keep(b []byte) []byte {
	if len(b) > copyChunkBytes/4 {
		return slices.Clone(b)
	}
	if cap(c.chunk)-len(c.chunk) < len(b) {
		c.chunk = c.newChunk()
	}
	from := len(c.chunk)
	c.chunk = append(c.chunk, b...)
	return c.chunk[from:len(c.chunk):len(c.chunk)]
}

func (c *tableCopy) newChunk() (chunk []byte) {
	if c.room == nil || c.room.chunk == nil {
		return make([]byte, 0, copyChunkBytes)
	}
	chunk, c.room.chunk = c.room.chunk, nil
	return chunk
}

func (c *tableCopy) newPage() (page []copiedRow) {
	if c.room == nil || c.room.page == nil {
		return make([]copiedRow, 0, copyPageRows)
	}
	page, c.room.page = c.room.page, nil
	return page
}

// touch notes that a row has changed.
func (c *tableCopy) touch(r row) {
	if rec := r.rec(); !rec.copyStale {
		rec.copyStale = true
		c.changed = append(c.changed, r)
	}
}

// drop forgets a row that leaves its table.
func (c *tableCopy) drop(r row) {
	if was := c.at(r); was != nil {
		*was = copiedRow{}
	}
}

// frozen returns the rows of all tables, in the order of a snapshot. It may run
// beside Apply: of rows it reads only what never changes.
func (c *tableCopy) frozen() []copiedRow {
	rows := slices.DeleteFunc(slices.Concat(c.pages...), func(r copiedRow) bool {
		if r.row == nil {
			return true
		}
		switch row := r.row.(type) {
		case *message:
			return row.gen < c.gens[row.q]
		case *goneBlock:
			return row.gen < c.gens[row.q]
		}
		return false
	})
	slices.SortFunc(rows, func(a, b copiedRow) int {
		x, y := rowKey(a.row), rowKey(b.row)
		return cmp.Or(cmp.Compare(x.section, y.section), cmp.Compare(x.number, y.number), cmp.Compare(x.lane, y.lane), cmp.Compare(x.offset, y.offset))
	})
	return rows
}

// key orders the rows of a snapshot.
type key struct {
	section byte
	lane    uint8
	number  uint64
	offset  uint64
}

// sectionOrder: messages and what is gone refer to queues, consumers to queues and
// messages.
var sectionOrder = [...]byte{sectionSessions, sectionQueues, sectionMessages, sectionGone, sectionConsumers}

func rowKey(r row) key {
	switch r := r.(type) {
	case *session:
		return key{section: 0, number: r.number}
	case *queue:
		return key{section: 1, number: r.number}
	case *message:
		return key{section: 2, number: r.q.number, lane: r.lane, offset: r.offset}
	case *goneBlock:
		return key{section: 3, number: r.q.number, lane: r.lane, offset: r.number}
	case *consumer:
		return key{section: 4, number: r.ordinal}
	}
	panic("a row of no table")
}
