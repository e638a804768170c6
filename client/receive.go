package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

type receiveOptions struct {
	wait  time.Duration
	label string
}

// ReceiveOption changes how Receive works.
type ReceiveOption func(*receiveOptions)

// WithWait sets how long Receive waits for a first message; 0 does not wait. By
// default it waits until its context ends. While no node leads it waits longer, until one
// does or its context ends: that there is no message nobody can say then.
func WithWait(d time.Duration) ReceiveOption {
	return func(o *receiveOptions) { o.wait = max(d, 0) }
}

// WithReceiverLabel sets the text that listings show for who receives.
func WithReceiverLabel(label string) ReceiveOption {
	return func(o *receiveOptions) { o.label = label }
}

const waitForContext = -1

// Receive takes up to n messages, at most 1,000, of queue: what is ready, at once,
// or else the first that comes. After the time of WithWait it returns none and no
// error; when ctx ends before, the error says so, and what may have been taken for
// this call goes back.
//
// Each message is leased for the queue's lease time and must be settled with Ack,
// Nack or Reject. Unlike those of Consume, its lease is not kept alive: Extend it, or
// the message goes to somebody else when it ends. A lost connection or a new leader
// repeats the request, and nothing is taken twice because of it.
func (c *Client) Receive(ctx context.Context, queue string, n int, opts ...ReceiveOption) ([]*Delivery, error) {
	o := receiveOptions{wait: waitForContext, label: c.o.label}
	for _, f := range opts {
		f(&o)
	}
	switch {
	case !wire.ValidQueueName(queue):
		return nil, newError(wire.CodeBadName, "queue name %.300q: write 1 to %d letters, digits, dots, underscores and hyphens", queue, wire.QueueNameBytesMax)
	case n < 1 || n > wire.ReceiveMax:
		return nil, fmt.Errorf("receive %d messages: 1 to %d is accepted", n, wire.ReceiveMax)
	case len(o.label) > labelMax:
		return nil, newError(wire.CodeBadName, "label of %d bytes, at most %d are accepted", len(o.label), labelMax)
	}
	if !c.enter() {
		return nil, ErrClosed
	}
	defer c.wg.Done()
	c.startConsuming()
	p := c.takePuller(queue)
	ds, err := p.receive(ctx, n, o)
	if p.unsure == 0 {
		c.putPuller(p)
	} else if c.enter(&c.releasing) {
		go func() {
			defer c.wg.Done()
			defer c.releasing.Done()
			if p.giveUp() {
				c.putPuller(p)
			} else {
				c.dismiss(p)
			}
		}()
	}
	return ds, err
}

// receive asks until there is an answer that ends the call.
func (p *puller) receive(ctx context.Context, n int, o receiveOptions) ([]*Delivery, error) {
	start := time.Now()
	tries := backoff{base: 10 * time.Millisecond, most: time.Second}
	left := func() time.Duration {
		if o.wait == waitForContext {
			return wire.ReceiveWaitMax
		}
		return min(wire.ReceiveWaitMax, max(0, o.wait-time.Since(start)))
	}
	for {
		request, l := p.request(n, o.label)
		asked := time.Now()
		payload, unknown, err := p.s.c.consume.try(ctx, wire.OpReceive, func(w *pack.Writer) {
			request.Wait = left()
			request.Append(w)
		})
		if unknown {
			p.unsure = request.First
		}
		var reply wire.Received
		if err == nil {
			reply, err = wire.DecodeReceived(payload)
		}
		if err != nil {
			return nil, p.failed(ctx, unknown, err)
		}
		again, err := p.answer(l, request, reply)
		if err == nil && !again {
			if err := p.ask(ctx, l, request.First); err != nil {
				p.unsure = request.First
				return nil, p.failed(ctx, true, err)
			}
		}
		var ds []*Delivery
		if err == nil {
			var taken bool
			ds, taken = p.take()
			again = again || taken && len(ds) == 0
		}
		switch {
		case err != nil || len(ds) > 0:
			return ds, err
		case !again && left() == 0:
			return nil, nil
		case again || time.Since(asked) < time.Second:
			// Not what was asked for, or not for as long: do not knock at once.
			if !pause(ctx, tries.next()) {
				return nil, causeOf(ctx)
			}
		}
	}
}

// request is the next receive of the puller.
func (p *puller) request(n int, label string) (wire.Receive, *life) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.life
	return wire.Receive{
		Incarnation: l.incarnation, Group: l.group, Consumer: l.id, Queue: s.queue, Label: label,
		First: l.next, Done: l.done(), Limit: uint32(n),
	}, l
}

// failed is the error of a receive without an answer.
func (p *puller) failed(ctx context.Context, unknown bool, err error) error {
	s := p.s
	if answered(err, wire.CodeWrongCluster) {
		s.mu.Lock()
		s.gone()
		s.mu.Unlock()
		p.unsure = 0
	}
	switch {
	case errors.Is(err, ErrClosed):
		return ErrClosed
	case ctx.Err() != nil && unknown:
		return causeOf(ctx)
	}
	return err
}

// answer takes an answer. again says that the request was overtaken, and that
// another is to be made.
func (p *puller) answer(l *life, request wire.Receive, reply wire.Received) (again bool, err error) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != l {
		p.unsure = 0
		return true, nil // it was given up meanwhile
	}
	if reply.Next > request.First || reply.Status == wire.StatusConsumerGone {
		p.unsure = 0 // every other copy is stale
	}
	switch reply.Status {
	case wire.StatusOK:
		if reply.QueueNumber != 0 {
			s.c.learnQueueOnce(reply.QueueNumber, s.queue)
			l.leaseTime = reply.LeaseTime
		}
		s.skipTo(reply.Next)
		return false, nil
	case wire.StatusStale:
		s.abandon(request.First, wire.LeaseUnknown)
		s.skipTo(reply.Next)
		return true, nil
	case wire.StatusConsumerGone, wire.StatusWrongIncarnation:
		s.gone()
		return true, nil
	case wire.StatusWindowFull:
		return false, newError(wire.CodeWindowFull, "receive from %s: %d deliveries of this client have no answer yet: settle some", s.queue, l.next-l.done())
	}
	return false, statusError(reply.Status, "queue "+s.queue)
}

// ask asks the cluster about what came for a receive and is in doubt: what is handed over
// has a lease.
func (p *puller) ask(ctx context.Context, l *life, first uint64) error {
	s := p.s
	s.mu.Lock()
	at := time.Now()
	asked := l.ranges(func(d *Delivery) bool { return d.number >= first && d.phase == buffered && s.doubts(d, at) })
	if s.life != l || len(asked) == 0 {
		s.mu.Unlock()
		return nil
	}
	request := s.extendRequest(asked, l.leaseTime)
	s.mu.Unlock()
	payload, err := s.c.consume.call(ctx, wire.OpSettle, func(w *pack.Writer) { request.Append(w) })
	if err != nil {
		return err
	}
	reply, err := wire.DecodeSettleReply(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.life != l:
	case reply.Status == wire.StatusConsumerGone || reply.Status == wire.StatusWrongIncarnation:
		s.gone()
	case reply.Status != wire.StatusOK:
		return statusError(reply.Status, "receive")
	default:
		s.extended(reply.Results, asked, at)
	}
	return nil
}

// take hands over what has come, and says whether there was anything.
func (p *puller) take() (ds []*Delivery, any bool) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	any = s.head < len(s.ready)
	return s.takeReady(), any
}

// giveUp ends a receive whose answer nobody waits for any more: what it took goes
// back. Without an answer to that the puller is not used again, and the leases run
// out.
func (p *puller) giveUp() bool {
	s := p.s
	ctx, cancel := context.WithTimeout(s.c.ctx, drainTimeout)
	defer cancel()
	s.mu.Lock()
	l := s.life
	request := wire.Release{Incarnation: l.incarnation, Group: l.group, Consumer: l.id, Queue: s.queue, First: p.unsure, Done: l.done()}
	s.mu.Unlock()
	payload, err := s.c.consume.call(ctx, wire.OpRelease, request.Append)
	var reply wire.Received
	if err == nil {
		reply, err = wire.DecodeReceived(payload)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != l {
		p.unsure = 0
		return true
	}
	s.abandon(request.First, wire.LeaseReturned)
	switch {
	case err != nil:
		s.c.o.logger.Info("release", "queue", s.queue, "error", err)
		return false
	case reply.Status == wire.StatusOK:
		s.skipTo(reply.Next)
	case reply.Status == wire.StatusConsumerGone || reply.Status == wire.StatusWrongIncarnation:
		s.gone()
	default:
		return false
	}
	p.unsure = 0
	return true
}
