package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/client/inbox"
	"onceq/client/onceqtest"
)

// desk gives a test deliveries to hand to a handler itself.
type desk struct {
	c     *client.Client
	queue string
	in    chan *client.Delivery
	p     *client.Producer
}

// newDesk consumes until the test ends; the test settles.
func newDesk(t *testing.T, c *client.Client, queue string) *desk {
	t.Helper()
	d := &desk{c: c, queue: queue, in: make(chan *client.Delivery, 100)}
	_, err := c.Admin().CreateQueue(t.Context(), queue, client.QueueSettings{})
	must(t, err)
	d.p, err = c.NewProducer(queue)
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	consumed := make(chan error, 1)
	go func() {
		consumed <- c.Consume(ctx, queue, func(_ context.Context, v *client.Delivery) error { d.in <- v; return nil },
			client.WithManualSettle(), client.WithPrefetch(100))
	}()
	t.Cleanup(func() { stop(); <-consumed })
	return d
}

// take publishes a message and returns its delivery.
func (d *desk) take(t *testing.T, bizID string) *client.Delivery {
	t.Helper()
	_, err := d.p.Publish(bounded(t), message(bizID, Transfer{"ann", "bob", 1}))
	must(t, err)
	return <-d.in
}

// isAcked waits for n acks.
func (d *desk) isAcked(t *testing.T, n int) {
	t.Helper()
	ctx := bounded(t)
	until(t, func() string {
		if got := acked(ctx, t, d.c, d.queue); got != n {
			return fmt.Sprintf("%d acked, want %d", got, n)
		}
		return ""
	})
}

// eachDesk runs a test for both databases with a table of transfers.
func eachDesk(t *testing.T, test func(t *testing.T, b base, db *sql.DB, d *desk)) {
	t.Helper()
	c := onceqtest.Start(t, 1).Client()
	for _, dialect := range []inbox.Dialect{inbox.PostgreSQL, inbox.SQLite} {
		t.Run(dialect.String(), func(t *testing.T) {
			b := newBase(t, dialect)
			db := b.open(t)
			must(t, CreateTables(t.Context(), db, dialect, "ann", "bob"))
			test(t, b, db, newDesk(t, c, fmt.Sprintf("desk-%d", dialect)))
		})
	}
}

func balance(t *testing.T, db *sql.DB) int {
	t.Helper()
	return number(t, db, "SELECT balance FROM accounts WHERE owner = 'bob'")
}

func TestDuplicates_HaveOneEffectAndAreAcked(t *testing.T) {
	eachDesk(t, func(t *testing.T, b base, db *sql.DB, d *desk) {
		// What no text column takes is a biz-id like any other.
		for i, id := range []string{"a", "a\x00", "\xff\xfe", "ä", strings.Repeat("x", 512)} {
			for range 2 {
				must(t, Handler(db, b.dialect)(t.Context(), d.take(t, id)))
			}
			if n := balance(t, db); n != i+1 {
				t.Errorf("%d transfers after %d biz-ids", n, i+1)
			}
		}
		d.isAcked(t, 10)
		// Without a biz-id each message is its own.
		first, second := d.take(t, ""), d.take(t, "")
		for _, v := range []*client.Delivery{first, second, first, second} {
			must(t, Handler(db, b.dialect)(t.Context(), v))
		}
		if n := balance(t, db); n != 7 {
			t.Errorf("%d transfers, want 5 and 2 without a biz-id", n)
		}
		d.isAcked(t, 12)
		// Another group does its own work.
		must(t, inbox.SQL(db, b.dialect, move, inbox.WithGroup("other"))(t.Context(), d.take(t, "a")))
		if n := balance(t, db); n != 8 {
			t.Errorf("%d transfers: another group was taken for this one", n)
		}
	})
}

func TestFailure_LeavesNothing(t *testing.T) {
	eachDesk(t, func(t *testing.T, b base, db *sql.DB, d *desk) {
		busy := errors.New("busy")
		v := d.take(t, "a")
		for name, test := range map[string]struct {
			after func(ctx context.Context, tx *sql.Tx, stop context.CancelCauseFunc) error
			want  error // nil for any
		}{
			"error": {func(context.Context, *sql.Tx, context.CancelCauseFunc) error { return busy }, busy},
			"panic": {func(context.Context, *sql.Tx, context.CancelCauseFunc) error { panic("bug") }, nil},
			"lease lost": {func(_ context.Context, _ *sql.Tx, stop context.CancelCauseFunc) error {
				stop(client.ErrLeaseLost)
				return nil
			}, nil},
			"rolled back": {func(_ context.Context, tx *sql.Tx, _ context.CancelCauseFunc) error { return tx.Rollback() }, sql.ErrTxDone},
		} {
			ctx, stop := context.WithCancelCause(t.Context())
			err := func() (err error) {
				defer func() {
					if r := recover(); r != nil {
						err = fmt.Errorf("panic: %v", r)
					}
				}()
				return inbox.SQL(db, b.dialect, func(ctx context.Context, tx *sql.Tx, d *client.Delivery) error {
					must(t, move(ctx, tx, d))
					return test.after(ctx, tx, stop)
				}, inbox.WithGroup("ledger"))(ctx, v)
			}()
			stop(nil)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("%s: %v", name, err)
			}
			if n, m := balance(t, db), number(t, db, "SELECT count(*) FROM onceq_inbox"); n != 0 || m != 0 {
				t.Fatalf("%s: %d transfers and %d notes remain", name, n, m)
			}
		}
		d.isAcked(t, 0)
		must(t, Handler(db, b.dialect)(t.Context(), v))
		d.isAcked(t, 1)
	})
}

// In PostgreSQL a statement that fails dooms the transaction: a handler that
// swallows the error must not have its message acked.
func TestPostgreSQL_SwallowedError_IsNoSuccess(t *testing.T) {
	b := newBase(t, inbox.PostgreSQL)
	db, d := b.open(t), newDesk(t, onceqtest.Start(t, 1).Client(), "desk")
	must(t, CreateTables(t.Context(), db, b.dialect, "ann", "bob"))
	v := d.take(t, "a")
	err := inbox.SQL(db, b.dialect, func(ctx context.Context, tx *sql.Tx, d *client.Delivery) error {
		_, _ = tx.ExecContext(ctx, "INSERT INTO accounts VALUES ('ann', 0)")
		return nil
	})(t.Context(), v)
	if err == nil || number(t, db, "SELECT count(*) FROM onceq_inbox") != 0 {
		t.Errorf("the message counts as handled: %v", err)
	}
	d.isAcked(t, 0)

	// The server ends the connection in the middle of a handler.
	err = inbox.SQL(db, b.dialect, func(ctx context.Context, tx *sql.Tx, d *client.Delivery) error {
		must(t, move(ctx, tx, d))
		number(t, db, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		return nil
	}, inbox.WithGroup("ledger"))(t.Context(), v)
	if err == nil || balance(t, db) != 0 {
		t.Errorf("bob has %d after a lost connection: %v", balance(t, db), err)
	}
	must(t, Handler(db, b.dialect)(t.Context(), v))
	if n := balance(t, db); n != 1 {
		t.Errorf("bob has %d, want 1", n)
	}
}

// Two processes get copies of a message at the same time. The handles are
// different, so nothing but the database can make the second wait.
func TestTwoProcesses_TheSecondWaitsForTheFirst(t *testing.T) {
	eachDesk(t, func(t *testing.T, b base, db *sql.DB, d *desk) {
		other := b.open(t)
		for i, firstFails := range []bool{false, true} {
			id := fmt.Sprint("order-", i)
			v, w := d.take(t, id), d.take(t, id)
			inside, release := make(chan struct{}), make(chan error)
			results := make(chan error, 2)
			go func() {
				results <- inbox.SQL(db, b.dialect, func(ctx context.Context, tx *sql.Tx, d *client.Delivery) error {
					close(inside)
					return errors.Join(<-release, move(ctx, tx, d))
				}, inbox.WithGroup("ledger"))(t.Context(), v)
			}()
			<-inside
			second, called := make(chan error, 1), false
			go func() {
				second <- inbox.SQL(other, b.dialect, func(ctx context.Context, tx *sql.Tx, d *client.Delivery) error {
					called = true
					return move(ctx, tx, d)
				}, inbox.WithGroup("ledger"))(t.Context(), w)
			}()
			if b.dialect == inbox.PostgreSQL {
				until(t, func() string {
					if number(t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 0 {
						return "the second does not wait"
					}
					return ""
				})
			}
			var failure error
			if firstFails {
				failure = errors.New("busy")
			}
			release <- failure
			if err := <-results; (err != nil) != firstFails {
				t.Errorf("the first ended with %v", err)
			}
			must(t, <-second)
			must(t, v.Ack(t.Context())) // as Consume would: a test need not wait for it
			if called != firstFails {
				t.Errorf("first fails %t, the second was called %t", firstFails, called)
			}
			if n := balance(t, db); n != i+1 {
				t.Errorf("bob has %d, want %d", n, i+1)
			}
		}
	})
}

func TestCreateTable_ByManyAtTheSameTime(t *testing.T) {
	for _, dialect := range []inbox.Dialect{inbox.PostgreSQL, inbox.SQLite} {
		t.Run(dialect.String(), func(t *testing.T) {
			b := newBase(t, dialect)
			var wg sync.WaitGroup
			for range 8 {
				db := b.open(t)
				wg.Go(func() {
					if err := inbox.CreateTable(t.Context(), db, dialect, inbox.WithTable("notes")); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := number(t, b.open(t), "SELECT count(*) FROM notes"); n != 0 {
				t.Errorf("%d rows", n)
			}
		})
	}
	b := newBase(t, inbox.PostgreSQL)
	db := b.open(t)
	_, err := db.Exec("CREATE SCHEMA ledger")
	must(t, err)
	must(t, inbox.CreateTable(t.Context(), db, b.dialect, inbox.WithTable("ledger.seen")))
	_, err = db.Exec(inbox.Schema(b.dialect, inbox.WithTable("ledger.seen"))) // for migrations, all at once
	must(t, err)
}

// Old notes go a bounded number at a time, those of other groups and queues stay,
// and nothing goes soon after the start.
func TestTTL_RemovesWhatIsOld(t *testing.T) {
	eachDesk(t, func(t *testing.T, b base, db *sql.DB, d *desk) {
		fill, old := "INSERT INTO onceq_inbox SELECT $1, $2, convert_to('old' || i, 'UTF8'), now() - interval '1 hour' FROM generate_series(1, $3) i", "now() - interval '1 hour'"
		if b.dialect == inbox.SQLite {
			fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $3) INSERT INTO onceq_inbox SELECT $1, $2, 'old' || i, unixepoch() - 3600 FROM n"
			old = "unixepoch() - 3600"
		}
		for _, k := range []struct {
			group, queue string
			n            int
		}{{"ledger", d.queue, 2500}, {"other", d.queue, 10}, {"ledger", "elsewhere", 10}} {
			_, err := db.Exec(fill, k.group, k.queue, k.n)
			must(t, err)
		}
		const ttl = 100 * time.Millisecond
		h := inbox.SQL(db, b.dialect, move, inbox.WithGroup("ledger"), inbox.WithTTL(ttl))
		count := func() int { return number(t, db, "SELECT count(*) FROM onceq_inbox") }
		started := time.Now()
		must(t, h(t.Context(), d.take(t, "a")))
		if n := count(); n != 2521 && time.Since(started) < ttl {
			t.Errorf("%d notes right after the start, want all 2521", n)
		}
		// A message without a biz-id, long ago.
		must(t, h(t.Context(), d.take(t, "")))
		_, err := db.Exec("UPDATE onceq_inbox SET handled_at = " + old + " WHERE queue LIKE '#%'")
		must(t, err)
		lowest := count()
		until(t, func() string {
			before := count()
			must(t, h(t.Context(), d.take(t, "again"))) // acked or not, it gives an occasion
			if n := before - count(); n > 1000 {
				t.Fatalf("%d notes removed at once", n)
			}
			lowest = min(lowest, count())
			if n := number(t, db, "SELECT count(*) FROM onceq_inbox WHERE handled_at <= "+old); n != 20 {
				return fmt.Sprintf("%d old notes, want the 20 of others", n)
			}
			return ""
		})
		if lowest < 20 {
			t.Errorf("%d notes: others lost theirs", lowest)
		}
	})
}
