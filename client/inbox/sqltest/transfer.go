// Package sqltest tests inbox.SQL against real databases, PostgreSQL and SQLite,
// in a module of its own so that no driver is needed to use onceq. Its code is
// the example that the tests run: transfers between accounts, which must be exact.
//
// The tests start a PostgreSQL server in a temporary directory, on a socket in it;
// its programs must be installed (Debian: postgresql).
package sqltest

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"onceq/client"
	"onceq/client/inbox"
)

// Queue is where transfers come from.
const Queue = "transfers"

// Transfer is the body of a message. Its biz-id is the number of the transfer,
// which whoever ordered it has chosen.
type Transfer struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Amount int64  `json:"amount"`
}

// CreateTables creates what Handler needs, and the named accounts with nothing in
// them.
func CreateTables(ctx context.Context, db *sql.DB, d inbox.Dialect, owners ...string) error {
	if err := inbox.CreateTable(ctx, db, d); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE accounts (owner text PRIMARY KEY, balance bigint NOT NULL)"); err != nil {
		return err
	}
	for _, owner := range owners {
		if _, err := db.ExecContext(ctx, "INSERT INTO accounts VALUES ($1, 0)", owner); err != nil {
			return err
		}
	}
	return nil
}

// Handler moves the money, each transfer once.
func Handler(db *sql.DB, d inbox.Dialect) client.Handler {
	return inbox.SQL(db, d, move, inbox.WithGroup("ledger"))
}

func move(ctx context.Context, tx *sql.Tx, d *client.Delivery) error {
	var t Transfer
	if err := json.Unmarshal(d.Body(), &t); err != nil {
		return fmt.Errorf("transfer %s: %w", d.BizID(), err)
	}
	type change struct {
		owner string
		by    int64
	}
	changes := []change{{t.From, -t.Amount}, {t.To, t.Amount}}
	if t.To < t.From {
		// Always in the order of names: two transfers that lock the same accounts in
		// opposite orders would wait for each other.
		changes[0], changes[1] = changes[1], changes[0]
	}
	for _, c := range changes {
		r, err := tx.ExecContext(ctx, "UPDATE accounts SET balance = balance + $1 WHERE owner = $2", c.by, c.owner)
		if err != nil {
			return fmt.Errorf("transfer %s: %w", d.BizID(), err)
		}
		if n, err := r.RowsAffected(); err != nil || n != 1 {
			return fmt.Errorf("transfer %s: there are %d accounts of %q, %v", d.BizID(), n, c.owner, err)
		}
	}
	return nil
}
