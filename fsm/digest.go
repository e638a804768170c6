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

	copyStale bool   // the row has changed since it was copied
	copyAt    uint32 // where its copy is in Machine.copying, if it is there
}

func (r *record) rec() *record  { return r }
func (r *record) inTable() bool { return !r.dropped }

func (msg *message) inTable() bool { return !msg.dropped && msg.gen == msg.q.gen }

// row is a session, queue, message with a record, block of what is gone, or consumer.
type row interface {
	rec() *record
	// inTable is false for what belongs to a queue that dropped all its records since.
	inTable() bool
	// appendRow writes all replicated fields; it is also the snapshot's form.
	appendRow(w *pack.Writer)
	// appendDigest is what the digest hashes: the same fields, of what is long and
	// hardly changes a sum.
	appendDigest(w *pack.Writer)
}

func (s *session) appendDigest(w *pack.Writer)   { s.appendRow(w) }
func (msg *message) appendDigest(w *pack.Writer) { msg.appendRow(w) }
func (c *consumer) appendDigest(w *pack.Writer)  { c.appendRow(w) }

// changedSlack bounds how many dropped rows the list of changes may keep alive
// between digests.
const changedSlack = 1024

// dirty notes that a row has changed since the last digest, and since it was
// copied for a snapshot.
func (m *Machine) dirty(r row) {
	if m.copying != nil {
		m.copying.touch(r)
	}
	if rec := r.rec(); !rec.changed {
		rec.changed = true
		m.changed = append(m.changed, r)
	}
}

// forget takes a row that leaves its table out of the digest.
func (m *Machine) forget(r row) {
	rec := r.rec()
	if rec.summed {
		m.add(r, -rec.hash)
		rec.summed = false
	}
	rec.dropped = true
	if m.copying != nil {
		m.copying.drop(r)
	}
	if rec.changed {
		m.droppedChanged++
	}
	if m.droppedChanged > changedSlack && m.droppedChanged > len(m.changed)/2 {
		kept := m.changed[:0]
		for _, r := range m.changed {
			if r.inTable() {
				kept = append(kept, r)
			}
		}
		clear(m.changed[len(kept):])
		m.changed, m.droppedChanged = kept, 0
	}
}

// add adds to the sum. What messages and what is gone add is kept per queue as well,
// so that a purge can take it out at once.
func (m *Machine) add(r row, hash uint64) {
	m.sum += hash
	switch r := r.(type) {
	case *message:
		r.q.recordsSum += hash
	case *goneBlock:
		r.q.recordsSum += hash
	}
}

// Digest returns the digest of the present state.
func (m *Machine) Digest() uint64 {
	for _, r := range m.changed {
		m.sumRow(r)
	}
	clear(m.changed)
	m.changed, m.droppedChanged = m.changed[:0], 0
	w := &m.scratch
	w.Reset()
	m.appendScalars(w)
	return m.sum + xxhash.Sum64(w.Bytes())
}

func (m *Machine) sumRow(r row) {
	rec := r.rec()
	rec.changed = false
	if !r.inTable() {
		return
	}
	w := &m.scratch
	w.Reset()
	r.appendDigest(w)
	h := xxhash.Sum64(w.Bytes())
	if rec.summed {
		m.add(r, -rec.hash)
	}
	rec.hash, rec.summed = h, true
	m.add(r, h)
}

const (
	// digestRowsMax rows may be left for a digest to sum; more of them, as after a
	// restore, are summed before, digestStepRows with each entry.
	digestRowsMax  = 64 << 10
	digestStepRows = 1 << 10
)

// sumSome keeps small what the next digest costs.
func (m *Machine) sumSome() {
	for range min(digestStepRows, len(m.changed)-digestRowsMax) {
		last := len(m.changed) - 1
		r := m.changed[last]
		m.changed[last] = nil
		m.changed = m.changed[:last]
		if r.rec().dropped {
			m.droppedChanged--
		}
		m.sumRow(r)
	}
}
