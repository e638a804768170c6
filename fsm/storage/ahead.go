package storage

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// aheadBytes are read at once when a lane is read in order, and at most
	// aheadBodies.
	aheadBytes  = 1 << 20
	aheadBodies = 1024
	// aheadLanes is how many lanes are read ahead at a time.
	aheadLanes = 16
)

// ahead keeps what was read from disk before anybody asked for it: a backlog is
// read in order, by many small questions. Guarded by Pebble.mu.
type ahead struct {
	windows map[laneID]*window
	clock   uint64
	reading []*reading
}

// reading is a window that is being read now.
type reading struct {
	lane   laneID
	missed []deletion // of its lane, since it was begun: it may have read what they delete
}

// window is some of a lane's bodies that follow each other. What is not in it
// may be on disk all the same: it can have come there since.
type window struct {
	asked   uint64 // the offset asked for last
	used    uint64 // by ahead.clock
	offsets []uint64
	values  [][]byte // nil: forgotten
}

func (a *ahead) reset() { a.windows = make(map[laneID]*window) }

// ask returns a body that was read already. Else inOrder says whether the lane
// is being read in order.
func (a *ahead) ask(p place) (v []byte, inOrder bool) {
	a.clock++
	w := a.windows[p.lane]
	if w == nil {
		a.windows[p.lane] = &window{asked: p.offset, used: a.clock}
		a.evict()
		return nil, false
	}
	inOrder = p.offset > w.asked && p.offset-w.asked <= aheadBodies
	w.asked, w.used = p.offset, a.clock
	if i, ok := slices.BinarySearch(w.offsets, p.offset); ok && w.values[i] != nil {
		return w.values[i], true
	}
	return nil, inOrder
}

// evict drops the window that was used longest ago.
func (a *ahead) evict() {
	if len(a.windows) <= aheadLanes {
		return
	}
	var oldest laneID
	least := a.clock
	for id, w := range a.windows {
		if w.used < least {
			oldest, least = id, w.used
		}
	}
	delete(a.windows, oldest)
}

// keep replaces what is known of a lane by what was just read.
func (a *ahead) keep(r *reading, offsets []uint64, values [][]byte) {
	if w := a.windows[r.lane]; w != nil {
		w.offsets, w.values = offsets, values
		for _, d := range r.missed {
			w.forget(d)
		}
	}
}

// forget drops what was deleted.
func (a *ahead) forget(d deletion) {
	if len(a.windows) == 0 {
		return
	}
	for _, r := range a.reading {
		if r.lane == d.id {
			r.missed = append(r.missed, d)
		}
	}
	if w := a.windows[d.id]; w != nil {
		w.forget(d)
	}
}

func (w *window) forget(d deletion) {
	i, _ := slices.BinarySearch(w.offsets, d.from)
	for ; i < len(w.offsets) && w.offsets[i] < d.to; i++ {
		w.values[i] = nil
	}
}

// read returns a value from disk, nil for none.
func (s *Pebble) read(p place) ([]byte, error) {
	s.mu.Lock()
	v, inOrder := s.ahead.ask(p)
	s.mu.Unlock()
	if v != nil {
		return v, nil
	}
	s.open.RLock()
	defer s.open.RUnlock()
	if s.db == nil {
		return nil, nil
	}
	if inOrder {
		return s.readOn(p)
	}
	v, closer, err := s.db.Get(key(p.lane, p.offset))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slices.Clone(v), closer.Close()
}

// readOn reads a body and what follows it in its lane; open is held.
func (s *Pebble) readOn(p place) ([]byte, error) {
	r := &reading{lane: p.lane}
	s.mu.Lock()
	s.ahead.reading = append(s.ahead.reading, r)
	s.mu.Unlock()
	offsets, values, err := scan(s.db, p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && len(values) > 0 {
		s.ahead.keep(r, offsets, slices.Clone(values))
	}
	s.ahead.reading = slices.DeleteFunc(s.ahead.reading, func(o *reading) bool { return o == r })
	if err != nil || len(values) == 0 {
		return nil, err
	}
	return values[0], nil
}

// scan reads the body at p and what follows it, and nothing if there is none.
func scan(db *pebble.DB, p place) (offsets []uint64, values [][]byte, err error) {
	iter, err := db.NewIter(&pebble.IterOptions{LowerBound: key(p.lane, p.offset), UpperBound: append(key(p.lane, ^uint64(0)), 0)})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, iter.Error(), iter.Close()) }()
	buf := make([]byte, 0, aheadBytes)
	bytes := 0
	for ok := iter.First(); ok && bytes < aheadBytes && len(values) < aheadBodies; ok = iter.Next() {
		_, offset, err := parseKey(iter.Key())
		if err != nil {
			return nil, nil, err
		}
		if len(values) == 0 && offset != p.offset {
			break
		}
		v, err := iter.ValueAndErr()
		if err != nil {
			return nil, nil, err
		}
		bytes += len(v)
		if cap(buf)-len(buf) >= len(v) {
			from := len(buf)
			buf = append(buf, v...)
			v = buf[from:len(buf):len(buf)]
		} else {
			v = slices.Clone(v)
		}
		offsets, values = append(offsets, offset), append(values, v)
	}
	return offsets, values, nil
}
