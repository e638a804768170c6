package outbox

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	formatVersion = 1
	// lockWait is how long opening waits for another process to let go of the file,
	// such as one that is about to end.
	lockWait = 2 * time.Second
	fileMode = 0o600
)

var (
	rootBucket    = []byte("onceq.outbox")
	entriesBucket = []byte("entries")
	waitingBucket = []byte("waiting")
	sentBucket    = []byte("sent")
	heldBucket    = []byte("held")

	formatKey  = []byte("format")
	queueKey   = []byte("queue")
	nameKey    = []byte("name")
	clusterKey = []byte("cluster")
)

// File is an outbox file without anything that sends from it: for operators and
// their tools, while the program that owns it does not run. The file is locked.
type File struct {
	path     string
	db       *bbolt.DB
	readOnly bool

	// What is in the file, but for the cluster set before it is used.
	queue, name, cluster string
	count                counts
}

// counts are how many entries there are of each state.
type counts struct {
	waiting, sent, held int
	bytes               int
}

func (c counts) entries() int { return c.waiting + c.sent + c.held }

// OpenFile opens the outbox file at path, to be looked into only when readOnly.
// Its entries are read once: what is damaged is found here (ErrCorrupt).
func OpenFile(path string, readOnly bool) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	if info.Size() < int64(4*os.Getpagesize()) { // what a new database has
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrForeign, path, info.Size())
	}
	// To be written, the library walks all pages, in a goroutine of its own, where a
	// damaged one ends the process. So all is read before, where it is an error.
	f, err := openAndLoad(path, true)
	if err != nil || readOnly {
		return f, err
	}
	if err := f.db.Close(); err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	return openAndLoad(path, false)
}

func openAndLoad(path string, readOnly bool) (f *File, err error) {
	f = &File{path: path, readOnly: readOnly}
	defer f.damaged(&err)()
	if f.db, err = openDB(path, readOnly); err != nil {
		return nil, err
	}
	if err := f.load(); err != nil {
		f.db.Close()
		return nil, err
	}
	return f, nil
}

// openOrCreate opens the file at path, or makes it. name "" is any, or a new one.
func openOrCreate(path, queue, name string) (*File, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		err = create(path, queue, name)
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	f, err := OpenFile(path, false)
	if err != nil {
		return nil, err
	}
	switch {
	case f.queue != queue:
		err = fmt.Errorf("%w: %s is for queue %q, not for %q: use another file", ErrMismatch, path, f.queue, queue)
	case name != "" && f.name != name:
		err = fmt.Errorf("%w: %s has the session name %q, not %q: use another file, or that name", ErrMismatch, path, f.name, name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func openDB(path string, readOnly bool) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{
		Timeout: lockWait, ReadOnly: readOnly,
		// The list of free pages can be long, and is found again when the entries are read.
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
	})
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: %s: %v", ErrForeign, path, err)
	case errors.Is(err, bolterrors.ErrChecksum):
		return nil, corrupt(path, "%v", err)
	}
	return nil, fmt.Errorf("outbox: open %s: %w", path, err)
}

// create makes a new file. It is complete and on disk, its name as well, before it
// has its name, so that a crash leaves no half of one.
func create(path, queue, name string) error {
	if name == "" {
		b := make([]byte, 8)
		_, _ = rand.Read(b) // never fails
		name = "outbox-" + hex.EncodeToString(b)
	}
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	temp.Close()
	db, err := bbolt.Open(temp.Name(), fileMode, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		root, err := tx.CreateBucket(rootBucket)
		if err != nil {
			return err
		}
		for _, b := range [][]byte{entriesBucket, waitingBucket, sentBucket, heldBucket} {
			if _, err := root.CreateBucket(b); err != nil {
				return err
			}
		}
		return errors.Join(
			root.Put(formatKey, binary.BigEndian.AppendUint32(nil, formatVersion)),
			root.Put(queueKey, []byte(queue)), root.Put(nameKey, []byte(name)), root.Put(clusterKey, nil))
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	// Not a rename: of two processes that make the same file one wins, and the other
	// opens that.
	if err := os.Link(temp.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load reads all that is in the file once.
func (f *File) load() (err error) {
	defer f.damaged(&err)()
	return f.db.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(f.path)
		if err != nil {
			return err
		}
		// Pages beyond its end would be a fault of the memory map.
		if tx.Size() > info.Size() {
			return corrupt(f.path, "it has %d bytes of %d", info.Size(), tx.Size())
		}
		root := tx.Bucket(rootBucket)
		if root == nil {
			return fmt.Errorf("%w: %s is a bbolt database of another program", ErrForeign, f.path)
		}
		if v := root.Get(formatKey); len(v) != 4 || binary.BigEndian.Uint32(v) != formatVersion {
			return fmt.Errorf("%w: %s has format %x, this program knows %08x: use the program that wrote it", ErrForeign, f.path, v, formatVersion)
		}
		f.queue, f.name, f.cluster = string(root.Get(queueKey)), string(root.Get(nameKey)), string(root.Get(clusterKey))
		c := contents{}
		if !c.of(root) {
			return corrupt(f.path, "a part of it is missing")
		}
		f.count, err = c.verify(f.path)
		return err
	})
}

// contents are the parts of the file in a transaction.
type contents struct{ root, entries, waiting, sent, held *bbolt.Bucket }

func (c *contents) of(root *bbolt.Bucket) bool {
	*c = contents{root, root.Bucket(entriesBucket), root.Bucket(waitingBucket), root.Bucket(sentBucket), root.Bucket(heldBucket)}
	return c.entries != nil && c.waiting != nil && c.sent != nil && c.held != nil
}

func (c *contents) verify(path string) (sum counts, err error) {
	n := 0
	err = c.entries.ForEach(func(k, v []byte) error {
		if len(k) != 8 {
			return corrupt(path, "an entry without a number")
		}
		if _, err := decodeRecord(v); err != nil {
			return corrupt(path, "entry %d: %v", number(k), err)
		}
		sum.bytes += len(v)
		n++
		return nil
	})
	if err != nil {
		return sum, err
	}
	index := func(b *bbolt.Bucket, what State, check func(v []byte) error) (n int) {
		if err == nil {
			err = b.ForEach(func(k, v []byte) error {
				n++
				switch {
				case len(k) != 8 || c.entries.Get(k) == nil:
					return corrupt(path, "%s: an entry is missing", what)
				case check(v) != nil:
					return corrupt(path, "%s: entry %d: %v", what, number(k), check(v))
				}
				return nil
			})
		}
		return n
	}
	isID := func(v []byte) error { _, err := decodeSummedID(v); return err }
	sum.waiting = index(c.waiting, Waiting, isID)
	sum.sent = index(c.sent, Sent, isID)
	sum.held = index(c.held, Held, func(v []byte) error { _, err := decodeHold(v); return err })
	if err == nil && n != sum.entries() {
		err = corrupt(path, "%d entries, %d of them accounted for", n, sum.entries())
	}
	return sum, err
}

// damaged makes what a broken page does to the library an error.
func (f *File) damaged(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = corrupt(f.path, "%v", r)
		}
	}
}

// view runs fn on what is in the file.
func (f *File) view(fn func(c *contents) error) (err error) {
	defer f.damaged(&err)()
	return f.db.View(func(tx *bbolt.Tx) error {
		var c contents
		c.of(tx.Bucket(rootBucket))
		return fn(&c)
	})
}

// update runs fn and writes what it has changed to the disk. An error leaves the
// file as it was, as far as the disk can be believed.
func (f *File) update(fn func(c *contents) error) (err error) {
	defer f.damaged(&err)()
	return f.db.Update(func(tx *bbolt.Tx) error {
		var c contents
		c.of(tx.Bucket(rootBucket))
		return fn(&c)
	})
}
