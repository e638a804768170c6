package inbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// The layout in the database:
//
//	onceq.inbox          bucket
//	  known              bucket: key -> when, 8 bytes
//	  order              bucket: when, 8 bytes | key -> nothing
//
// when is nanoseconds since 1970, big endian. Invariant: both have the same keys.
var (
	inboxBucket = []byte("onceq.inbox")
	knownBucket = []byte("known")
	orderBucket = []byte("order")
)

const (
	// forgetMax is how many old keys one new key removes at most: more than one, so
	// that a backlog of them shrinks, and few, so that no message waits for it.
	forgetMax = 4
	// calmMax is how long after the start nothing is forgotten, see forgetAfter.
	calmMax = 10 * time.Minute
)

// forgetAfter is how long a store forgets nothing after its start. Messages of
// which only the ack was lost come first when consumers return, however long they
// were away.
func forgetAfter(ttl time.Duration) time.Duration { return min(ttl, calmMax) }

// Bolt returns a store that remembers messages in db for ttl, 0 for ever. What it
// remembers is on disk before the message is acked. Handlers that end at the same
// time share a transaction. The program may keep other buckets in db.
func Bolt(db *bbolt.DB, ttl time.Duration) Store {
	return &boltStore{db: db, ttl: ttl, started: time.Now(), writer: make(chan struct{}, 1), waiting: make(chan *write, waitingMax)}
}

type boltStore struct {
	db      *bbolt.DB
	ttl     time.Duration
	started time.Time

	writer  chan struct{} // holds an element while somebody writes
	waiting chan *write   // for the next transaction
}

// waitingMax is how many keys the channel holds; more wait to get in, while the writer
// takes out.
const waitingMax = 1024

type write struct {
	key  string
	done bool // guarded by holding writer
	err  error
}

// Do implements Store.
func (s *boltStore) Do(ctx context.Context, key string, handle func() error) (seen bool, err error) {
	if err := taken.take(ctx, s.db, key); err != nil {
		return false, err
	}
	defer taken.end(s.db, key)
	if seen, err = s.seen(key); err != nil || seen {
		return seen, err
	}
	if err := handle(); err != nil {
		return false, err
	}
	return false, s.remember(key)
}

func (s *boltStore) seen(key string) (seen bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if inbox := tx.Bucket(inboxBucket); inbox != nil {
			seen = inbox.Bucket(knownBucket).Get([]byte(key)) != nil
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("inbox: %w", err)
	}
	return seen, err
}

// remember returns when key is on disk. Whoever becomes the writer writes for all
// who wait: an fsync each would be the speed limit of concurrent handlers. It
// takes no context: the handler has done its work, and a note that is given up
// would make it do so again.
func (s *boltStore) remember(key string) error {
	w := &write{key: key}
	s.waiting <- w
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	if w.done {
		return w.err
	}
	var batch []*write
	for !w.done {
		select {
		case next := <-s.waiting:
			batch = append(batch, next)
			continue
		default:
		}
		err := s.db.Update(func(tx *bbolt.Tx) error { return s.put(tx, batch) })
		if err != nil {
			err = fmt.Errorf("inbox: remember a message that is done: %w", err)
		}
		for _, b := range batch {
			b.done, b.err = true, err
		}
	}
	return w.err
}

func (s *boltStore) put(tx *bbolt.Tx, batch []*write) error {
	inbox, err := tx.CreateBucketIfNotExists(inboxBucket)
	if err != nil {
		return err
	}
	known, err := inbox.CreateBucketIfNotExists(knownBucket)
	if err != nil {
		return err
	}
	order, err := inbox.CreateBucketIfNotExists(orderBucket)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, w := range batch {
		at := binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))
		if err := known.Put([]byte(w.key), at); err != nil {
			return err
		}
		if err := order.Put(append(at, w.key...), nil); err != nil {
			return err
		}
	}
	if s.ttl <= 0 || now.Sub(s.started) < forgetAfter(s.ttl) {
		return nil
	}
	oldest := now.Add(-s.ttl)
	for range forgetMax * len(batch) {
		// From the start each time: deleting moves a cursor.
		k, _ := order.Cursor().First()
		if k == nil || time.Unix(0, int64(binary.BigEndian.Uint64(k))).After(oldest) {
			break
		}
		if err := known.Delete(k[8:]); err != nil {
			return err
		}
		if err := order.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
