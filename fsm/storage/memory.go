// Package storage keeps message bodies for the queue machine.
//
// Memory holds all of them in memory, where a backlog must fit; it is what a node
// runs with unless told otherwise. Pebble holds young ones in memory and the
// others on disk. The machine writes and deletes from the goroutine that applies;
// Get is for the senders of deliveries, beside it.
package storage

import (
	"cmp"
	"slices"
	"sync"

	"onceq/fsm"
)

// pageSize is the number of offsets of a page. A page is freed when its last
// body is gone, so memory follows what is stored and not the offsets passed.
const pageSize = 256

// Memory is a BodyStore in memory. It is safe for concurrent use. The zero value
// is not usable; call NewMemory.
//
// The bodies alias the log entries they came in: one that stays keeps its
// entry's buffer.
type Memory struct {
	mu sync.RWMutex
	// guarded by mu
	lanes  map[laneID]*lane
	frozen int
	held   []deletion // deletes since the first freeze, applied when the last is released
}

type laneID struct {
	queue uint64
	lane  uint8
}

type lane struct {
	pages map[uint64]*page // by offset / pageSize
}

type page struct {
	live   int
	bodies [pageSize]body
}

type body struct {
	publishedAt int64
	message     []byte // nil: none
}

type deletion struct {
	id       laneID
	from, to uint64
}

var _ fsm.BodyStore = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{lanes: map[laneID]*lane{}} }

// Put keeps a body. Putting a place twice keeps the newer one.
func (s *Memory) Put(queue uint64, ln uint8, offset uint64, publishedAt int64, message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := laneID{queue, ln}
	l := s.lanes[id]
	if l == nil {
		l = &lane{pages: map[uint64]*page{}}
		s.lanes[id] = l
	}
	p := l.pages[offset/pageSize]
	if p == nil {
		p = &page{}
		l.pages[offset/pageSize] = p
	}
	b := &p.bodies[offset%pageSize]
	if b.message == nil {
		p.live++
	}
	*b = body{publishedAt, message}
}

// Get returns a body.
func (s *Memory) Get(queue uint64, ln uint8, offset uint64) (publishedAt int64, message []byte, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.lanes[laneID{queue, ln}]
	if l == nil {
		return 0, nil, false
	}
	p := l.pages[offset/pageSize]
	if p == nil {
		return 0, nil, false
	}
	b := p.bodies[offset%pageSize]
	return b.publishedAt, b.message, b.message != nil
}

// Delete forgets one body.
func (s *Memory) Delete(queue uint64, ln uint8, offset uint64) {
	s.DeleteRange(queue, ln, offset, offset+1)
}

// DeleteRange forgets from <= offset < to.
func (s *Memory) DeleteRange(queue uint64, ln uint8, from, to uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := deletion{laneID{queue, ln}, from, to}
	if s.frozen > 0 {
		s.held = append(s.held, d)
		return
	}
	s.remove(d)
}

func (s *Memory) remove(d deletion) {
	l := s.lanes[d.id]
	if l == nil || d.from >= d.to {
		return
	}
	first, last := d.from/pageSize, (d.to-1)/pageSize
	if last-first < uint64(len(l.pages)) {
		for n := first; n <= last; n++ {
			l.removeFrom(n, d)
		}
	} else {
		for n := range l.pages {
			if first <= n && n <= last {
				l.removeFrom(n, d)
			}
		}
	}
	if len(l.pages) == 0 {
		delete(s.lanes, d.id)
	}
}

func (l *lane) removeFrom(n uint64, d deletion) {
	p := l.pages[n]
	if p == nil {
		return
	}
	if d.from <= n*pageSize && d.to >= (n+1)*pageSize {
		delete(l.pages, n)
		return
	}
	for offset := max(d.from, n*pageSize); offset < min(d.to, (n+1)*pageSize); offset++ {
		if b := &p.bodies[offset%pageSize]; b.message != nil {
			*b = body{}
			p.live--
		}
	}
	if p.live == 0 {
		delete(l.pages, n)
	}
}

// Reset forgets everything. A frozen view keeps what it had.
func (s *Memory) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes = map[laneID]*lane{}
	s.held = nil
}

// Len returns the number of bodies stored, for tests and status.
func (s *Memory) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, l := range s.lanes {
		for _, p := range l.pages {
			n += p.live
		}
	}
	return n
}

// Freeze returns a view of what is stored now. Deletes wait until its Release.
func (s *Memory) Freeze() fsm.FrozenBodies {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen++
	f := &frozen{store: s, lanes: make(map[laneID][]frozenPage, len(s.lanes))}
	for id, l := range s.lanes {
		ps := make([]frozenPage, 0, len(l.pages))
		for n, p := range l.pages {
			ps = append(ps, frozenPage{n, p})
		}
		// A backup has the bodies of a lane in order.
		slices.SortFunc(ps, func(a, b frozenPage) int { return cmp.Compare(a.n, b.n) })
		f.lanes[id] = ps
	}
	return f
}

type frozenPage struct {
	n uint64
	p *page
}

// frozen is a list of the pages at the moment of the freeze. Bodies put later
// into such a page are in the view too; they are newer than the tables, and the
// replay that follows a restore writes them again.
type frozen struct {
	store    *Memory
	lanes    map[laneID][]frozenPage
	released bool
}

func (f *frozen) Each(visit func(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte) error) error {
	var bodies [pageSize]body
	for id, ps := range f.lanes {
		for _, fp := range ps {
			f.store.mu.RLock()
			bodies = fp.p.bodies
			f.store.mu.RUnlock()
			for i, b := range bodies {
				if b.message == nil {
					continue
				}
				if err := visit(id.queue, id.lane, fp.n*pageSize+uint64(i), b.publishedAt, b.message); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Release applies the deletes that waited, when no other view is left.
func (f *frozen) Release() {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.released {
		return
	}
	f.released = true
	f.lanes = nil
	if s.frozen--; s.frozen > 0 {
		return
	}
	for _, d := range s.held {
		s.remove(d)
	}
	s.held = nil
}

// Move keeps a body under another place instead.
func (s *Memory) Move(queue uint64, ln uint8, offset uint64, toQueue uint64, toLane uint8, toOffset uint64) {
	at, message, ok := s.Get(queue, ln, offset)
	if !ok {
		return
	}
	s.Put(toQueue, toLane, toOffset, at, message)
	s.Delete(queue, ln, offset)
}
