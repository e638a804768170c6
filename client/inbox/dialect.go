package inbox

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Dialect is the kind of an SQL database. Any driver for it will do.
type Dialect uint8

// The dialects.
const (
	// PostgreSQL is PostgreSQL 9.5 or newer.
	PostgreSQL Dialect = iota + 1
	// SQLite is SQLite 3.38 or newer. Open it with a busy timeout and in WAL mode:
	// it has one writer at a time, and without the timeout the others fail at once
	// instead of waiting.
	SQLite
)

// String is the dialect's name.
func (d Dialect) String() string {
	switch d {
	case PostgreSQL:
		return "PostgreSQL"
	case SQLite:
		return "SQLite"
	}
	return fmt.Sprintf("dialect %d", uint8(d))
}

const tableDefault = "onceq_inbox"

// WithTable names the table of SQL, which may be "schema.table" with PostgreSQL.
// Default "onceq_inbox". One table serves any number of groups and queues.
func WithTable(name string) Option { return func(o *options) { o.table = name } }

// WithTTL makes SQL remove what it has remembered for longer than ttl. Default 0:
// nothing is removed. See the package's "How long to remember".
func WithTTL(ttl time.Duration) Option { return func(o *options) { o.ttl = ttl } }

var (
	plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,49}$`)
	fullName  = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,49}\.)?[A-Za-z_][A-Za-z0-9_]{0,49}$`)
)

// check panics: a wrong dialect or table is a wrong program, and a handler that
// fails for each message would be a slower way to say so.
func (d Dialect) check(o options) {
	names := fullName
	switch d {
	case PostgreSQL:
	case SQLite:
		names = plainName
	default:
		panic(fmt.Sprintf("inbox: %v: there are PostgreSQL and SQLite", d))
	}
	if !names.MatchString(o.table) {
		panic(fmt.Sprintf("inbox: table name %.100q: up to 50 letters, digits and underscores are accepted", o.table))
	}
}

// Schema is the DDL of the table, for programs that keep theirs in migrations;
// the others call CreateTable. The times are the database's.
func Schema(d Dialect, opts ...Option) string {
	return strings.Join(d.schema(newOptions(opts)), ";\n") + ";\n"
}

// schema has one statement an element. The index is for removing by age.
func (d Dialect) schema(o options) []string {
	d.check(o)
	id, at := "bytea NOT NULL", "timestamptz NOT NULL DEFAULT now()"
	if d == SQLite {
		id, at = "BLOB NOT NULL", "INTEGER NOT NULL DEFAULT (unixepoch())"
	}
	index := o.table[strings.LastIndexByte(o.table, '.')+1:] + "_handled_at"
	return []string{
		"CREATE TABLE IF NOT EXISTS " + o.table + ` (
	consumer_group text NOT NULL,
	queue          text NOT NULL,
	id             ` + id + `,
	handled_at     ` + at + `,
	PRIMARY KEY (consumer_group, queue, id)
)`,
		"CREATE INDEX IF NOT EXISTS " + index + " ON " + o.table + " (consumer_group, queue, handled_at)",
	}
}

// CreateTable creates the table of SQL if it is absent. Any number of processes
// may do so at the same time.
func CreateTable(ctx context.Context, db *sql.DB, d Dialect, opts ...Option) error {
	statements := d.schema(newOptions(opts))
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("inbox: create table: %w", err)
	}
	defer tx.Rollback()
	if d == PostgreSQL {
		// IF NOT EXISTS alone fails when two do it at the same time.
		statements = append([]string{"SELECT pg_advisory_xact_lock(7450)"}, statements...)
	}
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("inbox: create table: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("inbox: create table: %w", err)
	}
	return nil
}

// claim inserts a message's row, or no row if there is one. In both databases an
// insert waits while another transaction has inserted the same key and is open.
func (d Dialect) claim(table string) string {
	values := "($1, $2, $3)"
	if d == SQLite {
		values = "(?, ?, ?)"
	}
	return "INSERT INTO " + table + " (consumer_group, queue, id) VALUES " + values + " ON CONFLICT DO NOTHING"
}

// forget removes rows of a group and two queues that are older than a number of
// seconds, the oldest first and a bounded number.
func (d Dialect) forget(table string) string {
	age, g, q, r := "now() - make_interval(secs => $4)", "$1", "$2", "$3"
	lock := " FOR UPDATE SKIP LOCKED" // two processes do not wait for each other
	if d == SQLite {
		age, g, q, r = "unixepoch() - ?", "?", "?", "?"
		lock = ""
	}
	return fmt.Sprintf("DELETE FROM %s WHERE (consumer_group, queue, id) IN (SELECT consumer_group, queue, id FROM %s"+
		" WHERE consumer_group = %s AND queue IN (%s, %s) AND handled_at < %s ORDER BY handled_at LIMIT %d%s)",
		table, table, g, q, r, age, forgetRowsMax, lock)
}
