package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"onceq/fsm"
)

const (
	// YoungBytesDefault is the budget of bodies in memory.
	YoungBytesDefault = 256 << 20

	cacheBytes    = 64 << 20 // of blocks read from disk: what a backlog is streamed through
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

// Pebble keeps young bodies in memory, up to a budget, and the others on disk.
//
// There is no write-ahead log, since the raft log is one: the live directory
// lives as long as the process, and what outlives it is a checkpoint together
// with the entries behind it. A body that is acked while young is never written.
//
// The machine's calls never wait for a read, and for a write only when twice the
// budget is in memory. Get reads from disk and is for the senders.
type Pebble struct {
	o     Options
	cache *pebble.Cache
	wake  chan struct{} // cap 1: there is something to write
	quit  chan struct{}
	ended chan struct{}
	dead  chan struct{} // closed at the first storage error

	// turn is a token: whoever has it takes deletes from todo and commits them, and
	// bodies after them. So no delete overtakes a body that was put after it.
	turn chan struct{}

	// open is held for reading by who uses db, and for writing by who replaces it.
	// It comes before mu.
	open sync.RWMutex
	db   *pebble.DB // nil after Close

	mu       sync.Mutex // guards the fields below, never held over I/O
	room     *sync.Cond // there is room again
	young    young
	todo     []deletion        // on disk, in order
	life     uint64            // counts restores: what was begun before the last one is dropped
	frozen   int               // views that hold deletes back
	frozenAt uint64            // the newest body in any of them
	held     []deletion        // deletes on disk since the first freeze
	gone     []*item           // bodies that left memory since the first freeze and are in a view
	diskEnds map[laneID]uint64 // of each lane that a checkpoint brought, the offset behind the last
	failed   error
	closed   bool
}

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
	if err := s.replace(func(string) error { return nil }); err != nil {
		s.cache.Unref()
		return nil, err
	}
	go s.write()
	return s, nil
}

// key is queue u64 | lane u8 | offset u64, big endian, so that a lane is a range
// in the order of its offsets. It is on disk.
func key(id laneID, offset uint64) []byte {
	b := make([]byte, 0, 17)
	b = binary.BigEndian.AppendUint64(b, id.queue)
	b = append(b, id.lane)
	return binary.BigEndian.AppendUint64(b, offset)
}

func parseKey(b []byte) (id laneID, offset uint64, err error) {
	if len(b) != 17 {
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
	// Copied, since message aliases its log entry: the last body of an entry would
	// keep all of it, and no budget would see that.
	value := make([]byte, 0, 8+len(message))
	value = append(binary.BigEndian.AppendUint64(value, uint64(publishedAt)), message...)
	it := &item{place: place{laneID{queue, ln}, offset}, value: value}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.young.bytes > 2*s.o.YoungBytes && s.failed == nil && !s.closed {
		s.room.Wait()
	}
	it.disk = offset < s.diskEnds[it.lane]
	if old := s.young.at[it.place]; old != nil {
		it.disk = it.disk || old.disk
		s.leave(old)
	}
	s.young.push(it)
	if s.young.bytes > s.o.YoungBytes {
		s.signal()
	}
}

// leave takes a body out of memory; a view that has it keeps it.
func (s *Pebble) leave(it *item) {
	s.young.remove(it)
	if s.inView(it) && !it.written {
		s.gone = append(s.gone, it)
	}
}

// inView says whether a view may have the body.
func (s *Pebble) inView(it *item) bool { return s.frozen > 0 && it.number <= s.frozenAt }

func (s *Pebble) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Get returns a body. It may read from disk.
func (s *Pebble) Get(queue uint64, ln uint8, offset uint64) (publishedAt int64, message []byte, ok bool) {
	p := place{laneID{queue, ln}, offset}
	s.mu.Lock()
	it := s.young.at[p]
	s.mu.Unlock()
	if it != nil {
		at, message, err := parseValue(it.value)
		return at, message, err == nil
	}
	s.open.RLock()
	defer s.open.RUnlock()
	if s.db == nil {
		return 0, nil, false
	}
	v, closer, err := s.db.Get(key(p.lane, offset))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil, false
	}
	if err == nil {
		publishedAt, message, err = parseValue(append([]byte(nil), v...))
		err = errors.Join(err, closer.Close())
	}
	if err != nil {
		s.fail(fmt.Errorf("read body %d of lane %d of queue %d: %w", offset, ln, queue, err))
		return 0, nil, false
	}
	return publishedAt, message, true
}

// Move keeps a body under another place instead. It is the one call of the
// machine's that may read from disk: a dead letter that was written long ago, or
// one that is sent on by command. The old place is deleted like any other, so a
// replay that moves it again finds it, or finds it moved.
func (s *Pebble) Move(queue uint64, ln uint8, offset uint64, toQueue uint64, toLane uint8, toOffset uint64) {
	publishedAt, message, ok := s.Get(queue, ln, offset)
	if !ok {
		return
	}
	s.Put(toQueue, toLane, toOffset, publishedAt, message)
	s.Delete(queue, ln, offset)
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
	id := laneID{queue, ln}
	s.mu.Lock()
	defer s.mu.Unlock()
	if to-from == 1 {
		it := s.young.at[place{id, from}]
		if it != nil {
			// A view writes what it has, so then there may be something on disk as well.
			onDisk := it.disk || s.inView(it)
			s.leave(it)
			if !onDisk {
				return
			}
		}
	} else {
		s.young.each(id, from, to, s.leave)
	}
	d := deletion{id, from, to}
	if s.frozen > 0 {
		s.held = appendDeletion(s.held, d)
		return
	}
	s.todo = appendDeletion(s.todo, d)
	s.signal()
}

// appendDeletion joins what continues the last one: acks come mostly in order.
func appendDeletion(ds []deletion, d deletion) []deletion {
	if n := len(ds); n > 0 && ds[n-1].id == d.id && ds[n-1].to == d.from {
		ds[n-1].to = d.to
		return ds
	}
	return append(ds, d)
}

// Len returns the number of bodies in memory and their bytes, for tests and
// status.
func (s *Pebble) Len() (bodies int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.young.at), s.young.bytes
}

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
