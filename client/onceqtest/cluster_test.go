package onceqtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"onceq/client"
	"onceq/client/onceqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline bounds what a test waits for.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func publish(ctx context.Context, t *testing.T, p *client.Producer, body string) {
	t.Helper()
	if _, err := p.Publish(ctx, client.Message{Body: []byte(body)}); err != nil {
		t.Fatalf("publish %s: %v", body, err)
	}
}

// drain receives until it has seen every body, and each once.
func drain(ctx context.Context, t *testing.T, c *client.Client, queue string, bodies ...string) {
	t.Helper()
	seen := map[string]int{}
	consuming, stop := context.WithCancel(ctx)
	defer stop()
	err := c.Consume(consuming, queue, func(_ context.Context, d *client.Delivery) error {
		seen[string(d.Body())]++
		if len(seen) == len(bodies) {
			stop()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bodies {
		if seen[b] != 1 {
			t.Errorf("%q was received %d times", b, seen[b])
		}
	}
}

func setUp(ctx context.Context, t *testing.T, cluster *onceqtest.Cluster) (*client.Client, *client.Producer) {
	t.Helper()
	c := cluster.Client()
	if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer("orders")
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

func TestOneNode_KeepsItsDataOverARestart(t *testing.T) {
	cluster, ctx := onceqtest.Start(t, 1), deadline(t)
	c, p := setUp(ctx, t, cluster)
	publish(ctx, t, p, "before")
	if i := cluster.KillLeader(); i != 0 {
		t.Errorf("node %d led a cluster of one", i)
	}
	if i := cluster.Leader(); i != -1 {
		t.Errorf("node %d leads after its death", i)
	}
	cluster.Restart()
	publish(ctx, t, p, "after")
	drain(ctx, t, c, "orders", "before", "after")
}

func TestThreeNodes_GoOnWithoutTheirLeader(t *testing.T) {
	cluster, ctx := onceqtest.Start(t, 3), deadline(t)
	c, p := setUp(ctx, t, cluster)
	publish(ctx, t, p, "1")
	dead := cluster.KillLeader()
	publish(ctx, t, p, "2")
	if i := cluster.WaitLeader(); i == dead {
		t.Errorf("node %d leads after its death", i)
	}
	cluster.Restart(dead)
	cluster.Restart() // nothing is down
	for i := range 3 {
		if i != dead {
			cluster.Kill(i)
			break
		}
	}
	publish(ctx, t, p, "3") // the restarted node counts
	drain(ctx, t, c, "orders", "1", "2", "3")
}

func TestPartition_TheLeaderAloneServesNobody(t *testing.T) {
	cluster, ctx := onceqtest.Start(t, 3), deadline(t)
	c, p := setUp(ctx, t, cluster)
	publish(ctx, t, p, "1")
	alone := cluster.WaitLeader()
	cluster.Partition(alone)
	publish(ctx, t, p, "2")
	if i := cluster.Leader(); i == alone {
		t.Errorf("node %d was cut off and leads", i)
	}
	// All apart: nobody has a majority.
	cluster.Kill((alone + 1) % 3)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := p.Publish(short, client.Message{Body: []byte("3")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a publish without a majority: %v", err)
	}
	cluster.Heal()
	publish(ctx, t, p, "4")
	bodies := []string{"1", "2", "4"}
	if unknown := (*client.OutcomeUnknownError)(nil); errors.As(err, &unknown) {
		o, err := c.Seal(ctx, unknown.ID)
		if err != nil {
			t.Fatal(err)
		}
		if o.State == client.Stored {
			bodies = append(bodies, "3")
		}
	}
	drain(ctx, t, c, "orders", bodies...)
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
	for len(e.cleanups) > 0 {
		last := len(e.cleanups) - 1
		f := e.cleanups[last]
		e.cleanups = e.cleanups[:last]
		f()
	}
}
