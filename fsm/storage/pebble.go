package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"onceq/fsm"
)

const (
	// YoungBytesDefault is the budget of bodies in memory.
	YoungBytesDefault = 256 << 20

	cacheBytes    = 32 << 20 // of blocks read from disk: what a backlog is streamed through
	memTableBytes = 16 << 20
	blockBytes    = 32 << 10
	// evictBytes leave memory with one batch.
	evictBytes = 4 << 20
	// formatVersion is on disk, in checkpoints.
	formatVersion = pebble.FormatTableFormatV6
)

// ErrReplaced is what a view gets that was frozen before a restore replaced
// everything.
var ErrReplaced = errors.New("the bodies were replaced by a restore")

// ErrClosed is what a view gets after Close.
var ErrClosed = errors.New("the body store is closed")

// Options configures a Pebble.
type Options struct {
	// Dir is the live directory. What is in it is thrown away: only checkpoints
	// outlive a process.
	Dir string
	// YoungBytes is the budget of memory for bodies that were not written yet, and
	// for those that were and may be read soon. Default YoungBytesDefault.
	YoungBytes int64
	// OpenTables is how many tables may be open at once, a few dozen at least. Default
	// OpenTables.
	OpenTables int
	// Fatal is called with the first storage error. In production it ends the
	// process. Default: log and exit.
	Fatal func(error)
	// Logger gets what Pebble has to say. Default: slog.Default().
	Logger *slog.Logger
	// FS is where the files are. Default: the operating system's.
	FS vfs.FS
}

func (o Options) withDefaults() Options {
	if o.YoungBytes == 0 {
		o.YoungBytes = YoungBytesDefault
	}
	if o.OpenTables == 0 {
		o.OpenTables = OpenTables
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Fatal == nil {
		log := o.Logger
		o.Fatal = func(err error) {
			log.Error("storage error: this process ends", "error", err)
			os.Exit(1)
		}
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	return o
}

const (
	// OpenTables is the default of Options.OpenTables.
	OpenTables = 1000
	// scanTables are open at most while a backup reads: it goes from one to the next.
	scanTables = 64
)

// Pebble keeps young bodies in memory, up to a budget, and the others on disk.
//
// There is no write-ahead log, since the raft log is one: the live directory
// lives as long as the process, and what outlives it is a checkpoint together
// with the entries behind it. A body that is acked while young is never written.
//
// The machine's calls never wait for a read. They wait for a write only when
// twice the budget is in memory, which Stats tells; who can hold publishes back
// earlier asks Full. Get reads from disk and is for the senders.
type Pebble struct {
	o     Options
	cache *pebble.Cache
	wake  chan struct{} // cap 1: there is something to write
	quit  chan struct{}
	ended chan struct{}
	dead  chan struct{} // closed at the first storage error

	compactions atomic.Uint64

	// turn is a token: whoever has it takes changes from todo and commits them, and
	// bodies after them. So no delete overtakes a body that was put after it.
	turn chan struct{}

	// open is held for reading by who uses db, and for writing by who replaces it.
	// It comes before mu.
	open sync.RWMutex
	db   *pebble.DB // nil after Close
	// tables are the options of tables that are not written by db.
	tables sstable.WriterOptions
	// tableBuf is for writeTable; who has turn uses it.
	tableBuf []byte

	mu       sync.RWMutex // guards the fields below, never held over I/O
	room     *sync.Cond   // there is room again
	young    young
	ahead    ahead
	todo     []change          // to be done on disk, in order
	moved    map[place]*move   // bodies that are still under another place on disk
	life     uint64            // counts restores: what was begun before the last one is dropped
	frozen   int               // views that hold changes back
	frozenAt uint64            // the newest run in any of them
	held     []change          // deletes of what views may have, since the first freeze
	diskEnds map[laneID]uint64 // of each lane that a checkpoint brought, the offset behind the last
	stalled  time.Duration     // that the machine has waited in all, but for
	waiting  time.Time         // when it began to wait now; zero: it does not
	failed   error
	closed   bool
}

// change is something to do on disk: forget a range, or copy a body to where it
// was moved.
type change struct {
	deletion
	move *move // nil: forget
}

// move is a body's way to another place on disk.
type move struct {
	from, to place
	before   *move // that brings it to from, if it was not done yet
	taken    bool  // it is being done, or is
	done     bool
}

// steps are the places on disk through which a body comes to p, first the one
// where it is now, as far as that was noted; mu is held. A move is on disk a
// little before it is noted as done, so who does not find the body at a step goes
// on to the next.
func (s *Pebble) steps(p place) []place {
	back := []place{p}
	for m := s.moved[p]; m != nil && !m.done; m = m.before {
		back = append(back, m.from)
	}
	slices.Reverse(back)
	return back
}

// changeBytes is about what a change that waits costs.
const changeBytes = 96

var _ fsm.BodyStore = (*Pebble)(nil)

// OpenPebble opens an empty store.
func OpenPebble(o Options) (*Pebble, error) {
	o = o.withDefaults()
	s := &Pebble{
		o: o, cache: pebble.NewCache(cacheBytes),
		wake: make(chan struct{}, 1), turn: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}), dead: make(chan struct{}),
	}
	s.turn <- struct{}{}
	s.room = sync.NewCond(&s.mu)
	s.young.reset()
	s.ahead.reset()
	s.moved = make(map[place]*move)
	s.o.FS = &syncFS{o.FS, s.fail}
	if err := s.replace(func(string) error { return nil }); err != nil {
		s.cache.Unref()
		return nil, err
	}
	go s.write()
	return s, nil
}

const keyBytes = 17

// key is queue u64 | lane u8 | offset u64, big endian, so that a lane is a range
// in the order of its offsets. It is on disk.
func key(id laneID, offset uint64) []byte {
	return appendKey(make([]byte, 0, keyBytes), id, offset)
}

func appendKey(b []byte, id laneID, offset uint64) []byte {
	b = binary.BigEndian.AppendUint64(b, id.queue)
	b = append(b, id.lane)
	return binary.BigEndian.AppendUint64(b, offset)
}

func parseKey(b []byte) (id laneID, offset uint64, err error) {
	if len(b) != keyBytes {
		return id, 0, fmt.Errorf("a key of %d bytes", len(b))
	}
	return laneID{binary.BigEndian.Uint64(b), b[8]}, binary.BigEndian.Uint64(b[9:]), nil
}

// The value is publishedAt i64, big endian, and the message. It is on disk.
func parseValue(b []byte) (publishedAt int64, message []byte, err error) {
	if len(b) < 8 {
		return 0, nil, fmt.Errorf("a value of %d bytes", len(b))
	}
	return int64(binary.BigEndian.Uint64(b)), b[8:], nil
}

// Put keeps a copy of a body. Putting a place twice keeps the newer one.
func (s *Pebble) Put(queue uint64, ln uint8, offset uint64, publishedAt int64, message []byte) {
	p := place{laneID{queue, ln}, offset}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait()
	// Copied, since message aliases its log entry: the last body of an entry would
	// keep all of it, and no budget would see that.
	sl := s.young.room(8 + len(message))
	v := sl.value()
	binary.BigEndian.PutUint64(v, uint64(publishedAt))
	copy(v[8:], message)
	s.put(p, sl)
}

// wait returns when there is room; mu is held.
func (s *Pebble) wait() {
	if s.memory() <= 2*s.o.YoungBytes || s.failed != nil || s.closed {
		return
	}
	s.waiting = time.Now()
	for s.memory() > 2*s.o.YoungBytes && s.failed == nil && !s.closed {
		s.room.Wait()
	}
	s.stalled += time.Since(s.waiting)
	s.waiting = time.Time{}
}

// put gives a place a body; mu is held.
func (s *Pebble) put(p place, sl slot) {
	s.young.put(p, sl, p.offset < s.diskEnds[p.lane])
	if s.young.bytes > s.o.YoungBytes {
		s.signal()
	}
}

// inView says whether a view may have what is in the run.
func (s *Pebble) inView(r *run) bool { return s.frozen > 0 && r.number <= s.frozenAt }

func (s *Pebble) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Get returns a body. It may read from disk.
func (s *Pebble) Get(queue uint64, ln uint8, offset uint64) (publishedAt int64, message []byte, ok bool) {
	v, err := s.get(place{laneID{queue, ln}, offset})
	if err == nil && v != nil {
		publishedAt, message, err = parseValue(v)
	}
	if err != nil {
		s.fail(fmt.Errorf("read body %d of lane %d of queue %d: %w", offset, ln, queue, err))
		return 0, nil, false
	}
	return publishedAt, message, v != nil
}

// get returns a value, nil for none.
func (s *Pebble) get(p place) ([]byte, error) {
	s.mu.RLock()
	v, ok := s.young.get(p)
	if ok {
		s.mu.RUnlock()
		return v, nil
	}
	var steps []place
	if len(s.moved) > 0 {
		steps = s.steps(p)
	}
	s.mu.RUnlock()
	if steps == nil {
		return s.read(p)
	}
	for _, at := range steps {
		if v, err := s.read(at); v != nil || err != nil {
			return v, err
		}
	}
	return nil, nil
}

// Move keeps a body under another place instead. It reads nothing: a body that
// is on disk stays where it is until it is copied behind the machine's back.
func (s *Pebble) Move(queue uint64, ln uint8, offset uint64, toQueue uint64, toLane uint8, toOffset uint64) {
	from, to := place{laneID{queue, ln}, offset}, place{laneID{toQueue, toLane}, toOffset}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait()
	if r := s.young.run(from.lane, offset); r != nil && r.live>>(offset%runOffsets)&1 != 0 {
		s.put(to, r.slots[offset%runOffsets])
		s.forget(deletion{from.lane, offset, offset + 1})
		return
	}
	m := s.moved[from]
	if m != nil && !m.taken && s.frozen == 0 {
		delete(s.moved, from) // it goes there at once: no view knows the place between
		m.to, s.moved[to] = to, m
		return
	}
	// It is copied whether there is a view or not, and its old place is deleted
	// like any other: a view may have it under either.
	m = &move{from: from, to: to, before: m}
	s.moved[to] = m
	s.todo = appendChange(s.todo, change{move: m})
	s.signal()
	s.later(change{deletion: deletion{from.lane, offset, offset + 1}})
}

// later queues a change of what is on disk; mu is held.
func (s *Pebble) later(c change) {
	if s.frozen > 0 {
		s.held = appendChange(s.held, c)
		return
	}
	s.todo = appendChange(s.todo, c)
	s.signal()
}

// Delete forgets one body.
func (s *Pebble) Delete(queue uint64, ln uint8, offset uint64) {
	s.DeleteRange(queue, ln, offset, offset+1)
}

// DeleteRange forgets from <= offset < to.
func (s *Pebble) DeleteRange(queue uint64, ln uint8, from, to uint64) {
	if from >= to {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(deletion{laneID{queue, ln}, from, to})
}

// forget deletes; mu is held. What a view may have stays until it is released.
func (s *Pebble) forget(d deletion) {
	onDisk, found := false, false
	s.young.runs(d.id, d.from, d.to, func(r *run) {
		mask := r.mask(d.from, d.to) & r.live
		if mask == 0 {
			return
		}
		found = true
		if s.inView(r) {
			onDisk = true
			return
		}
		onDisk = onDisk || r.disk&mask != 0
		s.young.remove(r, mask)
	})
	// One body that was in memory is nowhere else.
	if d.to-d.from == 1 && found && !onDisk {
		return
	}
	if len(s.moved) > 0 {
		s.forgetMoved(d)
	}
	s.ahead.forget(d)
	s.later(change{deletion: d})
}

// forgetMoved: a body on the way to its place is not to be had there any more.
// It is copied all the same, and deleted after that.
func (s *Pebble) forgetMoved(d deletion) {
	if d.to-d.from == 1 {
		delete(s.moved, place{d.id, d.from})
		return
	}
	for to := range s.moved {
		if to.lane == d.id && d.from <= to.offset && to.offset < d.to {
			delete(s.moved, to)
		}
	}
}

// appendChange joins what continues the last one: acks come mostly in order.
func appendChange(cs []change, c change) []change {
	if n := len(cs); n > 0 && c.move == nil && cs[n-1].move == nil && cs[n-1].id == c.id && cs[n-1].to == c.from {
		cs[n-1].to = c.to
		return cs
	}
	return append(cs, c)
}

// Stats are figures for status and tests.
type Stats struct {
	Bodies  int           // in memory
	Bytes   int64         // of memory that bodies hold, and changes that wait to be written
	Budget  int64         // of Bytes
	Stalled time.Duration // that the machine has waited for the disk, in all

	Compactions uint64 // of tables on disk, that have written anew what they hold
}

// Stats returns them.
func (s *Pebble) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stalled := s.stalled
	if !s.waiting.IsZero() {
		stalled += time.Since(s.waiting)
	}
	return Stats{s.young.bodies, s.memory(), s.o.YoungBytes, stalled, s.compactions.Load()}
}

// Full says that the disk does not keep up: an eighth more than the budget is in
// memory. At twice the budget the machine waits.
func (s *Pebble) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.memory() > s.o.YoungBytes+s.o.YoungBytes/8 && s.failed == nil && !s.closed
}

// memory is what is held; mu is held too.
func (s *Pebble) memory() int64 { return s.young.bytes + int64(len(s.todo))*changeBytes }

// fail reports the first storage error.
func (s *Pebble) fail(err error) {
	s.mu.Lock()
	first := s.failed == nil && !s.closed
	if first {
		s.failed = err
		close(s.dead)
	}
	s.room.Broadcast()
	s.mu.Unlock()
	if first {
		s.o.Logger.Error("body store has failed", "dir", s.o.Dir, "error", err)
		s.o.Fatal(err)
	}
}

// err is the first storage error.
func (s *Pebble) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Close ends the store. The live directory is of no use to anybody after it.
func (s *Pebble) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.ended
		return nil
	}
	s.closed = true
	s.room.Broadcast()
	s.mu.Unlock()
	close(s.quit)
	<-s.ended
	s.open.Lock()
	defer s.open.Unlock()
	defer s.cache.Unref()
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	return err
}
