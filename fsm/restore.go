package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"

	"onceq/transport/wire/pack"
)

// A backup comes in through the log: a command begins, commands bring its
// tables and bodies in numbered chunks, and one command ends. Until that last
// one nothing of it is seen; in it the backup takes the place of everything that
// was here, and another incarnation begins. So a cluster is restored wholly or
// not at all, on each replica at the same index, whoever led in between.
//
// The bodies are put where they will belong: the backup's queues get numbers
// above all that were given out here, and those are never given out again.

// Life is a cluster between two restores.
type Life struct {
	Cluster     string // its id; empty for this very cluster
	Incarnation uint64
}

// BackupID is made at random with a backup and tells it from others.
type BackupID [16]byte

// staging is a backup on its way in.
type staging struct {
	next   uint64 // the incarnation that begins with it
	from   Life   // of the backup
	backup BackupID
	force  bool
	base   uint64 // added to the numbers of its queues
	queues uint64 // the highest of them
	chunks uint64 // taken so far
	bodies uint64
	sum    uint64 // of the chunks of tables, each over the one before
	tables [][]byte
	// tableBytes is their size.
	tableBytes int64
	fresh      *assembly          // of the tables; nil before the first
	lanes      map[laneKey]uint64 // the offset behind the last body
}

type laneKey struct {
	queue uint64
	lane  uint8
}

// RestoreResult answers the restore commands with what is the case now.
type RestoreResult struct {
	Incarnation uint64   // the present one
	Backup      BackupID // of the backup that was restored last
	Under       uint64   // the incarnation of the restore that is under way; 0: none
	Chunks      uint64   // taken of it
	Queues      uint64   // that are here
	Messages    uint64
	Text        string // why the backup cannot be taken over
}

type restoreBegin struct {
	incarnation uint64
	group       uint32
	next        uint64
	replaces    uint64 // the restore under way that it takes the place of; 0: none
	from        Life
	backup      BackupID
	queues      uint64
	force       bool
}

// The kinds of chunks.
const (
	chunkTables = 1
	chunkBodies = 2
)

type restoreChunk struct {
	incarnation uint64
	group       uint32
	next        uint64
	number      uint64 // from 0
	kind        uint8
	data        []byte
}

type restoreEnd struct {
	incarnation uint64
	group       uint32
	next        uint64
	chunks      uint64
	abort       bool
}

func (d *decoder) decodeRestoreBegin(p []byte) (c restoreBegin, err error) {
	r := d.begin(p, 9)
	c = restoreBegin{incarnation: r.Uint(), group: r.Uint32(), next: r.Uint(), replaces: r.Uint()}
	c.from = Life{r.Str(ClusterBytesMax), r.Uint()}
	r.BinExact(c.backup[:])
	c.queues, c.force = r.Uint(), r.Bool()
	switch {
	case r.Err() != nil:
	case c.next == 0 || c.from.Incarnation == 0 || c.next == c.incarnation || c.next == c.from.Incarnation:
		r.Failf("a restore begins an incarnation of its own")
	case c.queues > restoreQueuesMax:
		r.Failf("queue number %d", c.queues)
	}
	return c, r.Done()
}

// restoreQueuesMax bounds the numbers that one restore uses up.
const restoreQueuesMax = 1 << 40

func (d *decoder) decodeRestoreChunk(p []byte) (c restoreChunk, err error) {
	r := d.begin(p, 6)
	c = restoreChunk{incarnation: r.Uint(), group: r.Uint32(), next: r.Uint(), number: r.Uint(), kind: r.Uint8(), data: r.Bin(PayloadBytesMax)}
	if r.Err() == nil && c.kind != chunkTables && c.kind != chunkBodies {
		r.Failf("a chunk of kind %d", c.kind)
	}
	return c, r.Done()
}

func (d *decoder) decodeRestoreEnd(p []byte) (c restoreEnd, err error) {
	r := d.begin(p, 5)
	c = restoreEnd{incarnation: r.Uint(), group: r.Uint32(), next: r.Uint(), chunks: r.Uint(), abort: r.Bool()}
	return c, r.Done()
}

// check reads a chunk of bodies through.
func (c *restoreChunk) check() error {
	rows := 0
	if c.kind == chunkBodies {
		err := eachBody(c.data, func(uint64, uint8, uint64, int64, []byte) { rows++ })
		if err != nil {
			return err
		}
	}
	if len(c.data) > RestoreBytesMax && rows != 1 {
		return checkErrorf(StatusTooLarge, "a chunk of %d bytes, at most %d are accepted", len(c.data), RestoreBytesMax)
	}
	return nil
}

// eachBody visits the rows of a chunk, which has the form of a snapshot's section.
func eachBody(data []byte, visit func(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte)) error {
	var r, in pack.Reader
	for len(data) > 0 {
		if len(data) < 4 || int64(binary.BigEndian.Uint32(data)) > int64(len(data)-4) {
			return io.ErrUnexpectedEOF
		}
		n := int(binary.BigEndian.Uint32(data))
		r.Reset(data[4 : 4+n : 4+n])
		data = data[4+n:]
		r.ArrayExact(5)
		queue, lane, offset, publishedAt, message := r.Uint(), r.Uint8(), r.Uint(), r.Int(), r.Bin(PayloadBytesMax)
		if r.Err() == nil && (queue == 0 || queue > restoreQueuesMax || lane >= Priorities || offset+1 == 0) {
			r.Failf("a body at lane %d offset %d of queue %d", lane, offset, queue)
		}
		if err := r.Done(); err != nil {
			return err
		}
		if _, err := readAttributes(&in, message); err != nil {
			return err
		}
		visit(queue, lane, offset, publishedAt, message)
	}
	return nil
}

// lived says whether the cluster had this incarnation before a restore, or the
// one whose backup it took over.
func (m *Machine) lived(incarnation uint64) bool {
	return slices.ContainsFunc(m.lives, func(l Life) bool { return l.Incarnation == incarnation })
}

// Lives returns what the cluster was before the restores that led here.
func (m *Machine) Lives() []Life { return slices.Clone(m.lives) }

// judgeRestore says whether a command of a restore concerns what is going on. Who
// asks names the incarnation that is to begin, so that a repeat after the end is
// answered like the first, and a late copy of one that was replaced is stale.
func (m *Machine) judgeRestore(incarnation uint64, group uint32, next uint64, r *Result) (st Status, done bool) {
	r.Restore = RestoreResult{Incarnation: m.incarnation, Backup: m.backup, Queues: uint64(len(m.queues)), Messages: uint64(m.messages)}
	if m.staging != nil {
		r.Restore.Under, r.Restore.Chunks = m.staging.next, m.staging.chunks
	}
	switch {
	case group != m.group:
		return StatusWrongIncarnation, true
	case next == m.incarnation:
		return StatusOK, true
	case m.lived(next):
		return StatusRestoreStale, true
	case incarnation != m.incarnation:
		return StatusWrongIncarnation, true
	}
	return StatusOK, false
}

// beginRestore makes room for a backup. It takes the place of another that is
// under way only if it names that one.
func (m *Machine) beginRestore(c restoreBegin, r *Result) Status {
	st, done := m.judgeRestore(c.incarnation, c.group, c.next, r)
	switch {
	case done:
		return st
	case m.staging != nil && m.staging.next == c.next:
		return StatusOK
	case m.staging != nil && m.staging.next != c.replaces:
		return StatusRestoreStale
	case !c.force && c.backup == m.backup && m.backup != (BackupID{}):
		return StatusOK // this very backup is here already
	case !c.force && len(m.queues) > 0:
		return StatusNotEmpty
	}
	m.dropStaging()
	m.staging = &staging{
		next: c.next, from: c.from, backup: c.backup, force: c.force,
		base: m.nextQueue, queues: c.queues, lanes: map[laneKey]uint64{},
	}
	m.nextQueue += c.queues
	r.Restore.Under, r.Restore.Chunks = c.next, 0
	return StatusOK
}

// dropStaging forgets a backup that is under way.
func (m *Machine) dropStaging() {
	if m.staging == nil {
		return
	}
	for _, k := range m.staging.sortedLanes() {
		m.bodies.DeleteRange(k.queue, k.lane, 0, m.staging.lanes[k])
	}
	m.staging = nil
}

func (s *staging) sortedLanes() []laneKey {
	ks := make([]laneKey, 0, len(s.lanes))
	for k := range s.lanes {
		ks = append(ks, k)
	}
	slices.SortFunc(ks, func(a, b laneKey) int {
		if a.queue != b.queue {
			if a.queue < b.queue {
				return -1
			}
			return 1
		}
		return int(a.lane) - int(b.lane)
	})
	return ks
}

// takeChunk keeps the next chunk; an earlier one is a repeat.
func (m *Machine) takeChunk(c restoreChunk, r *Result) Status {
	st, done := m.judgeRestore(c.incarnation, c.group, c.next, r)
	s := m.staging
	switch {
	case done:
		return st
	case s == nil || s.next != c.next:
		return StatusRestoreStale
	case c.number < s.chunks:
		return StatusOK
	case c.number > s.chunks:
		return StatusOutOfOrder
	case c.kind == chunkTables && len(c.data) == 0 && m.version >= versionBodiesPlaced:
		r.Restore.Text = "a part of the tables without anything in it" // it would take room without counting
		return StatusMalformed
	case c.kind == chunkTables && m.version >= versionRestoreBound && s.tableBytes+int64(len(c.data)) > m.limits.RestoreTablesMax:
		r.Restore.Text = fmt.Sprintf("the tables of the backup take more than %d bytes", m.limits.RestoreTablesMax)
		return StatusTooLarge
	case c.kind == chunkTables:
		s.addTables(m, slices.Clone(c.data))
	default:
		if c.check() != nil {
			return StatusMalformed
		}
		if m.version >= versionBodiesPlaced {
			if err := s.placed(c.data); err != nil {
				r.Restore.Text = err.Error()
				return StatusMalformed
			}
		}
		_ = eachBody(c.data, func(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte) {
			if queue > s.queues {
				return // the end will find it missing
			}
			m.bodies.Put(s.base+queue, lane, offset, publishedAt, message)
			s.count(queue, lane, offset)
		})
	}
	s.chunks++
	r.Restore.Chunks = s.chunks
	return StatusOK
}

// placed says why bodies cannot be taken: the tables that came before them must name a
// message at the place of each, and those of a lane come in order, each once. One that is
// elsewhere, or there again, would let the number of bodies be right, and a message have
// none when its turn comes.
func (s *staging) placed(bodies []byte) error {
	var err error
	switch {
	case s.fresh == nil:
		return errors.New("bodies, and no tables before them")
	case s.fresh.err != nil:
		return nil // the end tells it
	case !s.fresh.done:
		return errors.New("bodies, and before them tables that were cut short")
	}
	ends := map[laneKey]uint64{} // behind the last body of these
	_ = eachBody(bodies, func(queue uint64, lane uint8, offset uint64, _ int64, _ []byte) {
		k := laneKey{s.base + queue, lane}
		end := max(s.lanes[k], ends[k])
		switch ends[k] = offset + 1; {
		case err != nil:
		case !s.fresh.m.queues[k.queue].names(place{lane, offset}):
			err = fmt.Errorf("a body at lane %d offset %d of queue %d, where its tables have no message", lane, offset, queue)
		case offset < end:
			err = fmt.Errorf("a body at lane %d offset %d of queue %d behind one at offset %d", lane, offset, queue, end-1)
		}
	})
	return err
}

// count notes a body.
func (s *staging) count(queue uint64, lane uint8, offset uint64) {
	k := laneKey{s.base + queue, lane}
	s.lanes[k] = max(s.lanes[k], offset+1)
	s.bodies++
}

// addTables also keeps the sum by which replicas compare what they hold.
func (s *staging) addTables(m *Machine, b []byte) {
	if s.fresh == nil {
		s.fresh = newAssembly(m, s.base)
	}
	s.fresh.take(b)
	s.tables = append(s.tables, b)
	s.tableBytes += int64(len(b))
	var h xxhash.Digest
	h.ResetWithSeed(s.sum)
	_, _ = h.Write(b)
	s.sum = h.Sum64()
}

// endRestore puts the backup in the place of everything, or drops it.
func (m *Machine) endRestore(c restoreEnd, r *Result, eff *Effects) Status {
	st, done := m.judgeRestore(c.incarnation, c.group, c.next, r)
	s := m.staging
	switch {
	case done:
		return st
	case s == nil || s.next != c.next:
		return StatusRestoreStale
	case c.abort:
		m.dropStaging()
		r.Restore.Under, r.Restore.Chunks = 0, 0
		return StatusOK
	case c.chunks != s.chunks:
		return StatusOutOfOrder
	case !s.force && len(m.queues) > 0:
		return StatusNotEmpty
	}
	fresh, err := s.whole(m)
	if err != nil {
		r.Restore.Text = err.Error()
		return StatusMalformed
	}
	m.become(fresh, s)
	eff.Restored = true
	r.Restore = RestoreResult{Incarnation: m.incarnation, Backup: m.backup, Queues: uint64(len(m.queues)), Messages: uint64(m.messages)}
	return StatusOK
}

// nowhere is a BodyStore for a machine whose bodies are elsewhere.
type nowhere struct{}

func (nowhere) Put(uint64, uint8, uint64, int64, []byte)                    {}
func (nowhere) Delete(uint64, uint8, uint64)                                {}
func (nowhere) DeleteRange(uint64, uint8, uint64, uint64)                   {}
func (nowhere) Move(uint64, uint8, uint64, uint64, uint8, uint64)           {}
func (nowhere) Reset()                                                      {}
func (nowhere) Freeze() FrozenBodies                                        { return nowhere{} }
func (nowhere) Release()                                                    {}
func (nowhere) Each(func(uint64, uint8, uint64, int64, []byte) error) error { return nil }

// fromBefore says whether a message was stored before a restore.
func (q *queue) fromBefore(p place, msg *message) bool {
	l := q.lanes[p.lane]
	return l != nil && p.offset < l.restoredBelow || msg != nil && msg.restored
}

// become puts a machine in the place of this one. What belongs to the log and
// not to the backup stays.
func (m *Machine) become(fresh *Machine, s *staging) {
	for _, n := range sortedKeys(m.queues) {
		for _, l := range m.queues[n].lanes {
			if l != nil {
				m.bodies.DeleteRange(n, l.number, 0, l.tail)
			}
		}
	}
	for i, l := range fresh.lives {
		if l.Cluster == "" {
			fresh.lives[i].Cluster = s.from.Cluster
		}
	}
	lives := append(fresh.lives, m.lives...)
	lives = append(lives, s.from, Life{Incarnation: m.incarnation})
	fresh.lives = newestLives(lives)
	fresh.bodies, fresh.index, fresh.now = m.bodies, m.index, m.now
	fresh.founded, fresh.incarnation, fresh.backup = m.founded, s.next, s.backup
	fresh.leader, fresh.leaderNonce, fresh.graceFloor, fresh.graceHolds = m.leader, m.leaderNonce, m.graceFloor, m.graceHolds
	fresh.nextSession = max(m.nextSession, fresh.nextSession)
	fresh.nextConsumer = max(m.nextConsumer, fresh.nextConsumer)
	fresh.deletions = max(m.deletions, fresh.deletions)
	fresh.lastEpoch = max(m.lastEpoch, fresh.lastEpoch)
	fresh.nextQueue = m.nextQueue
	fresh.assignFrom, fresh.detaching = 0, 0
	fresh.version, fresh.supports = m.version, m.supports
	fresh.digests, fresh.dec, fresh.pulls = m.digests, m.dec, m.pulls
	fresh.spent, fresh.passed, fresh.answered = m.spent, m.passed, m.answered
	copying := m.copying != nil
	m.EndCopy()
	if *m = *fresh; copying {
		m.BeginCopy() // of the tables that are here now
	}
}

// newestLives keeps the newest, each once.
func newestLives(all []Life) []Life {
	var kept []Life
	for _, l := range slices.Backward(all) {
		if len(kept) < livesMax && !slices.ContainsFunc(kept, func(k Life) bool { return k.Incarnation == l.Incarnation }) {
			kept = append(kept, l)
		}
	}
	slices.Reverse(kept)
	return kept
}

// appendLives writes what restores have left in the scalars. The chunks of a
// backup under way are told by their sum, its bodies by their number.
func (m *Machine) appendLives(w *pack.Writer) {
	w.Uint(m.founded)
	w.Array(len(m.lives))
	for _, l := range m.lives {
		w.Array(2)
		w.Str(l.Cluster)
		w.Uint(l.Incarnation)
	}
	w.Bin(m.backup[:])
	s := m.staging
	if s == nil {
		s = &staging{}
	}
	w.Uint(s.next)
	w.Uint(s.chunks)
	w.Uint(s.bodies)
	w.Uint(s.sum)
}

func (m *Machine) readLives(r *pack.Reader) {
	m.founded = r.Uint()
	for range r.Array(livesMax) {
		r.ArrayExact(2)
		m.lives = append(m.lives, Life{r.Str(ClusterBytesMax), r.Uint()})
	}
	r.BinExact(m.backup[:])
	// Of what is under way the section of its own tells; the sum is computed anew.
	s := staging{next: r.Uint(), chunks: r.Uint(), bodies: r.Uint()}
	if r.Uint(); s.next != 0 {
		s.lanes = map[laneKey]uint64{}
		m.staging = &s
	}
}

// appendRow writes what a snapshot says of it, before its tables.
func (s *staging) appendRow(w *pack.Writer) {
	w.Array(stagingFields)
	w.Str(s.from.Cluster)
	w.Uint(s.from.Incarnation)
	w.Bin(s.backup[:])
	w.Bool(s.force)
	w.Uint(s.base)
	w.Uint(s.queues)
	ks := s.sortedLanes()
	w.Array(len(ks))
	for _, k := range ks {
		w.Array(3)
		w.Uint(k.queue)
		w.Uint(uint64(k.lane))
		w.Uint(s.lanes[k])
	}
}

// appendChunk writes a chunk of tables, a row of its own.
func appendChunk(w *pack.Writer, tables []byte) {
	w.Array(1)
	w.Bin(tables)
}

const stagingFields = 7

func (m *Machine) readStaging(r *pack.Reader) {
	n := r.Array(stagingFields)
	s := m.staging
	switch {
	case r.Err() != nil:
	case s == nil:
		r.Failf("part of a backup that is not under way")
	case n == 1:
		s.addTables(m, slices.Clone(r.Bin(PayloadBytesMax)))
	case n == stagingFields:
		s.from = Life{r.Str(ClusterBytesMax), r.Uint()}
		r.BinExact(s.backup[:])
		s.force, s.base, s.queues = r.Bool(), r.Uint(), r.Uint()
		for range r.Array(rowItemsMax) {
			r.ArrayExact(3)
			k := laneKey{r.Uint(), r.Uint8()}
			if end := r.Uint(); r.Err() == nil {
				s.lanes[k] = end
			}
		}
	default:
		r.Failf("%d fields", n)
	}
}
