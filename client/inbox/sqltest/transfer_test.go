package sqltest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"onceq/client"
	"onceq/client/inbox"
	"onceq/client/onceqtest"
)

// Ten thousand messages, some of them sent twice, while consumers, connections to
// the database and leaders are killed: every balance is exact in the end.
func TestTransfers_AreExactWhateverIsKilled(t *testing.T) {
	const (
		messages = 10_000
		twice    = 500 // of the messages are copies under the same biz-id
		accounts = 20
	)
	eachDialect(t, func(t *testing.T, b base) {
		ctx, db := bounded(t), b.open(t)
		cluster := onceqtest.Start(t, 3)
		c := cluster.Client()
		_, err := c.Admin().CreateQueue(ctx, Queue, client.QueueSettings{})
		must(t, err)
		var owners []string
		for i := range accounts {
			owners = append(owners, fmt.Sprintf("account-%02d", i))
		}
		must(t, CreateTables(ctx, db, b.dialect, owners...))

		rng := rand.New(rand.NewPCG(1, 2))
		want := map[string]int{}
		p, err := c.NewProducer(Queue)
		must(t, err)
		var futures []*client.Future
		var sent []client.Message
		for i := range messages {
			var m client.Message
			if i%(messages/twice) == messages/twice-1 {
				m = sent[rng.IntN(len(sent))]
			} else {
				from := rng.IntN(accounts)
				to := (from + 1 + rng.IntN(accounts-1)) % accounts
				amount := 1 + rng.Int64N(1000)
				want[owners[from]] -= int(amount)
				want[owners[to]] += int(amount)
				m = message(fmt.Sprint("transfer-", i), Transfer{owners[from], owners[to], amount})
			}
			sent = append(sent, m)
			futures = append(futures, p.PublishAsync(ctx, m))
		}
		for _, f := range futures {
			_, err := f.Wait(ctx)
			must(t, err)
		}

		concurrency := 8
		if b.dialect == inbox.SQLite {
			concurrency = 1 // there is one writer
		}
		start := func() *consumer { return startConsumer(t, cluster.URL(), Queue, b, concurrency, -1) }
		consumers := []*consumer{start(), start()}
		killConsumer := func() {
			consumers[0].kill()
			consumers = append(consumers[1:], start())
		}
		connections := 0 // that were killed; SQLite's is the consumer's process
		killConnections := func() {
			if b.dialect == inbox.PostgreSQL {
				connections += number(t, db, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
			}
		}
		killLeader := func() { cluster.Restart(cluster.KillLeader()) }
		faults := []func(){
			killConsumer, killConnections, killLeader, killConnections,
			func() { killConsumer(); killConnections(); killLeader() },
		}
		for i, fault := range faults {
			after := (i + 1) * messages / (len(faults) + 2)
			until(t, func() string {
				if n := number(t, db, "SELECT count(*) FROM onceq_inbox"); n < after {
					return fmt.Sprintf("%d of %d transfers done before fault %d", n, after, i)
				}
				return ""
			})
			fault()
		}
		until(t, func() string {
			if n := acked(ctx, t, c, Queue); n != messages {
				return fmt.Sprintf("%d of %d messages acked", n, messages)
			}
			return ""
		})
		for _, k := range consumers {
			k.stop()
		}
		for _, owner := range owners {
			if n := number(t, db, "SELECT balance FROM accounts WHERE owner = $1", owner); n != want[owner] {
				t.Errorf("%s has %d, want %d", owner, n, want[owner])
			}
		}
		if n := number(t, db, "SELECT count(*) FROM onceq_inbox"); n != messages-twice {
			t.Errorf("%d notes for %d transfers", n, messages-twice)
		}
		if b.dialect == inbox.PostgreSQL && connections == 0 {
			t.Error("no connection to the database was killed")
		}
		q, err := c.Admin().Queue(ctx, Queue)
		must(t, err)
		if q.Counts.Delivered <= messages {
			t.Errorf("%d deliveries of %d messages: the faults redelivered nothing, so nothing was tested", q.Counts.Delivered, messages)
		}
		t.Logf("%d messages, %d deliveries", messages, q.Counts.Delivered)
	})
}
