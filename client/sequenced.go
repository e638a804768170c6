package client

import (
	"context"
	"errors"
	"fmt"

	"onceq/client/internal/sequenced"
	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

func init() {
	sequenced.Encode = func(queue string, messages any, bodyMax int) (sequenced.Publish, error) {
		return encodeSequenced(queue, messages.([]Message), bodyMax)
	}
	sequenced.Decode = func(encoded []byte) (any, error) { return decodeSequenced(encoded) }
	sequenced.BodyBytesMax = func(c any) int { return c.(*Client).topo.bodyBytesMax() }
	sequenced.Was = func(c any, cluster string) bool { return c.(*Client).topo.was(cluster) }
	sequenced.Open = func(ctx context.Context, c any, queue, name string) (sequenced.Session, error) {
		return c.(*Client).openSequenced(ctx, queue, name)
	}
}

// given is what the owner of the sequences tells a Producer. Guarded by its mu.
type given struct {
	next  uint64 // where sequences may start
	floor uint64 // the lowest sequence without an outcome on the owner's disk
	// probing: the queue did not take the head of open. Nothing else is sent until
	// it is stored: sending all that is open at each try would be in vain.
	probing bool

	opened chan struct{} // closed when the session is open
	ctx    context.Context
	cancel context.CancelFunc
}

// sequencedProducer is a Producer as package sequenced describes it.
type sequencedProducer struct{ p *Producer }

func (c *Client) openSequenced(ctx context.Context, queue, name string) (sequenced.Session, error) {
	p, err := c.NewProducer(queue, WithName(name), WithMaxInFlight(windowMax))
	if err != nil {
		return nil, err
	}
	g := &given{opened: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancel(c.ctx)
	p.given = g
	p.mu.Lock()
	err = p.begin()
	p.mu.Unlock()
	if err != nil {
		g.cancel()
		return nil, err
	}
	s := &sequencedProducer{p}
	select {
	case <-g.opened:
		return s, nil
	case <-p.finished:
		return nil, fmt.Errorf("open session %q: %w", name, s.Err())
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("open session %q: %w", name, causeOf(ctx))
	}
}

// ID implements sequenced.Session.
func (s *sequencedProducer) ID() wire.SessionID { return s.p.session.id }

// Next implements sequenced.Session.
func (s *sequencedProducer) Next() uint64 { return s.p.given.next }

// Publish implements sequenced.Session.
func (s *sequencedProducer) Publish(sequence uint64, m sequenced.Publish, resent bool, told func(sequenced.Stored, error)) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &Future{
		p: p, done: make(chan struct{}), told: told,
		encoded: m.Encoded, checksum: m.Checksum, count: m.Count, order: m.Order,
		sequence: sequence, unknown: resent, written: resent,
	}
	f.room = f.size()
	p.bound.force(f.room) // who keeps publishes elsewhere bounds them there
	p.stats.Published++
	p.fresh.pushBack(f)
	if p.fatal != nil {
		p.end(p.fatal)
		return
	}
	p.pump()
}

// KeepFloor implements sequenced.Session.
func (s *sequencedProducer) KeepFloor(sequence uint64) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.given.floor = sequence
	s.p.pump()
}

// Ended implements sequenced.Session.
func (s *sequencedProducer) Ended() <-chan struct{} { return s.p.finished }

// Err implements sequenced.Session.
func (s *sequencedProducer) Err() error { return s.p.closedReason() }

// Close implements sequenced.Session.
func (s *sequencedProducer) Close() {
	p := s.p
	p.mu.Lock()
	p.endSequenced(ErrClosed)
	p.mu.Unlock()
	<-p.finished
}

// endSequenced ends a sequenced producer with all it has.
func (p *Producer) endSequenced(cause error) {
	if p.fatal == nil {
		p.fatal = cause
	}
	p.end(p.fatal)
}

// loseSequenced ends everything when the session is lost. What a copy of may ever
// have left this process cannot be judged any more.
func (p *Producer) loseSequenced(cause error) {
	for _, l := range []*futures{&p.fresh, &p.open} {
		for f := l.head; f != nil; f = l.head {
			if f.written || f.inFlight {
				p.finish(f, Receipt{}, &OutcomeUnknownError{ID: p.id(f), Final: true, Cause: cause})
			} else {
				p.finish(f, Receipt{}, cause)
			}
		}
	}
	p.endSequenced(cause)
}

// passing says of a refusal that the same publish may be taken later. What can
// never be taken is an outcome.
func (e *Error) passing() bool {
	switch e.Code {
	case wire.CodeTooLarge, wire.CodeFrameTooLarge, wire.CodeBadOptions, wire.CodeMalformed, wire.CodeChecksum,
		wire.CodeBodyDiffers, wire.CodeSealed, wire.CodeBelowFloor:
		return false
	}
	return true
}

func encodeSequenced(queue string, messages []Message, bodyMax int) (sequenced.Publish, error) {
	ms, err := wireMessages(messages)
	if err == nil {
		err = checkMessages(ms, bodyMax)
	}
	if err != nil {
		return sequenced.Publish{}, err
	}
	f := Future{encoded: encode(ms)}
	if f.size()+64+len(queue) > wire.PayloadBytesMax {
		return sequenced.Publish{}, newError(wire.CodeTooLarge, "a publish of %d bytes, at most %d fit a frame: publish several", f.size(), wire.PayloadBytesMax)
	}
	return sequenced.Publish{Encoded: f.encoded, Checksum: wire.PublishChecksum(queue, ms), Count: len(ms), Order: orderOf(ms)}, nil
}

func decodeSequenced(encoded []byte) ([]Message, error) {
	r := pack.NewReader(encoded)
	out := make([]Message, r.Array(wire.MessagesMax))
	for i := range out {
		m, err := wire.DecodeMessage(r.Raw())
		if err = errors.Join(r.Err(), err); err != nil {
			return nil, err
		}
		out[i] = fromWire(&m)
	}
	r.Done()
	return out, r.Err()
}
