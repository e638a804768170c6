package onceqtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"onceq/client"
	"onceq/client/onceqtest"
)

func TestAdvance_ADelayOfAWeekPasses(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	cluster := onceqtest.Start(t, 1)
	c, p := setUp(ctx, t, cluster)
	week := 7 * 24 * time.Hour
	if _, err := p.Publish(ctx, client.Message{Body: []byte("later"), Delay: week}); err != nil {
		t.Fatal(err)
	}
	cluster.Advance(week - time.Hour)
	if q, err := c.Admin().Queue(ctx, "orders"); err != nil || q.Counts.Delayed != 1 {
		t.Fatalf("%+v, %v", q, err)
	}
	cluster.Advance(time.Hour)
	drain(ctx, t, c, "orders", "later")
}

func TestAdvance_ALeaseRunsOut_AlsoWhereItsHolderLives(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	cluster := onceqtest.Start(t, 3)
	c, p := setUp(ctx, t, cluster)
	publish(ctx, t, p, "order")
	consuming, stop := context.WithCancel(ctx)
	defer stop()
	var attempts []int
	if err := c.Consume(consuming, "orders", func(ctx context.Context, d *client.Delivery) error {
		if attempts = append(attempts, d.Attempt()); d.Attempt() > 1 {
			stop()
			return nil
		}
		cluster.Advance(time.Hour)
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), client.ErrLeaseLost) {
			t.Errorf("the handler's context ended with %v", context.Cause(ctx))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(attempts) != 2 {
		t.Error(attempts)
	}
}

func TestAdvance_AnIdleSessionExpires(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	cluster := onceqtest.Start(t, 1)
	c, p := setUp(ctx, t, cluster)
	publish(ctx, t, p, "order")
	for _, want := range []int{1, 0} {
		sessions, err := c.Admin().Sessions(ctx, 0, 10)
		if err != nil || len(sessions) != want {
			t.Fatalf("%d sessions, %v", len(sessions), err)
		}
		cluster.Advance(100 * 24 * time.Hour)
	}
}
