package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"onceq/client"
	"onceq/cmd/onceq/internal/ledger"
)

const (
	queueName   = "demo"
	inFlightMax = 2048 // of one producer
	paceTick    = 5 * time.Millisecond
	sealTimeout = 30 * time.Second
)

// producer publishes the numbers from..to-1 of its own.
type producer struct {
	r     *run
	n     uint32
	count uint64
	seen  []ledger.Publish // the collector's; read when it has ended
}

type flight struct {
	id     ledger.ID
	future *client.Future
}

func (p *producer) run(ctx context.Context) error {
	c, err := client.Dial(ctx, p.r.url, client.WithLabel(fmt.Sprintf("demo producer %d", p.n)))
	if err != nil {
		return fmt.Errorf("producer %d: %w", p.n, err)
	}
	defer c.Close()
	prod, err := c.NewProducer(queueName, client.WithMaxInFlight(inFlightMax))
	if err != nil {
		return fmt.Errorf("producer %d: %w", p.n, err)
	}
	flights := make(chan flight, inFlightMax)
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for f := range flights {
			p.collect(ctx, c, f)
		}
	}()
	p.publish(ctx, prod, flights)
	close(flights)
	<-collected
	if err := prod.Close(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("producer %d: %w", p.n, err)
	}
	return nil
}

// publish publishes at the rate of the run, as far as its gate is open.
func (p *producer) publish(ctx context.Context, prod *client.Producer, flights chan<- flight) {
	began, passed := time.Now(), uint64(0) // passed: since began
	rate := p.r.cfg.Rate / float64(p.r.cfg.Producers)
	tick := time.NewTicker(paceTick)
	defer tick.Stop()
	for i := uint64(0); i < p.count; i++ {
		if waited := p.r.gate.wait(ctx); waited {
			began, passed = time.Now(), 0 // what was held up is not caught up with
		}
		for rate > 0 && float64(passed) >= time.Since(began).Seconds()*rate {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		id := ledger.ID{Producer: p.n, Number: i}
		f := prod.PublishAsync(ctx, client.Message{Body: p.r.cfg.body(id), BizID: id.String()})
		p.r.published.Add(1)
		passed++
		flights <- flight{id, f}
	}
}

// collect writes the outcome of one publish into the history.
func (p *producer) collect(ctx context.Context, c *client.Client, f flight) {
	seen := ledger.Publish{ID: f.id}
	r, err := f.future.Wait(context.WithoutCancel(ctx)) // ctx bounds the publish itself
	var unknown *client.OutcomeUnknownError
	switch {
	case err == nil:
		seen.Result, seen.Duplicate, seen.Copies = ledger.Confirmed, r.Duplicate, r.Attempts
		seen.Place = ledger.Place{Lane: r.Message.Lane, Offset: r.Message.Offset}
		p.r.confirm()
		if r.Attempts > 1 {
			p.r.retransmitted.Add(uint64(r.Attempts - 1))
		}
	case errors.As(err, &unknown):
		seen.Result = ledger.Unknown
		if !unknown.Final && ctx.Err() == nil {
			p.seal(ctx, c, unknown.ID, &seen)
		}
	default:
		seen.Result = ledger.Refused
		p.r.refused(f.id, err)
	}
	if seen.Result != ledger.Confirmed {
		p.r.others.Add(1)
	}
	p.seen = append(p.seen, seen)
}

// seal settles an unknown outcome for good.
func (p *producer) seal(ctx context.Context, c *client.Client, id client.InnerMsgID, seen *ledger.Publish) {
	ctx, cancel := context.WithTimeout(ctx, sealTimeout)
	defer cancel()
	out, err := c.Seal(ctx, id)
	if err != nil {
		return
	}
	switch out.State {
	case client.Stored:
		seen.Result = ledger.Confirmed
		seen.Place = ledger.Place{Lane: out.Message.Lane, Offset: out.Message.Offset}
		p.r.confirm()
	case client.Never:
		seen.Result = ledger.Sealed
	}
}
