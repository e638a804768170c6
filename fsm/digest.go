package fsm

import (
	"github.com/cespare/xxhash/v2"

	"onceq/transport/wire/pack"
)

// The digest is a function of the replicated tables alone: the sum (modulo
// 2^64) of a hash of each row and of the machine's scalars, so replicas at one
// index have equal digests whatever way they came there. A row that did not
// change keeps its cached hash; what a digest costs is what has changed since
// the one before. After Restore nothing is cached, so a follower that was
// restored from a damaged snapshot computes its own value and cannot copy one.

// record is the part of a table's row that the digest keeps.
type record struct {
	hash    uint64
	summed  bool // hash is part of Machine.sum
	changed bool // the row is in Machine.changed
	dropped bool // the row has left its table
}

func (r *record) rec() *record { return r }

// row is a session, queue or consumer.
type row interface {
	rec() *record
	// appendRow writes all replicated fields; it is also the snapshot's form.
	appendRow(w *pack.Writer)
}

// changedSlack bounds how many dropped rows the list of changes may keep alive
// between digests.
const changedSlack = 1024

// dirty notes that a row has changed since the last digest.
func (m *Machine) dirty(r row) {
	if rec := r.rec(); !rec.changed {
		rec.changed = true
		m.changed = append(m.changed, r)
	}
}

// forget takes a row that leaves its table out of the digest.
func (m *Machine) forget(r row) {
	rec := r.rec()
	if rec.summed {
		m.sum -= rec.hash
		rec.summed = false
	}
	rec.dropped = true
	if rec.changed {
		m.droppedChanged++
	}
	if m.droppedChanged > changedSlack && m.droppedChanged > len(m.changed)/2 {
		kept := m.changed[:0]
		for _, r := range m.changed {
			if !r.rec().dropped {
				kept = append(kept, r)
			}
		}
		clear(m.changed[len(kept):])
		m.changed, m.droppedChanged = kept, 0
	}
}

// Digest returns the digest of the present state.
func (m *Machine) Digest() uint64 {
	w := &m.scratch
	for _, r := range m.changed {
		rec := r.rec()
		rec.changed = false
		if rec.dropped {
			continue
		}
		w.Reset()
		r.appendRow(w)
		h := xxhash.Sum64(w.Bytes())
		if rec.summed {
			m.sum -= rec.hash
		}
		rec.hash, rec.summed = h, true
		m.sum += h
	}
	clear(m.changed)
	m.changed, m.droppedChanged = m.changed[:0], 0
	w.Reset()
	m.appendScalars(w)
	return m.sum + xxhash.Sum64(w.Bytes())
}
