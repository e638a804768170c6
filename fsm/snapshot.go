package fsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"onceq/transport/wire/pack"
)

// The layout of a snapshot, big endian. It is on disk: append versions and
// kinds, never change one.
//
//	"ONCEQSNP"  version (2)  group (4)
//	sections:   kind (1)  length (4)  CRC32C of kind, length and payload (4)  payload
//
// A section holds rows of one table, each with its length (4) before it. The
// scalars come first, queues before the messages and consumers that refer to
// them, messages before consumers, the end section, with the number of sections before it, last: a snapshot without one
// was cut short.
const (
	snapshotMagic   = "ONCEQSNP"
	snapshotVersion = 1

	sectionScalars   = 1
	sectionSessions  = 2
	sectionQueues    = 3
	sectionConsumers = 4
	sectionBodies    = 5
	sectionMessages  = 6
	sectionRestore   = 7 // a backup on its way in
	sectionGone      = 8 // from versionGoneRanges on
	sectionEnd       = 255

	sectionHeaderBytes = 9
	sectionBytesTarget = 256 << 10
	sectionBytesMax    = 1 << 30
)

// ErrBadSnapshot is returned by Restore for a snapshot that is damaged, cut
// short, or of a version or group that this machine cannot take.
var ErrBadSnapshot = errors.New("snapshot is damaged or not for this machine")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot is the state at an index. It does not change while Apply goes on.
type Snapshot struct {
	head    []byte // up to the first table
	tables  *tableCopy
	staging []byte   // what there is to know of a restore under way; nil: none is
	chunks  [][]byte // its tables, as they came
	bodies  FrozenBodies

	sectionBytes int // a section is closed when it is larger
}

// Snapshot freezes the state. After BeginCopy it costs what has changed since
// the last CopySome.
func (m *Machine) Snapshot() (*Snapshot, error) {
	if m.copying == nil {
		m.BeginCopy()
	}
	c := m.copying
	for {
		r, ok := c.take()
		if !ok {
			break
		}
		c.copy(r)
	}
	m.EndCopy()
	s := &Snapshot{tables: c, sectionBytes: sectionBytesTarget}
	s.head = append(s.head, snapshotMagic...)
	s.head = binary.BigEndian.AppendUint16(s.head, snapshotVersion)
	s.head = binary.BigEndian.AppendUint32(s.head, m.group)
	var row pack.Writer
	w := sectionWriter{most: s.sectionBytes, emit: func(b []byte) error { s.head = append(s.head, b...); return nil }}
	m.appendScalars(&row)
	if err := errors.Join(w.row(sectionScalars, row.Bytes()), w.flush()); err != nil {
		return nil, err
	}
	if m.staging != nil {
		row.Reset()
		m.staging.appendRow(&row)
		s.staging, s.chunks = slices.Clone(row.Bytes()), m.staging.tables
	}
	s.bodies = m.bodies.Freeze()
	return s, nil
}

// Bodies is the body store's view. A store that has written its bodies elsewhere
// by the time of WriteTo visits none.
func (s *Snapshot) Bodies() FrozenBodies { return s.bodies }

// Release lets the body store forget what was deleted meanwhile.
func (s *Snapshot) Release() { s.bodies.Release() }

// WriteTo writes the snapshot; it may run beside Apply.
func (s *Snapshot) WriteTo(out io.Writer) (int64, error) {
	var written int64
	emit := func(b []byte) error {
		n, err := out.Write(b)
		written += int64(n)
		return err
	}
	// One write for small tables, however many sections they are.
	tables := bufio.NewWriterSize(writerFunc(emit), 1<<20)
	w := sectionWriter{most: s.sectionBytes, emit: func(b []byte) error { _, err := tables.Write(b); return err }, sections: 1}
	tables.Write(s.head)
	for _, r := range s.tables.frozen() {
		if err := w.row(sectionOrder[rowKey(r.row).section], r.data); err != nil {
			return written, err
		}
	}
	var row pack.Writer
	if s.staging != nil {
		w.row(sectionRestore, s.staging) // a write that fails makes all that follow fail
		for _, t := range s.chunks {
			row.Reset()
			appendChunk(&row, t)
			w.row(sectionRestore, row.Bytes())
		}
	}
	if err := errors.Join(w.flush(), tables.Flush()); err != nil {
		return written, err
	}
	w.emit = emit
	err := s.bodies.Each(func(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte) error {
		row.Reset()
		row.Array(5)
		row.Uint(queue)
		row.Uint(uint64(lane))
		row.Uint(offset)
		row.Int(publishedAt)
		row.Bin(message)
		return w.row(sectionBodies, row.Bytes())
	})
	if err == nil {
		err = w.flush()
	}
	if err == nil {
		row.Reset()
		row.Uint(w.sections)
		w.row(sectionEnd, row.Bytes())
		err = w.flush()
	}
	return written, err
}

type writerFunc func([]byte) error

func (f writerFunc) Write(b []byte) (int, error) {
	if err := f(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// sectionWriter collects rows of one kind into sections.
type sectionWriter struct {
	emit     func([]byte) error
	most     int // a section is closed when it is larger
	kind     byte
	buf      []byte
	sections uint64
}

func (w *sectionWriter) row(kind byte, row []byte) error {
	if len(w.buf) > 0 && (kind != w.kind || len(w.buf) >= w.most) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if len(w.buf) == 0 {
		w.kind = kind
		w.buf = append(w.buf, make([]byte, sectionHeaderBytes)...)
	}
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(row)))
	w.buf = append(w.buf, row...)
	return nil
}

func (w *sectionWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	w.buf[0] = w.kind
	binary.BigEndian.PutUint32(w.buf[1:], uint32(len(w.buf)-sectionHeaderBytes))
	binary.BigEndian.PutUint32(w.buf[5:], sectionSum(w.buf[:5], w.buf[sectionHeaderBytes:]))
	w.sections++
	err := w.emit(w.buf)
	w.buf = w.buf[:0]
	return err
}

func sectionSum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

// Restore replaces the whole state, also by an older one: a follower may be
// handed a snapshot from before what it has applied. After an error the machine
// must not be used.
func (m *Machine) Restore(in io.Reader) error {
	br := bufio.NewReaderSize(in, 1<<20)
	head := make([]byte, snapshotHeadBytes)
	if _, err := io.ReadFull(br, head); err != nil {
		return fmt.Errorf("%w: header: %w", ErrBadSnapshot, err)
	}
	if err := m.checkHead(head); err != nil {
		return err
	}
	copying := m.copying != nil
	m.reset()
	m.bodies.Reset()
	at := int64(len(head))
	from := &origins{}
	for sections := uint64(0); ; sections++ {
		kind, payload, err := readSection(br)
		if err != nil {
			return fmt.Errorf("%w: section %d at byte %d: %w", ErrBadSnapshot, sections, at, err)
		}
		done, err := m.restoreSection(kind, payload, sections, from)
		if err != nil {
			return fmt.Errorf("%w: section %d (kind %d) at byte %d: %w", ErrBadSnapshot, sections, kind, at, err)
		}
		if done {
			break
		}
		at += int64(sectionHeaderBytes + len(payload))
	}
	m.wakeAll()
	if copying {
		m.BeginCopy()
	}
	return nil
}

// wakeAll finds out which queues have something to do in the next entry.
func (m *Machine) wakeAll() {
	for _, n := range sortedKeys(m.queues) {
		q := m.queues[n]
		lags := false
		for _, l := range q.lanes {
			if l != nil {
				l.lags = l.head < l.tail && (q.records.rows[place{l.number, l.head}] != nil || l.headIsGone())
				lags = lags || l.lags
			}
		}
		if lags || q.assignable() {
			m.wake(q)
		}
	}
}

// origins is what the rows of a snapshot or a backup refer to while they are read.
type origins struct {
	backup bool   // what is read becomes part of another life, see assembly
	base   uint64 // added to the numbers of queues
	doubt  error  // the first, see audit
}

func (o *origins) doubtf(format string, args ...any) {
	if o.doubt == nil {
		o.doubt = fmt.Errorf(format, args...)
	}
}

const snapshotHeadBytes = len(snapshotMagic) + 6

func (m *Machine) checkHead(head []byte) error {
	version := binary.BigEndian.Uint16(head[len(snapshotMagic):])
	group := binary.BigEndian.Uint32(head[len(snapshotMagic)+2:])
	switch {
	case string(head[:len(snapshotMagic)]) != snapshotMagic:
		return fmt.Errorf("%w: it does not begin with %s", ErrBadSnapshot, snapshotMagic)
	case version != snapshotVersion:
		return fmt.Errorf("%w: version %d, this build knows %d", ErrBadSnapshot, version, snapshotVersion)
	case group != m.group:
		return fmt.Errorf("%w: of group %d, not %d", ErrBadSnapshot, group, m.group)
	}
	return nil
}

// readSection grows its buffer with the bytes that arrive, not with the length
// that a damaged header claims.
func readSection(br *bufio.Reader) (byte, []byte, error) {
	var head [sectionHeaderBytes]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return 0, nil, noEOF(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > sectionBytesMax {
		return 0, nil, fmt.Errorf("length %d is above %d", n, sectionBytesMax)
	}
	payload, err := io.ReadAll(io.LimitReader(br, int64(n)))
	if err != nil {
		return 0, nil, err
	}
	if len(payload) != int(n) {
		return 0, nil, io.ErrUnexpectedEOF
	}
	if sum := sectionSum(head[:5], payload); sum != binary.BigEndian.Uint32(head[5:]) {
		return 0, nil, errors.New("checksum mismatch")
	}
	return head[0], payload, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (m *Machine) restoreSection(kind byte, payload []byte, before uint64, from *origins) (done bool, err error) {
	var r pack.Reader
	for len(payload) > 0 {
		if len(payload) < 4 {
			return false, io.ErrUnexpectedEOF
		}
		n := int(binary.BigEndian.Uint32(payload))
		if payload = payload[4:]; n > len(payload) {
			return false, io.ErrUnexpectedEOF
		}
		r.Reset(payload[:n:n])
		payload = payload[n:]
		switch kind {
		case sectionScalars:
			m.readScalars(&r)
		case sectionSessions:
			m.readSession(&r, from)
		case sectionQueues:
			m.readQueue(&r, from)
		case sectionMessages:
			m.readMessage(&r, from)
		case sectionGone:
			m.readGone(&r, from)
		case sectionConsumers:
			m.readConsumer(&r, from)
		case sectionRestore:
			m.readStaging(&r)
		case sectionBodies:
			r.ArrayExact(5)
			queue, lane, offset, publishedAt, message := r.Uint(), r.Uint8(), r.Uint(), r.Int(), r.Bin(PayloadBytesMax)
			if r.Err() == nil {
				m.bodies.Put(queue, lane, offset, publishedAt, message)
			}
		case sectionEnd:
			if n := r.Uint(); n != before {
				return false, fmt.Errorf("%d sections, %d were written", before, n)
			}
			done = true
		default:
			return false, fmt.Errorf("unknown kind")
		}
		if err := r.Done(); err != nil {
			return false, err
		}
	}
	return done, nil
}
