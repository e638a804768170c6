package sqltest

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"onceq/client"
	"onceq/client/inbox"
	"onceq/cluster/clustertest"
	"onceq/transport/wire"
)

// The tests kill consumers, so these are processes: this test binary, called with
// what to do in its environment.
const (
	childEnv       = "ONCEQ_SQLTEST_URL"
	dialectEnv     = "ONCEQ_SQLTEST_DIALECT"
	dsnEnv         = "ONCEQ_SQLTEST_DSN"
	queueEnv       = "ONCEQ_SQLTEST_QUEUE"
	concurrencyEnv = "ONCEQ_SQLTEST_CONCURRENCY"
	dieEnv         = "ONCEQ_SQLTEST_DIE" // at which step
)

// child is a consumer process. It ends in order when it is asked to.
func child() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	number := func(name string) int {
		n, err := strconv.Atoi(os.Getenv(name))
		must(err)
		return n
	}
	dialect := inbox.Dialect(number(dialectEnv))
	s := &steps{last: int64(number(dieEnv))}
	c, err := open(dialect, os.Getenv(dsnEnv))
	must(err)
	db := sql.OpenDB(connector{c, s})
	defer db.Close()

	proxy := clustertest.NewProxy(noTest{})
	pass := func(f wire.Frame) clustertest.Verdict {
		if f.Op == wire.OpSettle {
			s.next()
		}
		return clustertest.Pass
	}
	proxy.OnRequest(pass)
	proxy.OnAnswer(pass)
	cl, err := client.Dial(ctx, os.Getenv(childEnv), client.WithDialer(proxy.Dial))
	must(err)
	defer cl.Close()
	concurrency := number(concurrencyEnv)
	must(cl.Consume(ctx, os.Getenv(queueEnv), Handler(db, dialect),
		client.WithConcurrency(concurrency), client.WithPrefetch(4*concurrency-3))) // 1 of 1
}

// noTest stands for the *testing.T that a child does not have.
type noTest struct{ testing.TB }

func (noTest) Cleanup(func()) {}

// open makes a connector for a dialect with the driver that the tests use.
func open(d inbox.Dialect, dsn string) (driver.Connector, error) {
	db, err := sql.Open(driverName(d), dsn)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if dc, ok := db.Driver().(driver.DriverContext); ok {
		return dc.OpenConnector(dsn)
	}
	return plainConnector{db.Driver(), dsn}, nil
}

type plainConnector struct {
	driver driver.Driver
	dsn    string
}

func (c plainConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c plainConnector) Driver() driver.Driver                        { return c.driver }

func driverName(d inbox.Dialect) string {
	if d == inbox.SQLite {
		return "sqlite"
	}
	return "pgx"
}

// consumer is a child as its parent sees it.
type consumer struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *bytes.Buffer
	once sync.Once
	err  error
}

// startConsumer starts a child that dies at a step, -1 for never.
func startConsumer(t *testing.T, url, queue string, b base, concurrency, die int) *consumer {
	t.Helper()
	c := &consumer{t: t, cmd: exec.Command(os.Args[0]), out: &bytes.Buffer{}}
	c.cmd.Env = append(os.Environ(), childEnv+"="+url, queueEnv+"="+queue, dsnEnv+"="+b.dsn,
		fmt.Sprintf("%s=%d", dialectEnv, b.dialect), fmt.Sprintf("%s=%d", concurrencyEnv, concurrency), fmt.Sprintf("%s=%d", dieEnv, die))
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// wait returns what the process said at its end.
func (c *consumer) wait() error {
	c.once.Do(func() {
		if c.err = c.cmd.Wait(); c.err != nil {
			c.err = fmt.Errorf("%w: %s", c.err, strings.TrimSpace(c.out.String()))
		}
	})
	return c.err
}

// kill is kill -9.
func (c *consumer) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.wait()
}

// stop asks it to end in order.
func (c *consumer) stop() {
	c.t.Helper()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	if err := c.wait(); err != nil {
		c.t.Errorf("a consumer that was asked to end: %v", err)
	}
}

// killed says that the process ended by kill -9.
func (c *consumer) killed() bool {
	_ = c.wait()
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
