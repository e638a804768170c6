package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"onceq/fsm"
)

// view is what Freeze returns: all bodies of that moment. Newer ones may be in
// what it writes; the replay that follows a restore writes them again.
type view struct {
	s          *Pebble
	life       uint64
	number     uint64 // of the newest run in it
	drained    bool   // it has nothing in memory
	checkpoint bool   // the bodies are in a checkpoint
	released   bool
}

// Freeze returns a view of what is stored now. It costs nothing; until its
// Release no body that is in it leaves the disk.
func (s *Pebble) Freeze() fsm.FrozenBodies {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen++
	s.frozenAt = s.young.number
	return &view{s: s, life: s.life, number: s.young.number, drained: s.young.bodies == 0}
}

// Release lets deletes go on, when no other view is left.
func (v *view) Release() {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.released || v.life != s.life {
		return
	}
	v.released = true
	for done := 0; s.frozen == 1 && len(s.held) > 0; done++ {
		if done == releaseChanges { // the machine waits for mu
			done = 0
			s.mu.Unlock()
			s.mu.Lock()
			if v.life != s.life {
				return
			}
			continue
		}
		c := s.held[0]
		s.held = s.held[1:]
		s.young.runs(c.id, c.from, c.to, func(r *run) { s.young.remove(r, r.mask(c.from, c.to)) })
		s.todo = appendChange(s.todo, c)
	}
	if s.frozen--; s.frozen == 0 {
		s.held = nil
	}
	s.room.Broadcast()
	s.signal()
}

// releaseChanges are done at once by Release.
const releaseChanges = 1024

// unwritten is a walk over the bodies of a view that are in memory alone.
type unwritten struct {
	v      *view
	c      cursor
	more   bool
	bodies []written // returned last
}

// unwritten begins a walk. What was to be changed on disk before the view was
// frozen has been by then.
func (v *view) unwritten() (*unwritten, error) {
	if err := v.changes(); err != nil {
		return nil, err
	}
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := v.valid(); err != nil {
		return nil, err
	}
	u := &unwritten{v: v, more: true}
	u.c.next = s.young.first
	s.young.cursors[&u.c] = struct{}{}
	return u, nil
}

func (u *unwritten) close() {
	s := u.v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.young.cursors, &u.c)
}

// next returns about so many bytes of bodies, in memory that it uses again. It has
// the lock for a few runs at a time, since Apply waits for it.
func (u *unwritten) next(bytes int64) ([]written, error) {
	u.bodies = u.bodies[:0]
	for bytes > 0 && u.more {
		n, err := u.some(min(bytes, evictBytes))
		if err != nil {
			return nil, err
		}
		bytes -= n
	}
	return u.bodies, nil
}

func (u *unwritten) some(room int64) (bytes int64, err error) {
	s := u.v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := u.v.valid(); err != nil {
		return 0, err
	}
	for u.c.next != nil && u.c.next.number <= u.v.number && bytes < room {
		r := u.c.next
		each(r.live&^r.written, func(i int) {
			u.bodies = append(u.bodies, written{place{r.lane, r.offset(i)}, r.slots[i]})
			bytes += placeBytes + int64(r.slots[i].size)
		})
		r.disk |= r.live
		u.c.next = r.next
	}
	u.more = u.c.next != nil && u.c.next.number <= u.v.number
	return bytes, nil
}

// changes does on disk what was to be done before the view was frozen; what came
// since waits for its release.
func (v *view) changes() error {
	s := v.s
	for more := true; more; {
		err := v.alone(func() error {
			s.mu.Lock()
			changes := s.takeChanges()
			more = len(s.todo) > 0
			s.mu.Unlock()
			if len(changes) == 0 {
				return nil
			}
			return v.commit(changes, nil, nil)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// alone runs f while nobody else writes, and the database cannot be replaced.
func (v *view) alone(f func() error) error {
	<-v.s.turn
	defer func() { v.s.turn <- struct{}{} }()
	return v.using(func(*pebble.DB) error { return f() })
}

func (v *view) commit(changes []change, bodies []written, pace Pace) error {
	s := v.s
	if err := s.commit(changes, bodies, pace); err != nil {
		err = fmt.Errorf("write bodies: %w", err)
		s.fail(err) // what Pebble knows of it nobody can say
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done(changes, bodies, false)
	s.room.Broadcast()
	return nil
}

// valid: mu is held.
func (v *view) valid() error {
	switch {
	case v.life != v.s.life:
		return ErrReplaced
	case v.s.closed:
		return ErrClosed
	case v.released:
		return errors.New("the view was released")
	}
	return nil
}

// Each visits all bodies, unless they are in a checkpoint. Some may come twice.
func (v *view) Each(visit func(queue uint64, lane uint8, offset uint64, publishedAt int64, message []byte) error) error {
	if v.checkpoint {
		return nil
	}
	u, err := v.unwritten()
	if err != nil {
		return err
	}
	defer u.close()
	for u.more {
		bodies, err := u.next(evictBytes)
		if err != nil {
			return err
		}
		for _, w := range bodies {
			at, message, err := parseValue(w.value())
			if err == nil {
				err = visit(w.lane.queue, w.lane.lane, w.offset, at, message)
			}
			if err != nil {
				return err
			}
		}
	}
	// What was not in memory is on disk by now, and stays.
	return v.using(func(db *pebble.DB) error {
		iter, err := db.NewIter(nil)
		if err != nil {
			return err
		}
		n := 0
		for ok := iter.First(); ok; ok = iter.Next() {
			err := func() error {
				if n++; n%256 == 0 { // a restore waits for this to end
					v.s.mu.Lock()
					err := v.valid()
					v.s.mu.Unlock()
					if err != nil {
						return err
					}
				}
				id, offset, err := parseKey(iter.Key())
				if err != nil {
					return err
				}
				value, err := iter.ValueAndErr()
				if err != nil {
					return err
				}
				at, message, err := parseValue(value)
				if err != nil {
					return err
				}
				return visit(id.queue, id.lane, offset, at, message)
			}()
			if err != nil {
				return errors.Join(err, iter.Close())
			}
		}
		return errors.Join(iter.Error(), iter.Close())
	})
}

// using runs f while the database cannot be replaced.
func (v *view) using(f func(*pebble.DB) error) error {
	s := v.s
	s.open.RLock()
	defer s.open.RUnlock()
	s.mu.Lock()
	err := v.valid()
	s.mu.Unlock()
	if err == nil && s.db == nil {
		err = ErrClosed
	}
	if err != nil {
		return err
	}
	return f(s.db)
}

// Checkpointer is a view that can be written as a directory of files.
type Checkpointer interface {
	fsm.FrozenBodies
	// Checkpoint makes dir, which must not exist, with all bodies of the view, and
	// makes it durable except for its name. After it Each visits nothing. pace may
	// be nil.
	Checkpoint(dir string, pace Pace) error
}

var _ Checkpointer = (*view)(nil)

// Pace is called between the pieces of a checkpoint, of half a MiB, with how long
// the last took to write. It returns when the next may be: until then the disk is
// for others.
type Pace func(took time.Duration)

// Checkpoint writes what is in memory alone, has it flushed, and links the files.
// Each step is needed: without a write-ahead log what was not flushed is in no
// file, and Pebble's own checkpoint does not say so.
func (v *view) Checkpoint(dir string, pace Pace) error {
	err := v.tables(pace)
	if err == nil && v.drained {
		err = v.shrink()
	}
	if err == nil {
		err = v.using(func(db *pebble.DB) error {
			flushed, err := db.AsyncFlush()
			if err != nil {
				return err
			}
			select {
			case <-flushed:
			case <-v.s.dead: // Pebble tries a failed flush again without end
				return v.s.err()
			case <-v.s.quit:
				return ErrClosed
			}
			if err := db.Checkpoint(dir); err != nil {
				return err
			}
			return writeSums(v.s.o.FS, dir)
		})
	}
	if err != nil {
		return fmt.Errorf("checkpoint bodies: %w", err)
	}
	v.checkpoint = true
	return nil
}

// tables writes what is in memory alone. The bodies are gathered by who writes
// them, while nobody else writes: a newer one, put in the place of one of them,
// cannot come to the disk first.
func (v *view) tables(pace Pace) error {
	if patient := pace; patient != nil {
		pace = func(took time.Duration) {
			if v.mayPause() {
				patient(took)
			}
		}
	}
	u, err := v.unwritten()
	if err != nil {
		return err
	}
	defer u.close()
	for u.more {
		err := v.alone(func() error {
			bodies, err := u.next(tableBytes)
			if err != nil || len(bodies) == 0 {
				return err
			}
			return v.commit(nil, bodies, pace)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// shrink gives back what the disk holds when no body is left. Pebble frees what is dead as
// a level of tables grows, and when nothing comes any more none does: of a backlog that was
// acked across several checkpoints up to a hundred MiB stayed for good.
func (v *view) shrink() error {
	return v.using(func(db *pebble.DB) error {
		if size := db.Metrics().Total().TablesSize; size == 0 || size > shrinkMost {
			return nil
		}
		iter, err := db.NewIter(nil)
		if err != nil {
			return err
		}
		left := iter.First()
		if err := errors.Join(iter.Error(), iter.Close()); err != nil || left {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- db.Compact(ctx, key(laneID{}, 0), keyEnd, false) }() // waited for below
		select {
		case err = <-done:
			return err
		case <-v.s.dead: // Pebble tries again without end
			err = v.s.err()
		case <-v.s.quit:
			err = ErrClosed
		}
		cancel()
		<-done
		return err
	})
}

// shrinkMost bounds what shrink reads, and so how long a restore waits for it. Of more
// than that Pebble frees most by itself.
const shrinkMost = 256 << 20

// keyEnd is behind every key.
var keyEnd = bytes.Repeat([]byte{0xff}, keyBytes+1)

// mayPause says that nobody waits for the table that is being written. Nothing leaves
// memory before its end, and at an eighth above the budget publishes are held; and who
// replaces everything waits for it, with all that is applied behind them.
func (v *view) mayPause() bool {
	s := v.s
	s.mu.RLock()
	defer s.mu.RUnlock()
	return v.valid() == nil && s.failed == nil && s.memory() <= s.o.YoungBytes+s.o.YoungBytes/16
}

// Reset forgets everything.
func (s *Pebble) Reset() {
	if err := s.replace(func(string) error { return nil }); err != nil {
		s.fail(err)
	}
}

// Load replaces everything by a checkpoint, by hard links: nothing is read or
// written but a few small files. The checkpoint stays as it is.
func (s *Pebble) Load(dir string) error {
	err := s.replace(func(live string) error { return linkFiles(s.o.FS, dir, live) })
	if err != nil && !errors.Is(err, ErrBadCheckpoint) && !errors.Is(err, ErrClosed) && damaged(err) {
		err = fmt.Errorf("%w: %s: %w", ErrBadCheckpoint, dir, err)
	}
	return err
}

// damaged says that an error is about what the files hold, or that one is not
// there, and not about a disk that is full or fails.
func damaged(err error) bool {
	errno := syscall.Errno(0)
	return !errors.As(err, &errno) || errno == syscall.ENOENT
}

func isMissing(err error) bool { return errors.Is(err, iofs.ErrNotExist) }

// Receive replaces everything by a checkpoint that comes as a stream.
func (s *Pebble) Receive(r io.Reader) error {
	return s.replace(func(live string) error { return receiveFiles(s.o.FS, r, live) })
}

// replace empties the live directory, has it filled, and opens it.
func (s *Pebble) replace(fill func(live string) error) error {
	// Views end first, so that nobody who writes one has to be waited for long.
	s.mu.Lock()
	s.life++
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	s.open.Lock()
	defer s.open.Unlock()
	if s.db != nil {
		err := s.db.Close()
		s.db = nil
		if err != nil {
			return fmt.Errorf("close bodies: %w", err)
		}
	}
	fs := s.o.FS
	if err := fs.RemoveAll(s.o.Dir); err != nil {
		return fmt.Errorf("empty %s: %w", s.o.Dir, err)
	}
	if err := fs.MkdirAll(s.o.Dir, 0o700); err != nil {
		return err
	}
	if err := fill(s.o.Dir); err != nil {
		return fmt.Errorf("restore bodies into %s: %w", s.o.Dir, err)
	}
	db, err := s.openDB()
	if err != nil {
		return fmt.Errorf("open bodies in %s: %w", s.o.Dir, err)
	}
	ends, err := laneEnds(db)
	if err != nil {
		return errors.Join(fmt.Errorf("read bodies in %s: %w", s.o.Dir, err), db.Close())
	}
	s.db = db
	s.mu.Lock()
	defer s.mu.Unlock()
	s.empty()
	s.diskEnds = ends
	return nil
}

// empty drops what is in memory; mu is held.
func (s *Pebble) empty() {
	s.young.reset()
	s.todo, s.held, s.frozen, s.diskEnds = nil, nil, 0, nil
	clear(s.moved)
	s.ahead.reset()
	s.room.Broadcast()
}

func (s *Pebble) openDB() (*pebble.DB, error) {
	var opening atomic.Bool
	opening.Store(true)
	defer opening.Store(false)
	o := &pebble.Options{
		FS: s.o.FS, Cache: s.cache, DisableWAL: true, FormatMajorVersion: formatVersion,
		MaxOpenFiles: s.o.OpenTables, MemTableSize: memTableBytes, L0CompactionThreshold: 4, L0StopWritesThreshold: 20,
		EventListener: s.listener(), Logger: pebbleLog{s, s.o.Logger, &opening},
	}
	for i := range o.Levels {
		o.Levels[i].BlockSize = blockBytes
		o.Levels[i].Compression = tableCompression
	}
	db, err := openPebble(s.o.Dir, o)
	if err == nil {
		s.tables = tableOptions(db, o)
	}
	return db, err
}

// laneEnds finds the last offset of each lane, by one seek for each.
func laneEnds(db *pebble.DB) (map[laneID]uint64, error) {
	iter, err := db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	ends := make(map[laneID]uint64)
	for ok := iter.First(); ok; {
		id, _, err := parseKey(iter.Key())
		if err != nil {
			return nil, errors.Join(err, iter.Close())
		}
		behind := append(key(id, ^uint64(0)), 0)
		if iter.SeekLT(behind) {
			_, offset, err := parseKey(iter.Key())
			if err != nil {
				return nil, errors.Join(err, iter.Close())
			}
			ends[id] = offset + 1
		}
		ok = iter.SeekGE(behind)
	}
	return ends, errors.Join(iter.Error(), iter.Close())
}

// linkFiles fills to with the files of a checkpoint. Tables are never changed, so
// they are linked; the others are, so they are copied.
func linkFiles(fs vfs.FS, from, to string) error {
	names, err := fs.List(from)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%s is empty", from)
	}
	if err := checkSums(fs, from); err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if n == sumsFile {
			continue
		}
		a, b := fs.PathJoin(from, n), fs.PathJoin(to, n)
		if isTable(n) {
			err = vfs.LinkOrCopy(fs, a, b)
		} else {
			err = vfs.Copy(fs, a, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
