package sqltest

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"onceq/client"
	"onceq/client/inbox"
)

// bound is how long anything that must happen may take.
const bound = 3 * time.Minute

// base is a database of one test.
type base struct {
	dialect inbox.Dialect
	dsn     string
}

var bases atomic.Int64

func newBase(t *testing.T, d inbox.Dialect) base {
	t.Helper()
	if d == inbox.SQLite {
		return base{d, "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=busy_timeout(60000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_txlock=immediate"}
	}
	name := fmt.Sprintf("test%d", bases.Add(1))
	admin := base{d, server.dsn("postgres")}.open(t)
	if _, err := admin.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	return base{d, server.dsn(name)}
}

// open opens another handle to the database, as another process would.
func (b base) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open(driverName(b.dialect), b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func eachDialect(t *testing.T, test func(t *testing.T, b base)) {
	for _, d := range []inbox.Dialect{inbox.PostgreSQL, inbox.SQLite} {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			test(t, newBase(t, d))
		})
	}
}

func number(t *testing.T, db *sql.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRow(query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until looks at something that nothing announces.
func until(t *testing.T, f func() (missing string)) {
	t.Helper()
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		missing := f()
		if missing == "" {
			return
		}
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("waited %v: %s", bound, missing)
		}
	}
}

func message(id string, tr Transfer) client.Message {
	body, err := json.Marshal(tr)
	if err != nil {
		panic(err)
	}
	return client.Message{BizID: id, Body: body}
}

// acked is how many messages of a queue are done.
func acked(ctx context.Context, t *testing.T, c *client.Client, queue string) int {
	t.Helper()
	q, err := c.Admin().Queue(ctx, queue)
	if err != nil {
		t.Fatal(err)
	}
	return int(q.Counts.Acked)
}
