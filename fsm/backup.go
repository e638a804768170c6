package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"onceq/transport/wire/pack"
)

// BackupHead is what a backup says of itself before its content.
type BackupHead struct {
	Incarnation uint64
	QueueMax    uint64 // the highest queue number given out
	Queues      uint64
	Messages    uint64
	Sessions    uint64
	Now         Time
}

// BackupSink takes the content of a backup, in order: the tables, then bodies.
// The slice belongs to the sink.
type BackupSink interface {
	Head(BackupHead) error
	Tables([]byte) error
	Bodies(chunk []byte, bodies int) error
}

// About how large chunks get. Those of tables cost Apply most, in the cluster that
// takes them.
const (
	backupChunkBytes  = 512 << 10
	backupTablesBytes = 64 << 10
)

// BackupWriter makes a backup of a snapshot, beside the machine that it was
// taken from: it holds the tables once more, and of the bodies one chunk. A
// snapshot may have bodies that its tables do not name, since bodies are written
// after the tables were frozen; a backup has none.
type BackupWriter struct {
	m     *Machine
	sink  BackupSink
	begun bool
	err   error

	leased map[uint64]map[place]bool // told by a lease alone, by queue
	chunk  []byte
	bodies int
	total  uint64
	row    pack.Writer
}

// NewBackupWriter begins a backup.
func NewBackupWriter(cfg Config, sink BackupSink) *BackupWriter {
	w := &BackupWriter{sink: sink}
	w.m = New(cfg, backupBodies{w})
	return w
}

// Read reads a snapshot's stream.
func (w *BackupWriter) Read(snapshot io.Reader) error {
	if err := w.m.Restore(snapshot); err != nil {
		return errors.Join(w.err, err)
	}
	w.begin()
	return w.err
}

// Body takes a body, as it comes.
func (w *BackupWriter) Body(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte) error {
	w.begin()
	if w.err != nil || !w.names(queue, place{lane, offset}) {
		return w.err
	}
	w.row.Reset()
	w.row.Array(5)
	w.row.Uint(queue)
	w.row.Uint(uint64(lane))
	w.row.Uint(offset)
	w.row.Int(publishedAt)
	w.row.Bin(message)
	if len(w.chunk) > 0 && len(w.chunk)+w.row.Len() > backupChunkBytes {
		w.flush()
	}
	w.chunk = binary.BigEndian.AppendUint32(w.chunk, uint32(w.row.Len()))
	w.chunk = append(w.chunk, w.row.Bytes()...)
	w.bodies++
	w.total++
	return w.err
}

// End says that there is nothing more. A body that is missing is an error: the
// backup would not hold what it says.
func (w *BackupWriter) End() error {
	w.flush()
	if w.err == nil && w.total != uint64(w.m.messages) {
		w.err = fmt.Errorf("the snapshot has %d messages and the bodies of %d", w.m.messages, w.total)
	}
	return w.err
}

func (w *BackupWriter) flush() {
	if len(w.chunk) == 0 || w.err != nil {
		return
	}
	w.err = w.sink.Bodies(w.chunk, w.bodies)
	w.chunk, w.bodies = nil, 0
}

// begin hands over the tables, once they are read.
func (w *BackupWriter) begin() {
	if w.begun || w.err != nil {
		return
	}
	w.begun = true
	m := w.m
	m.dropStaging() // a backup under way is not part of this one
	w.err = w.sink.Head(BackupHead{
		Incarnation: m.incarnation, QueueMax: m.nextQueue, Queues: uint64(len(m.queues)),
		Messages: uint64(m.messages), Sessions: uint64(len(m.sessions.rows)), Now: m.now,
	})
	w.leased = map[uint64]map[place]bool{}
	for _, c := range m.consumers {
		for i := range c.slots {
			s := &c.slots[i]
			if s.state != LeaseHeld || s.msg != nil || !c.queue.holds(s) {
				continue
			}
			if w.leased[c.queue.number] == nil {
				w.leased[c.queue.number] = map[place]bool{}
			}
			w.leased[c.queue.number][s.place] = true
		}
	}
	if w.err != nil {
		return
	}
	s, err := m.Snapshot()
	if err != nil {
		w.err = err
		return
	}
	defer s.Release()
	s.sectionBytes = backupTablesBytes
	_, w.err = s.WriteTo(tablesWriter{w})
}

// tablesWriter cuts the tables into chunks.
type tablesWriter struct{ w *BackupWriter }

func (t tablesWriter) Write(b []byte) (n int, err error) {
	for ; len(b) > 0 && err == nil; b = b[min(len(b), backupTablesBytes):] {
		part := append([]byte(nil), b[:min(len(b), backupTablesBytes)]...)
		err = t.w.sink.Tables(part)
		n += len(part)
	}
	return n, err
}

// names says whether the tables name a message.
func (w *BackupWriter) names(queue uint64, p place) bool {
	return w.m.queues[queue].names(p) || w.leased[queue][p]
}

// names says whether a message is told by a record or by its place in a lane. A lease
// alone tells others.
func (q *queue) names(p place) bool {
	if q == nil || int(p.lane) >= len(q.lanes) || q.lanes[p.lane] == nil {
		return false
	}
	if msg := q.records.rows[p]; msg != nil {
		return msg.state != stateGone
	}
	l := q.lanes[p.lane]
	return p.offset >= l.head && p.offset < l.tail && !l.isGone(p.offset)
}

// backupBodies hands on the bodies that stand in a snapshot behind its tables.
type backupBodies struct{ w *BackupWriter }

func (b backupBodies) Put(queue uint64, lane uint8, offset uint64, at int64, message []byte) {
	_ = b.w.Body(queue, lane, offset, at, message) // kept, and told by Read
}
func (backupBodies) Delete(uint64, uint8, uint64)                      {}
func (backupBodies) DeleteRange(uint64, uint8, uint64, uint64)         {}
func (backupBodies) Move(uint64, uint8, uint64, uint64, uint8, uint64) {}
func (backupBodies) Reset()                                            {}
func (backupBodies) Freeze() FrozenBodies                              { return nowhere{} }

// BackupReader reads a backup through as a restore would, without a cluster.
type BackupReader struct {
	m    *Machine
	s    staging
	head BackupHead
}

// NewBackupReader begins to read a backup with this head, as a cluster of this build
// would take it.
func NewBackupReader(group uint32, head BackupHead) *BackupReader {
	m := New(Config{Group: group}, nowhere{})
	m.version = MachineVersion
	return &BackupReader{m: m, head: head, s: staging{
		next: 1, from: Life{Incarnation: head.Incarnation}, queues: head.QueueMax, lanes: map[laneKey]uint64{},
	}}
}

// Tables takes a chunk of tables.
func (r *BackupReader) Tables(chunk []byte) error {
	r.s.addTables(r.m, append([]byte(nil), chunk...))
	return nil
}

// Bodies takes a chunk of bodies.
func (r *BackupReader) Bodies(chunk []byte) error {
	c := restoreChunk{kind: chunkBodies, data: chunk}
	if err := c.check(); err != nil {
		return err
	}
	if err := r.s.placed(chunk); err != nil {
		return err
	}
	return eachBody(chunk, func(queue uint64, lane uint8, offset uint64, _ int64, _ []byte) { r.s.count(queue, lane, offset) })
}

// End says whether all of it makes a whole.
func (r *BackupReader) End() error {
	fresh, err := r.s.whole(r.m)
	if err != nil {
		return err
	}
	if got := uint64(fresh.messages); got != r.head.Messages {
		return fmt.Errorf("its header says %d messages, it has %d", r.head.Messages, got)
	}
	return nil
}
