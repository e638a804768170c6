package sqltest

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"syscall"
)

// steps counts what a process does with its database and with the cluster, and
// kills the process at one of them as kill -9 does: no deferred call runs.
type steps struct {
	n    atomic.Int64
	last int64 // the process dies at this one; -1 for never
}

func (s *steps) next() {
	if s.n.Add(1)-1 == s.last {
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// around makes both the moment before and the one after f a step.
func (s *steps) around(f func() error) error {
	s.next()
	defer s.next()
	return f()
}

// connector counts begin, each statement, commit and rollback.
type connector struct {
	driver.Connector
	steps *steps
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	cn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{cn, c.steps}, nil
}

type conn struct {
	driver.Conn
	steps *steps
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (t driver.Tx, err error) {
	err = c.steps.around(func() error {
		t, err = c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
		return err
	})
	return &transaction{t, c.steps}, err
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (r driver.Result, err error) {
	err = c.steps.around(func() error {
		r, err = c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
		return err
	})
	return r, err
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

func (c *conn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

type transaction struct {
	driver.Tx
	steps *steps
}

func (t *transaction) Commit() error   { return t.steps.around(t.Tx.Commit) }
func (t *transaction) Rollback() error { return t.steps.around(t.Tx.Rollback) }
