package storage

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// write is the one goroutine that takes bodies out of memory and carries changes
// to disk, in order.
func (s *Pebble) write() {
	defer close(s.ended)
	for {
		select {
		case <-s.quit:
			return
		case <-s.wake:
		}
		for s.writeSome() {
			select {
			case <-s.quit:
				return
			default:
			}
		}
	}
}

// writeSome writes one batch and says whether there may be more to do.
func (s *Pebble) writeSome() bool {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	s.open.RLock()
	defer s.open.RUnlock()
	s.mu.Lock()
	if s.failed != nil || s.db == nil {
		s.mu.Unlock()
		return false
	}
	changes := s.takeChanges()
	before := s.young.bytes
	var old []written
	if len(s.todo) == 0 {
		old = s.oldest()
	}
	left := s.young.bytes < before
	if left {
		s.room.Broadcast()
	}
	s.mu.Unlock()
	if len(changes) == 0 && len(old) == 0 {
		// Less memory may have come free than left: a chunk counts until its last body
		// is gone. Whoever waits for room does not wake us again, so look again.
		return left
	}
	// Changes first: a body that was put again after its delete is among the old ones.
	if err := s.commit(changes, old, nil); err != nil {
		s.fail(fmt.Errorf("write bodies: %w", err))
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done(changes, old, true)
	s.room.Broadcast()
	return true
}

// written is a body that is being written.
type written struct {
	place
	slot
}

// movesMax bounds the moves of one batch: each may be of a large body.
const movesMax = 64

// takeChanges takes what one batch does, in order; mu is held, and turn is.
func (s *Pebble) takeChanges() []change {
	n, moves := 0, 0
	for ; n < len(s.todo) && moves < movesMax; n++ {
		if m := s.todo[n].move; m != nil {
			m.taken = true
			moves++
		}
	}
	taken := s.todo[:n:n]
	if s.todo = s.todo[n:]; len(s.todo) == 0 {
		s.todo = nil
	}
	return taken
}

// oldest returns what has to leave memory, oldest first, and notes that it will
// be on disk. What is there already leaves at once.
func (s *Pebble) oldest() (old []written) {
	excess := s.young.bytes - s.o.YoungBytes
	room := int64(evictBytes)
	for r := s.young.first; r != nil && excess > 0 && room > 0; {
		next := r.next
		before := len(old)
		for i := range r.slots {
			if bit := uint64(1) << i; r.live&bit != 0 {
				size := int64(r.slots[i].size)
				excess -= size
				if r.written&bit == 0 {
					room -= size
					old = append(old, written{place{r.lane, r.offset(i)}, r.slots[i]})
				}
			}
		}
		excess -= runBytes
		if len(old) == before {
			s.young.remove(r, r.live)
		} else {
			r.disk |= r.live
		}
		r = next
	}
	return old
}

// done notes what was written; leave says that it leaves memory. mu is held.
func (s *Pebble) done(changes []change, bodies []written, leave bool) {
	for _, c := range changes {
		if m := c.move; m != nil {
			m.done, m.before = true, nil
			if s.moved[m.to] == m {
				delete(s.moved, m.to)
			}
			continue
		}
		s.ahead.forget(c.deletion)
	}
	for _, w := range bodies {
		r := s.young.run(w.lane, w.offset)
		if r == nil {
			continue
		}
		i := w.offset % runOffsets
		if r.slots[i] != w.slot {
			continue
		}
		r.written |= 1 << i
		// A view walks the runs in their order, so one leaves only when all of it
		// is written.
		if leave && r.live&^r.written == 0 {
			s.young.remove(r, r.live)
		}
	}
}

// commit writes one batch, or one table; open is held.
func (s *Pebble) commit(changes []change, bodies []written, pace Pace) error {
	if len(changes) == 0 && valueBytes(bodies) >= tableBytesMin {
		return s.writeTable(bodies, pace)
	}
	b := s.db.NewBatch()
	if slices.ContainsFunc(changes, func(c change) bool { return c.move != nil }) {
		b = s.db.NewIndexedBatch() // a move reads what earlier changes of the batch have done
	}
	defer b.Close()
	for _, c := range changes {
		if err := s.change(b, c); err != nil {
			return err
		}
	}
	for _, w := range bodies {
		if err := b.Set(key(w.lane, w.offset), w.value(), nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

func valueBytes(bodies []written) (n int64) {
	for _, w := range bodies {
		n += int64(w.size)
	}
	return n
}

func (s *Pebble) change(b *pebble.Batch, c change) error {
	switch m := c.move; {
	case m != nil:
		from := key(m.from.lane, m.from.offset)
		v, closer, err := b.Get(from)
		if errors.Is(err, pebble.ErrNotFound) {
			s.o.Logger.Error("a message that was moved has no body", "queue", m.from.lane.queue, "lane", m.from.lane.lane, "offset", m.from.offset)
			return nil
		}
		if err != nil {
			return err
		}
		err = b.Set(key(m.to.lane, m.to.offset), v, nil)
		return errors.Join(err, closer.Close())
	case c.to-c.from == 1:
		return b.Delete(key(c.id, c.from), nil)
	}
	return b.DeleteRange(key(c.id, c.from), key(c.id, c.to), nil)
}
