package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"onceq/client"
	"onceq/cmd/onceq/internal/ledger"
)

const (
	consumerPrefetch    = 512
	consumerConcurrency = 256 // acks that are awaited at once
)

// consumer acks what it gets, but for a few messages that it gives back once.
type consumer struct {
	r *run
	n int

	mu   sync.Mutex // guards seen: handlers run at once
	seen []ledger.Delivery
}

func (k *consumer) run(ctx context.Context) error {
	c, err := client.Dial(ctx, k.r.url, client.WithLabel(fmt.Sprintf("demo consumer %d", k.n)))
	if err != nil {
		return fmt.Errorf("consumer %d: %w", k.n, err)
	}
	defer c.Close()
	err = c.Consume(ctx, queueName, k.handle, client.WithManualSettle(), client.WithPrefetch(consumerPrefetch),
		client.WithConcurrency(consumerConcurrency), client.WithConsumerLabel(fmt.Sprintf("demo %d", k.n)))
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("consumer %d: %w", k.n, err)
	}
	return nil
}

func (k *consumer) handle(ctx context.Context, d *client.Delivery) error {
	id, intact := k.r.cfg.parse(d.Body())
	place := ledger.Place{Lane: d.ID().Lane, Offset: d.ID().Offset}
	k.mu.Lock()
	at := len(k.seen)
	k.seen = append(k.seen, ledger.Delivery{ID: id, Place: place, Attempt: d.Attempt(), Consumer: k.n, Intact: intact})
	k.mu.Unlock()
	k.r.delivered.Add(1)

	end := ledger.Acked
	var err error
	if d.Attempt() == 1 && k.r.cfg.nacks(id) {
		end, err = ledger.Nacked, d.Nack(ctx, nil)
	} else {
		err = d.Ack(ctx)
	}
	switch {
	case errors.Is(err, client.ErrLeaseLost), errors.Is(err, client.ErrConsumerGone):
		end = ledger.Lost
	case err != nil:
		end = ledger.Unsure
	case end == ledger.Acked:
		k.r.acked.Add(1)
	}
	k.mu.Lock()
	k.seen[at].Settled = end
	k.mu.Unlock()
	return nil
}
