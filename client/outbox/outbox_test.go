package outbox

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"onceq/client"
	"onceq/transport/wire"
)

func TestPublish_IsStoredOnceAndLeavesTheOutbox(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 3, client.QueueSettings{})
	b := open(t, path(t), WithClient(c))
	want := ids("a", 1, 20)
	ns := publish(t, b, want...)
	flush(t, b)
	same(t, "queue", stored(t, c), want)
	r, err := b.Wait(bounded(t), ns[4])
	if err != nil || r.Message.String() != "orders/4" || r.ID.Sequence != 5 {
		t.Errorf("receipt %+v, %v", r, err)
	}
	if _, err := b.Wait(bounded(t), 77); !errors.Is(err, ErrNoEntry) {
		t.Errorf("wait for what never was: %v", err)
	}
	s := b.Stats()
	// A leader that changes has copies sent, so there may be duplicates.
	if s.Published != 20 || s.Stored != 20 || s.Waiting+s.Sent+s.Held+s.Bytes != 0 || s.Trouble != nil {
		t.Errorf("stats %+v", s)
	}
	shut(t, b)
	if _, err := b.Publish(bounded(t), client.Message{}); !errors.Is(err, ErrClosed) {
		t.Errorf("publish after close: %v", err)
	}
	if err := b.Resend(NoRisk, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("resend after close: %v", err)
	}
}

func TestPublish_Concurrently_SharesTransactions(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 1, client.QueueSettings{})
	b := open(t, path(t), WithClient(c))
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range 25 {
				if _, err := b.Publish(bounded(t), client.Message{BizID: ids("g", g, g)[0] + ids("-", i, i)[0]}); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	flush(t, b)
	seen := map[string]int{}
	for _, id := range stored(t, c) {
		seen[id]++
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s is stored %d times", id, n)
		}
	}
	if len(seen) != 800 {
		t.Errorf("%d messages, want 800", len(seen))
	}
	if s := b.Stats(); s.Commits >= 800 {
		t.Errorf("%d transactions for 800 publishes of 32 goroutines", s.Commits)
	}
}

func TestOpen_NoClusterReachable_TakesEntriesAndSendsThemLater(t *testing.T) {
	t.Parallel()
	cl, c := cluster(t, 1, client.QueueSettings{})
	file := path(t)
	down := make(chan struct{})
	dial := gate(down)
	b := open(t, file, WithURL(cl.URL(), client.WithDialer(dial)))
	publish(t, b, ids("a", 1, 3)...)
	shut(t, b)
	b = open(t, file, WithURL(cl.URL(), client.WithDialer(dial)))
	publish(t, b, ids("a", 4, 5)...)
	if s := b.Stats(); s.Waiting != 5 || s.Sent != 0 {
		t.Errorf("stats %+v", s)
	}
	eventually(t, "the trouble is shown", func() bool { return errors.Is(b.Stats().Trouble, client.ErrUnreachable) })
	close(down)
	flush(t, b)
	same(t, "queue", stored(t, c), ids("a", 1, 5))
}

func TestPublishBatch_IsOneEntry(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 1, client.QueueSettings{})
	b := open(t, path(t), WithClient(c))
	n, err := b.PublishBatch(bounded(t), client.Message{BizID: "a1"}, client.Message{BizID: "a2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Wait(bounded(t), n); err != nil {
		t.Fatal(err)
	}
	same(t, "queue", stored(t, c), ids("a", 1, 2))
	if s := b.Stats(); s.Published != 1 {
		t.Errorf("stats %+v", s)
	}
}

// Refusals that pass are no outcome: the oldest is tried until there is room, and
// nothing overtakes it.
func TestQueueFull_NothingIsLostNorOvertaken(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 3, client.QueueSettings{LengthMax: 3})
	b := open(t, path(t), WithClient(c), WithMaxInFlight(16))
	want := ids("a", 1, 40)
	publish(t, b, want...)
	var got []string
	ctx, stop := context.WithCancel(bounded(t))
	defer stop()
	err := c.Consume(ctx, "orders", func(_ context.Context, d *client.Delivery) error {
		if got = append(got, d.BizID()); len(got) == len(want) {
			stop()
		}
		return nil
	}, client.WithConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "consumed", got, want)
	flush(t, b)
	if s := b.Stats(); s.Stored != 40 || s.Held != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestNoQueue_WaitsUntilItIsCreated(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 1, client.QueueSettings{})
	if _, err := c.Admin().DeleteQueue(bounded(t), "orders"); err != nil {
		t.Fatal(err)
	}
	b := open(t, path(t), WithClient(c))
	publish(t, b, ids("a", 1, 3)...)
	eventually(t, "they are sent", func() bool { return b.Stats().Sent == 3 })
	if _, err := c.Admin().CreateQueue(bounded(t), "orders", client.QueueSettings{}); err != nil {
		t.Fatal(err)
	}
	flush(t, b)
	same(t, "queue", stored(t, c), ids("a", 1, 3))
}

func TestLeaderKilled_EachIsStoredOnce(t *testing.T) {
	t.Parallel()
	cl, c := cluster(t, 3, client.QueueSettings{})
	b := open(t, path(t), WithClient(c))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() { publish(t, b, ids(ids("g", g, g)[0]+"-", 1, 50)...) })
	}
	cl.KillLeader()
	wg.Wait()
	flush(t, b)
	seen := map[string]int{}
	for _, id := range stored(t, c) {
		seen[id]++
	}
	if len(seen) != 200 {
		t.Errorf("%d messages, want 200", len(seen))
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s is stored %d times", id, n)
		}
	}
}

func TestResults_AreToldInOrderOnceOnDisk(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 1, client.QueueSettings{})
	var told []Result
	b := open(t, path(t), WithClient(c), WithResults(func(r Result) { told = append(told, r) }))
	publish(t, b, ids("a", 1, 10)...)
	flush(t, b)
	shut(t, b) // tells the rest
	if len(told) != 10 {
		t.Fatalf("%d results", len(told))
	}
	for i, r := range told {
		if r.Number != Number(i+1) || r.Err != nil || r.Receipt.Message.Offset != uint64(i) {
			t.Errorf("result %d: %+v", i, r)
		}
	}
}

// The outcome is on disk and not told yet: who asks in this moment is not told that
// nothing is known any more.
func TestWait_OutcomeIsOnDiskAndNotToldYet(t *testing.T) {
	t.Parallel()
	const first = Number(1)
	_, c := cluster(t, 1, client.QueueSettings{})
	var box atomic.Pointer[Outbox]
	there, asked := false, make(chan error, 1)
	b := open(t, path(t), WithClient(c), func(o *options) {
		o.step = func(name string) {
			b := box.Load()
			if name != "committed" || b == nil {
				return
			}
			_, err := b.Entry(first)
			if there && errors.Is(err, ErrNoEntry) && len(asked) == 0 {
				ctx, cancel := context.WithCancelCause(context.Background())
				cancel(errors.New("it waits")) // the keeper cannot go on here
				_, err := b.Wait(ctx, first)
				asked <- err
			}
			there = there || err == nil
		}
	})
	box.Store(b)
	publish(t, b, "a1")
	flush(t, b)
	if err := <-asked; err == nil || err.Error() != "it waits" {
		t.Errorf("asked before it was told: %v", err)
	}
	if r, err := b.Wait(bounded(t), first); err != nil || r.Message.String() != "orders/0" {
		t.Errorf("asked after it: %+v, %v", r, err)
	}
}

func TestResults_SlowFunction_BlocksNoPublish(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 1, client.QueueSettings{})
	slow, told := make(chan struct{}), 0
	b := open(t, path(t), WithClient(c), WithMaxInFlight(64), WithResults(func(Result) { <-slow; told++ }))
	const n = resultsMax + 500
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { publish(t, b, ids("a", 1, n/50)...) })
	}
	wg.Wait()
	close(slow)
	flush(t, b)
	shut(t, b)
	if told != n/50*50 {
		t.Errorf("%d results of %d", told, n/50*50)
	}
}

func TestFull_WaitsOrFailsAsAsked(t *testing.T) {
	t.Parallel()
	cl, c := cluster(t, 1, client.QueueSettings{})
	down := make(chan struct{})
	url := WithURL(cl.URL(), client.WithDialer(gate(down)))
	b := open(t, path(t), url, WithEntriesMax(2))
	publish(t, b, "a1", "a2")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Publish(ctx, client.Message{}); !errors.Is(err, ErrFull) || !errors.Is(err, context.Canceled) {
		t.Errorf("full and cancelled: %v", err)
	}
	fails := open(t, path(t), url, WithBytesMax(200), WithFailWhenFull())
	if _, err := fails.Publish(bounded(t), client.Message{Body: make([]byte, 500)}); !errors.Is(err, ErrFull) {
		t.Errorf("larger than the outbox: %v", err)
	}
	publish(t, fails, "b1", "b2")
	if _, err := fails.Publish(bounded(t), client.Message{Body: make([]byte, 100)}); !errors.Is(err, ErrFull) {
		t.Errorf("full: %v", err)
	}
	waits := make(chan error)
	go func() {
		_, err := b.Publish(bounded(t), client.Message{BizID: "a3"})
		waits <- err
	}()
	close(down) // those that are stored make room
	if err := <-waits; err != nil {
		t.Errorf("publish: %v", err)
	}
	flush(t, b)
	flush(t, fails)
	if got := len(stored(t, c)); got != 5 {
		t.Errorf("%d messages, want 5", got)
	}
	// What waits for room when the outbox is closed is not left waiting.
	b = open(t, path(t), WithURL("127.0.0.1:1"), WithEntriesMax(1))
	publish(t, b, "c1")
	go func() {
		_, err := b.Publish(bounded(t), client.Message{BizID: "c2"})
		waits <- err
	}()
	shut(t, b)
	if err := <-waits; !errors.Is(err, ErrClosed) {
		t.Errorf("closed while waiting: %v", err)
	}
}

func TestPublish_WhatCanNeverBeStored_IsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	_, c := cluster(t, 1, client.QueueSettings{})
	b := open(t, path(t), WithClient(c))
	if _, err := b.Publish(bounded(t), client.Message{OrderingKey: "k", Priority: 3}); !errors.Is(err, client.ErrBadOptions) {
		t.Errorf("options that exclude each other: %v", err)
	}
	if _, err := b.Publish(bounded(t), client.Message{Body: make([]byte, 64<<20)}); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if s := b.Stats(); s.Published != 0 {
		t.Errorf("stats %+v", s)
	}
}

// The disk fails when the outbox takes nothing more already. What it does with a publish
// under way nobody can tell, so that is not told as refused; and nobody waits for ever.
func TestDisk_FailsAfterItWasHalted_IsToldAsThat(t *testing.T) {
	t.Parallel()
	var b *Outbox
	fails := make(chan struct{})
	b = open(t, path(t), WithURL(nowhere), func(o *options) {
		o.step = func(name string) {
			select {
			case <-fails:
				if name == "before commit" {
					b.haltWith(ErrClosed)
					b.file.db.Close()
				}
			default:
			}
		}
	})
	publish(t, b, "a1")
	close(fails)
	if _, err := b.Publish(bounded(t), client.Message{BizID: "a2"}); !errors.Is(err, ErrDisk) {
		t.Errorf("publish: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Resend(MayBeStoredTwice, 1) }()
	select {
	case err := <-done:
		if !errors.Is(err, ErrDisk) {
			t.Errorf("resend: %v", err)
		}
	case <-bounded(t).Done():
		t.Error("resend does not return")
	}
}

func TestSumID_AFlippedBitIsFound(t *testing.T) {
	t.Parallel()
	id := client.InnerMsgID{Session: wire.SessionID{Incarnation: 1, Group: 2, Number: 3}, Sequence: 4}
	b := sumID(id)
	if got, err := decodeSummedID(b); err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := decodeSummedID(appendID(nil, id)); err != nil || got != id {
		t.Errorf("of a file from before there was a checksum: %v, %v", got, err)
	}
	for bit := range 8 * len(b) {
		bad := slices.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		if got, err := decodeSummedID(bad); err == nil {
			t.Errorf("bit %d: %v", bit, got)
		}
	}
}
