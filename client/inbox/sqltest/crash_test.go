package sqltest

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"onceq/client"
	"onceq/client/onceqtest"
)

// stepsOfOne is what a consumer does for one message: before and after begin, the
// note, two updates and the commit, then the ack and its answer.
const (
	stepsOfOne = 2*5 + 2
	committed  = 9 // the step after the commit
)

// A consumer dies at every step in turn, with one message before and one after
// the one it dies in. The next consumer finishes, and every transfer has happened
// once.
func TestCrash_BetweenEveryTwoSteps(t *testing.T) {
	cluster := onceqtest.Start(t, 1)
	c := cluster.Client()
	eachDialect(t, func(t *testing.T, b base) {
		ctx := bounded(t)
		queues, dbs := make([]string, stepsOfOne), make([]*sql.DB, stepsOfOne)
		bobs := func(step int) int {
			return number(t, dbs[step], "SELECT balance FROM accounts WHERE owner = 'bob'")
		}
		for step := range stepsOfOne {
			b := newBase(t, b.dialect)
			dbs[step], queues[step] = b.open(t), fmt.Sprintf("crash-%d-%d", b.dialect, step)
			_, err := c.Admin().CreateQueue(ctx, queues[step], client.QueueSettings{})
			must(t, err)
			must(t, CreateTables(ctx, dbs[step], b.dialect, "ann", "bob"))
			p, err := c.NewProducer(queues[step])
			must(t, err)
			for i := range 3 {
				_, err := p.Publish(ctx, message(fmt.Sprint(i), Transfer{"ann", "bob", 1 << (4 * i)}))
				must(t, err)
			}
			k := startConsumer(t, cluster.URL(), queues[step], b, 1, stepsOfOne+step)
			if !k.killed() {
				t.Fatalf("the consumer did not die at step %d: %v", step, k.wait())
			}
			done := 0x01 // the first is done, and of the second what was committed
			if step >= committed {
				done = 0x11
			}
			if n := bobs(step); n != done {
				t.Errorf("after a crash at step %d bob has %#x, want %#x", step, n, done)
			}
		}

		// The dead consumers' leases last for a while, so all queues go on together.
		consuming, stop := context.WithCancel(ctx)
		defer stop()
		var wg sync.WaitGroup
		for step, queue := range queues {
			wg.Go(func() {
				if err := c.Consume(consuming, queue, Handler(dbs[step], b.dialect)); err != nil {
					t.Error(err)
				}
			})
		}
		for step, queue := range queues {
			until(t, func() string {
				if n := acked(ctx, t, c, queue); n != 3 {
					return fmt.Sprintf("step %d: %d of 3 transfers acked", step, n)
				}
				return ""
			})
			if n := bobs(step); n != 0x111 {
				t.Errorf("step %d: bob has %#x, want %#x: each transfer once", step, n, 0x111)
			}
			if n := number(t, dbs[step], "SELECT sum(balance) FROM accounts"); n != 0 {
				t.Errorf("step %d: %d appeared from nowhere", step, n)
			}
			if n := number(t, dbs[step], "SELECT count(*) FROM onceq_inbox"); n != 3 {
				t.Errorf("step %d: %d notes for 3 transfers", step, n)
			}
		}
		stop()
		wg.Wait()
	})
}
