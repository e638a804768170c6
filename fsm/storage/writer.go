package storage

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// write is the one goroutine that takes bodies out of memory and carries deletes
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
	deletes := s.todo
	s.todo = nil
	old := s.oldest()
	s.mu.Unlock()
	if len(deletes) == 0 && len(old) == 0 {
		return false
	}
	// Deletes first: a body that was put again after its delete is among the old ones.
	if err := s.commit(deletes, old); err != nil {
		s.fail(fmt.Errorf("write bodies: %w", err))
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range old {
		it.written = true
		if s.young.at[it.place] == it {
			s.young.remove(it)
		}
	}
	s.room.Broadcast()
	return true
}

// oldest returns what has to leave memory, oldest first, and notes that it will
// be on disk. What is there already leaves at once.
func (s *Pebble) oldest() (old []*item) {
	excess := s.young.bytes - s.o.YoungBytes
	room := int64(evictBytes)
	for it := s.young.first; it != nil && excess > 0 && room > 0; {
		next := it.next
		excess -= it.bytes()
		if it.written {
			s.young.remove(it)
		} else {
			room -= it.bytes()
			it.disk = true
			old = append(old, it)
		}
		it = next
	}
	return old
}

// commit writes one batch; open is held.
func (s *Pebble) commit(deletes []deletion, bodies []*item) error {
	b := s.db.NewBatch()
	defer b.Close()
	for _, d := range deletes {
		var err error
		if d.to-d.from == 1 {
			err = b.Delete(key(d.id, d.from), nil)
		} else {
			err = b.DeleteRange(key(d.id, d.from), key(d.id, d.to), nil)
		}
		if err != nil {
			return err
		}
	}
	for _, it := range bodies {
		if err := b.Set(key(it.lane, it.offset), it.value, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}
