package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

const (
	retryAfter = time.Second // a confirmation that takes longer is asked for again
	retryPause = 10 * time.Millisecond
	killAfter  = 3 * time.Second
)

var errTooShort = errors.New("the time was over before")

// failover publishes one message after the other, each tried under one id until
// it is confirmed, and kills the queue's leader on the way. It tells the longest
// time between two confirmations, and what came out.
func (b *bench) failover(ctx context.Context, r *result) error {
	var mu sync.Mutex
	seen := map[uint64]int{}
	con, err := b.c.Consumer(ctx, b.queue, b.prefetch)
	if err != nil {
		return err
	}
	consuming, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		// Its errors are the fault's; what did not come out is counted below.
		con.Run(consuming, func(body []byte) {
			mu.Lock()
			seen[numberOf(body)]++
			mu.Unlock()
		})
	})
	defer wg.Wait()
	defer end()
	p, err := b.c.Producer(ctx, b.queue, 1)
	if err != nil {
		return err
	}
	defer p.Close()

	start := time.Now()
	last, gap := start, time.Duration(0)
	var killed chan error // its end; nil: not yet
	var confirmed []uint64
	for n := 0; time.Since(start) < killAfter+b.time && ctx.Err() == nil; n++ {
		if killed == nil && time.Since(start) > killAfter {
			leader, err := b.c.Leader(ctx, b.queue)
			if err != nil {
				return err
			}
			// Publishes go on meanwhile: until the process is gone may be a good part of the
			// time that they stand still.
			killed = make(chan error, 1)
			last, gap = time.Now(), 0
			go func() { killed <- b.c.Kill(leader) }()
		}
		body := newBody(b.size, 0, n, time.Since(b.began))
		if err := publishUntilConfirmed(ctx, p, strconv.Itoa(n), body); err != nil {
			return err
		}
		confirmed = append(confirmed, numberOf(body))
		gap, last = max(gap, time.Since(last)), time.Now()
	}
	if killed == nil {
		return fmt.Errorf("the leader was not killed: %w", cmp.Or(ctx.Err(), errTooShort))
	}
	if err := <-killed; err != nil {
		return fmt.Errorf("kill the leader: %w", err)
	}
	missing := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range confirmed {
			if seen[id] == 0 {
				n++
			}
		}
		return n
	}
	for bound := time.Now().Add(answerBound); missing() > 0 && time.Now().Before(bound) && ctx.Err() == nil; {
		time.Sleep(50 * time.Millisecond)
	}
	r.Gap, r.Messages, r.Lost = gap.Seconds(), float64(len(confirmed)), float64(missing())
	mu.Lock()
	for _, n := range seen {
		r.Twice += float64(n - 1)
	}
	mu.Unlock()
	return ctx.Err()
}

func publishUntilConfirmed(ctx context.Context, p producer, id string, body []byte) error {
	var last error
	for began := time.Now(); time.Since(began) < answerBound; {
		c, err := p.Publish(id, body)
		if err == nil {
			// onceq's client tries again by itself: its publish stays open.
			for err = c.Wait(retryAfter); errors.Is(err, context.DeadlineExceeded) && time.Since(began) < answerBound; err = c.Wait(retryAfter) {
			}
		}
		if err == nil {
			return nil
		}
		last = err
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("no publish was confirmed for %s after the leader's end: %w", answerBound, last)
}
