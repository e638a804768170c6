package client_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"onceq/client"
	"onceq/client/onceqtest"
)

const bound = time.Minute

// queueWith is a client of a new cluster with a queue "orders" that has messages.
func queueWith(t *testing.T, bodies ...string) *client.Client {
	t.Helper()
	c := onceqtest.Start(t, 1).Client()
	if _, err := c.Admin().CreateQueue(t.Context(), "orders", client.QueueSettings{}); err != nil {
		t.Fatal(err)
	}
	publishAll(t, c, bodies...)
	return c
}

func publishAll(t *testing.T, c *client.Client, bodies ...string) {
	t.Helper()
	p, err := c.NewProducer("orders")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bodies {
		if _, err := p.Publish(t.Context(), client.Message{Body: []byte(b)}); err != nil {
			t.Fatal(err)
		}
	}
}

// rest are the messages that are left, with their attempts and failures.
func rest(t *testing.T, c *client.Client, n int) (all []string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), bound)
	defer stop()
	for d, err := range c.Messages(ctx, "orders") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s attempt %d failures %d", d.Body(), d.Attempt(), d.Failures()))
		if err := d.Ack(ctx); err != nil {
			t.Fatal(err)
		}
		if len(all) == n {
			break
		}
	}
	slices.Sort(all)
	return all
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q\nwant %q", got, want)
	}
}

func TestMessages_BreakGivesBackWhatIsNotSettled(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a", "b", "c", "d")
	var kept *client.Delivery
	for d, err := range c.Messages(t.Context(), "orders") {
		if err != nil {
			t.Fatal(err)
		}
		if string(d.Body()) == "a" {
			if err := d.Ack(d.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if string(d.Body()) == "b" {
			kept = d // settled by nobody
			continue
		}
		break // at c, seen and not settled; d is not seen
	}
	if err := kept.Ack(t.Context()); err == nil || errors.Is(err, client.ErrOutcomeUnknown) {
		t.Fatalf("an ack after the loop: %v", err)
	}
	expect(t, rest(t, c, 3), "b attempt 2 failures 1", "c attempt 2 failures 1", "d attempt 2 failures 0")
}

func TestMessages_ContextEnds_TheLoopEndsWithoutAnError(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a")
	ctx, stop := context.WithTimeout(t.Context(), bound)
	defer stop()
	seen := 0
	for d, err := range c.Messages(ctx, "orders") {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if err := d.Ack(ctx); err != nil {
			t.Fatal(err)
		}
		stop()
	}
	if seen != 1 {
		t.Fatal(seen)
	}
}

func TestMessages_PanicInTheBody_GivesBack(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a")
	func() {
		defer func() {
			if r := recover(); r != "oh" {
				t.Errorf("recovered %v", r)
			}
		}()
		for range c.Messages(t.Context(), "orders") {
			panic("oh")
		}
	}()
	expect(t, rest(t, c, 1), "a attempt 2 failures 1")
}

func TestMessages_ThatCannotGoOn_SayWhy(t *testing.T) {
	t.Parallel()
	c := onceqtest.Start(t, 1).Client()
	first := func(queue string, opts ...client.ConsumeOption) (errs []error) {
		for d, err := range c.Messages(t.Context(), queue, opts...) {
			if d != nil {
				t.Fatal("a message from nowhere")
			}
			errs = append(errs, err)
		}
		return errs
	}
	if errs := first("nowhere"); len(errs) != 1 || !errors.Is(errs[0], client.ErrNoQueue) {
		t.Error(errs)
	}
	if errs := first("no/name"); len(errs) != 1 || !errors.Is(errs[0], client.ErrBadName) {
		t.Error(errs)
	}
	if errs := first("orders", client.WithConcurrency(2)); len(errs) != 1 || !strings.Contains(errs[0].Error(), "WithConcurrency") {
		t.Error(errs)
	}
	c.Close()
	if errs := first("orders"); len(errs) != 1 || !errors.Is(errs[0], client.ErrClosed) {
		t.Error(errs)
	}
}

func TestMessages_LeaseLost_EndsTheDeliverysContext(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a")
	for d, err := range c.Messages(t.Context(), "orders") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Admin().PurgeQueue(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-d.Context().Done():
		case <-time.After(bound):
			t.Fatal("the context goes on")
		}
		if err := context.Cause(d.Context()); !errors.Is(err, client.ErrLeaseLost) {
			t.Error(err)
		}
		if err := d.Ack(t.Context()); !errors.Is(err, client.ErrLeaseLost) {
			t.Error(err)
		}
		break
	}
}

func TestMessages_LeaderKilled_GoesOnWithoutHandingOutTwice(t *testing.T) {
	t.Parallel()
	cluster := onceqtest.Start(t, 3)
	c := cluster.Client()
	if _, err := c.Admin().CreateQueue(t.Context(), "orders", client.QueueSettings{}); err != nil {
		t.Fatal(err)
	}
	publishAll(t, c, "a", "b", "c")
	var seen []string
	for d, err := range c.Messages(t.Context(), "orders") {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, string(d.Body()))
		if len(seen) == 2 {
			cluster.KillLeader()
		}
		if err := d.Ack(t.Context()); err != nil || d.Attempt() != 1 {
			t.Fatal(d.Attempt(), err)
		}
		if len(seen) == 3 {
			break
		}
	}
	expect(t, seen, "a", "b", "c")
}

func TestClose_ByAHandler_SaysThatItWouldWaitForItself(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var err error
	if err := c.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
		err = func() error { return c.Close() }() // at some depth
		stop()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err == nil || !strings.Contains(err.Error(), "nothing was closed") {
		t.Fatal(err)
	}
	publishAll(t, c, "b")
	for range c.Messages(t.Context(), "orders") {
		if err := c.Close(); err == nil {
			t.Error("closed inside a loop")
		}
		break
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestConsume_HandlerThatEndsItsGoroutine_GivesBackAndGoesOn(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a", "b")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var seen []string
	if err := c.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
		seen = append(seen, fmt.Sprintf("%s attempt %d", d.Body(), d.Attempt()))
		switch {
		case len(seen) == 1:
			runtime.Goexit()
		case string(d.Body()) == "a":
			stop()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	expect(t, seen, "a attempt 1", "b attempt 1", "a attempt 2")
}

func TestMiddleware_FirstIsOutermost(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var said []string
	around := func(name string) client.Middleware {
		return func(next client.Handler) client.Handler {
			return func(ctx context.Context, d *client.Delivery) error {
				said = append(said, name+" in")
				defer func() { said = append(said, name+" out") }()
				return next(ctx, d)
			}
		}
	}
	if err := c.Consume(ctx, "orders", func(context.Context, *client.Delivery) error {
		said = append(said, "handler")
		stop()
		return nil
	}, client.WithMiddleware(around("1"), around("2")), client.WithMiddleware(around("3"))); err != nil {
		t.Fatal(err)
	}
	expect(t, said, "1 in", "2 in", "3 in", "handler", "3 out", "2 out", "1 out")
}

func TestConnectionHook_TellsWhatHappenedInOrder(t *testing.T) {
	t.Parallel()
	cluster := onceqtest.Start(t, 3)
	var mu sync.Mutex
	var events []client.ConnectionEvent
	changed := make(chan struct{}, 1)
	closeInHook := make(chan error, 1)
	var c *client.Client
	made := make(chan struct{})
	c = cluster.Client(client.WithConnectionHook(func(e client.ConnectionEvent) {
		<-made
		mu.Lock()
		events = append(events, e)
		mu.Unlock()
		select {
		case closeInHook <- c.Close():
		default:
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}))
	close(made)
	if err := <-closeInHook; err == nil {
		t.Fatal("a hook has closed what waits for it")
	}
	// Who has published is connected to the leader, and stays so.
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	if _, err := c.Admin().CreateQueue(ctx, "orders", client.QueueSettings{}); err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer("orders")
	if err != nil {
		t.Fatal(err)
	}
	publish := func(body, not string) (node string) {
		if _, err := p.Publish(ctx, client.Message{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.After(bound); ; {
			mu.Lock()
			last := events[len(events)-1]
			mu.Unlock()
			if last.Connected && last.Node != not {
				return last.Node
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("published, and the last that is told is %+v", last)
			}
		}
	}
	killed := publish("before", "")
	dead := slices.Index([]string{"n0", "n1", "n2"}, killed)
	if dead < 0 {
		t.Fatalf("connected to %q", killed)
	}
	cluster.Kill(dead)
	publish("after", killed)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	// All calls are over.
	first, last := events[0], events[len(events)-1]
	if !first.Connected || first.Link != "produce" || first.Err != nil {
		t.Errorf("first: %+v", first)
	}
	addresses := strings.Split(strings.TrimPrefix(cluster.URL(), "onceq://"), ",")
	for _, e := range events {
		if i := slices.Index(addresses, e.Address); i < 0 || e.Node != fmt.Sprintf("n%d", i) {
			t.Errorf("%s has another address than %s", e.Node, e.Address)
		}
	}
	lost := func(e client.ConnectionEvent) bool { return !e.Connected && e.Node == killed }
	if !slices.ContainsFunc(events, lost) {
		t.Errorf("%s was killed, and nothing tells of it: %+v", killed, events)
	}
	if last.Connected || !errors.Is(last.Err, client.ErrClosed) {
		t.Errorf("last: %+v", last)
	}
	for i, e := range events {
		if e.Connected == (i%2 == 1) {
			t.Errorf("event %d of %+v does not alternate", i, events)
		}
		if !e.Connected && e.Err == nil {
			t.Errorf("no reason in %+v", e)
		}
	}
}

func TestConsume_DrainTakesTooLong_HandlersAreTold(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var cause error
	if err := c.Consume(ctx, "orders", func(ctx context.Context, _ *client.Delivery) error {
		stop()
		<-ctx.Done()
		cause = context.Cause(ctx)
		return nil // what it returns still counts
	}, client.WithDrainTimeout(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(cause, client.ErrDraining) {
		t.Fatal(cause)
	}
	if q, err := c.Admin().Queue(t.Context(), "orders"); err != nil || q.Counts.Acked != 1 {
		t.Fatalf("%+v, %v", q, err)
	}
}

func TestNackAfter_KeepsTheReason_AndIsRefusedAfterAnotherVerb(t *testing.T) {
	t.Parallel()
	c := queueWith(t, "a")
	for d, err := range c.Messages(t.Context(), "orders") {
		if err != nil {
			t.Fatal(err)
		}
		if err := d.NackAfter(t.Context(), time.Hour, errors.New("closed today")); err != nil {
			t.Fatal(err)
		}
		if err := d.Ack(t.Context()); !errors.Is(err, client.ErrAlreadySettled) {
			t.Errorf("an ack after a nack: %v", err)
		}
		m, err := c.Admin().Message(t.Context(), "orders", client.Place{})
		if err != nil || m.LastError != "closed today" || m.State != client.Delayed {
			t.Errorf("%+v, %v", m, err)
		}
		break
	}
}

func TestFuture_WaitEndsFirst_TheOutcomeIsUnknownNotNever(t *testing.T) {
	t.Parallel()
	cluster := onceqtest.Start(t, 1)
	c := cluster.Client()
	if _, err := c.Admin().CreateQueue(t.Context(), "orders", client.QueueSettings{}); err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer("orders")
	if err != nil {
		t.Fatal(err)
	}
	cluster.KillLeader()
	f := p.PublishAsync(t.Context(), client.Message{Body: []byte("a")})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Wait(over); !errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	cluster.Restart()
	if r, err := f.Wait(t.Context()); err != nil || r.Message.Offset != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
