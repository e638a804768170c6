package sqltest

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"

	"onceq/client"
	"onceq/client/inbox"
	"onceq/client/onceqtest"
)

// The bank's clerk sends a transfer twice; it happens once.
func ExampleHandler() {
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t := &example{dir: dir} // in a test this is its *testing.T
	defer t.end()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "db")+"?_pragma=busy_timeout(60000)&_pragma=journal_mode(WAL)")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := CreateTables(ctx, db, inbox.SQLite, "ann", "bob"); err != nil {
		log.Fatal(err)
	}
	c := onceqtest.Start(t, 1).Client()
	if _, err := c.Admin().CreateQueue(ctx, Queue, client.QueueSettings{}); err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(Queue)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range []client.Message{
		{BizID: "transfer-1", Body: []byte(`{"from": "ann", "to": "bob", "amount": 100}`)},
		{BizID: "transfer-1", Body: []byte(`{"from": "ann", "to": "bob", "amount": 100}`)},
		{BizID: "transfer-2", Body: []byte(`{"from": "bob", "to": "ann", "amount": 30}`)},
	} {
		if _, err := p.Publish(ctx, m); err != nil {
			log.Fatal(err)
		}
	}

	handler := Handler(db, inbox.SQLite)
	err = c.Consume(ctx, Queue, func(ctx context.Context, d *client.Delivery) error {
		if d.BizID() == "transfer-2" {
			defer stop() // the last of this example
		}
		return handler(ctx, d)
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, owner := range []string{"ann", "bob"} {
		var balance int
		if err := db.QueryRow("SELECT balance FROM accounts WHERE owner = ?", owner).Scan(&balance); err != nil {
			log.Fatal(err)
		}
		fmt.Println(owner, balance)
	}
	// Output:
	// ann -70
	// bob 70
}

// example stands for the *testing.T that an Example does not have.
type example struct {
	testing.TB
	cleanups []func()
	dir      string
}

func (*example) Helper()                   {}
func (*example) Failed() bool              { return false }
func (e *example) TempDir() string         { return e.dir }
func (e *example) Cleanup(f func())        { e.cleanups = append(e.cleanups, f) }
func (*example) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func (e *example) end() {
	for i := len(e.cleanups) - 1; i >= 0; i-- {
		e.cleanups[i]()
	}
}
