package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"onceq/client"
)

const (
	// forgetRowsMax bounds the rows that are removed at once.
	forgetRowsMax = 1000
	// forgetEveryMax is how long the next removal waits after one that found few.
	forgetEveryMax = time.Minute
)

// SQL returns a handler for Consume. It begins a transaction on db, notes the
// message in it, calls h for the effects, commits, and acks. A message that is noted
// already is acked without calling h. If h or the commit fails the transaction is
// rolled back and the message comes again: there is nothing of it in the database,
// or, when the connection broke after the commit, all of it, which the next delivery
// finds.
//
// h uses tx for everything that must happen once, and neither commits it nor rolls
// it back. tx ends with ctx, so a handler whose lease is lost has no effect unless
// it has committed by then.
//
// The table must exist, see CreateTable and Schema. SQL panics when the dialect or
// an option is not acceptable.
func SQL(db *sql.DB, d Dialect, h func(ctx context.Context, tx *sql.Tx, d *client.Delivery) error, opts ...Option) client.Handler {
	s := newSQLStore(db, d, newOptions(opts))
	return func(ctx context.Context, d *client.Delivery) error {
		return s.once(ctx, d, func(tx *sql.Tx) error { return h(ctx, tx, d) })
	}
}

type sqlStore struct {
	o             options
	db            *sql.DB
	claim, forget string

	mu     sync.Mutex // guards what follows
	due    time.Time  // when old rows are looked for next
	asking bool       // somebody does
}

func newSQLStore(db *sql.DB, d Dialect, o options) *sqlStore {
	d.check(o)
	return &sqlStore{o: o, db: db, claim: d.claim(o.table), forget: d.forget(o.table), due: time.Now().Add(forgetAfter(o.ttl))}
}

func (s *sqlStore) once(ctx context.Context, m message, effects func(tx *sql.Tx) error) error {
	k := keyOf(s.o.group, m)
	// The database would make a second delivery wait as well, but with a connection
	// for each that waits.
	if err := taken.take(ctx, s.db, k.String()); err != nil {
		return err
	}
	defer taken.end(s.db, k.String())
	if err := s.transact(ctx, k, effects); err != nil {
		return err
	}
	ack(m)
	s.forgetOld(ctx, m)
	return nil
}

// transact returns nil when the message's row is committed, by this transaction
// with the effects or by an earlier one.
func (s *sqlStore) transact(ctx context.Context, k key, effects func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("inbox: begin: %w", err)
	}
	defer tx.Rollback() // without effect after Commit; for panics too
	r, err := tx.ExecContext(ctx, s.claim, k.group, k.queue, []byte(k.id))
	if err != nil {
		return fmt.Errorf("inbox: note the message: %w", err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return fmt.Errorf("inbox: note the message: %w", err)
	}
	if n == 0 {
		return nil
	}
	if err := effects(tx); err != nil {
		return err
	}
	switch err := tx.Commit(); {
	case errors.Is(err, sql.ErrTxDone) && ctx.Err() == nil:
		return fmt.Errorf("inbox: commit: the handler has ended the transaction itself: %w", err)
	case err != nil:
		return fmt.Errorf("inbox: commit: %w", err)
	}
	return nil
}

// forgetOld removes old rows when it is time to, after the message is acked and
// in a transaction of its own: it is no error of the message when that fails.
func (s *sqlStore) forgetOld(ctx context.Context, m message) {
	if s.o.ttl <= 0 {
		return
	}
	s.mu.Lock()
	if s.asking || time.Now().Before(s.due) {
		s.mu.Unlock()
		return
	}
	s.asking = true
	s.mu.Unlock()
	pause := min(s.o.ttl/10, forgetEveryMax)
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asking, s.due = false, time.Now().Add(pause)
	}()
	r, err := s.db.ExecContext(ctx, s.forget, s.o.group, m.ID().Queue, numberOf(m), s.o.ttl.Seconds())
	if err != nil {
		s.o.logger.Warn("inbox: remove what is old", "table", s.o.table, "error", err)
		return
	}
	if n, err := r.RowsAffected(); err == nil && n >= forgetRowsMax {
		pause = 0 // there may be more: with the next message
	}
}
