package client

import (
	"context"
	"crypto/rand"
	"time"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// sealBatchMax is how many sequences one seal request closes.
const sealBatchMax = 4096

// reopenSkip is how far a named session that is opened again starts above what
// the machine has heard of. An older process may have told its caller ids above
// that whose copies never arrived; used again for another message, such an id
// would be answered "stored".
const reopenSkip = 2 * 65_536

// strangeTries is how often a session is asked for with an incarnation that the
// leader does not have.
const strangeTries = 8

// run does what needs waiting for: it opens the session, seals what was given up,
// paces retries, and ends the session in the end. Publishes themselves are sent
// by pump, wherever it is called.
func (p *Producer) run() {
	defer close(p.finished)
	ctx := p.c.ctx
	if p.given != nil {
		ctx = p.given.ctx
	}
	p.c.produce.subscribe(p)
	defer p.c.produce.unsubscribe(p)
	defer p.abort()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	armed := false
	keep := time.NewTimer(time.Hour) // until the session is to be kept alive
	keep.Stop()
	defer keep.Stop()
	for ctx.Err() == nil {
		p.mu.Lock()
		open := p.session == nil && (p.fresh.n > 0 || p.given != nil) && p.fatal == nil
		var sealing []*Future
		if p.sealing > 0 && p.session != nil && p.conn != nil && !p.held {
			sealing = p.sealBatch()
		}
		finished := p.finishing && p.open.n+p.fresh.n == 0
		held := p.held
		p.mu.Unlock()
		switch {
		case open:
			p.openSession(ctx)
			p.keepAliveAgain(keep)
			continue
		case len(sealing) > 0:
			p.sealSome(ctx, sealing)
			continue
		case finished:
			p.closeSession(ctx)
			return
		}
		if held && !armed {
			timer.Reset(p.holdTime())
			armed = true
		}
		select {
		case <-p.wake:
		case <-timer.C:
			armed = false
			p.mu.Lock()
			p.held = false
			p.pump()
			p.mu.Unlock()
		case <-keep.C:
			p.sealSome(ctx, nil) // a seal of nothing says that the producer is there
			p.keepAliveAgain(keep)
		case <-ctx.Done():
		}
	}
}

// keepAliveAgain sets when the session is heard of next, whatever is published: a
// producer that wakes up after days must not find its session expired, since what it
// sent then would end as unknown.
func (p *Producer) keepAliveAgain(keep *time.Timer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == nil || p.session.expiry <= 0 {
		keep.Stop()
		return
	}
	keep.Reset(p.session.expiry / 4)
}

func (p *Producer) holdTime() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hold.next()
}

// openSession opens the session. The nonce stays the same over all attempts, so
// that a lost answer is found again.
func (p *Producer) openSession(ctx context.Context) {
	var nonce wire.Nonce
	_, _ = rand.Read(nonce[:]) // never fails
	tries, strange := backoff{base: 10 * time.Millisecond, most: time.Second}, 0
	incarnation, group := p.c.topo.identity()
	request := wire.OpenSession{
		Incarnation: incarnation, Group: group, Named: p.o.name != "", Name: p.o.name, Nonce: nonce, Label: p.c.o.label,
	}
	for {
		payload, err := p.c.produce.call(ctx, wire.OpOpenSession, func(w *pack.Writer) { request.Append(w) })
		var reply wire.SessionOpened
		if err == nil {
			reply, err = wire.DecodeSessionOpened(payload)
		}
		if answered(err, wire.CodeWrongCluster) {
			err, reply.Status = nil, wire.StatusWrongIncarnation // the leader has not asked the machine
		}
		if err != nil {
			p.refuseFresh(err)
			return
		}
		switch reply.Status {
		case wire.StatusOK:
			p.opened(reply, request.ExpectedEpoch != 0)
			return
		case wire.StatusEpochMismatch:
			// Another process has, or had, the name: take it over.
			request.ExpectedEpoch = reply.Epoch
		case wire.StatusWrongIncarnation:
			request.Incarnation, request.Group = p.c.topo.identity()
			request.ExpectedEpoch = 0
			// The answer may come just before the end of its connection, with which
			// the client hears of the restore.
			if strange++; request.Incarnation == incarnation && strange > strangeTries {
				p.refuseFresh(statusError(reply.Status, "open session"))
				return
			}
			incarnation = request.Incarnation
		default:
			p.refuseFresh(statusError(reply.Status, "open session"))
			return
		}
		if !pause(ctx, tries.next()) {
			return
		}
	}
}

// opened takes the session. reopened says that it was there before: the epoch does
// not tell, since a name that was closed goes on with higher ones.
func (p *Producer) opened(r wire.SessionOpened, reopened bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = &session{id: r.Session, epoch: r.Epoch}
	if p.o.name == "" {
		p.session.expiry = r.Expiry
	}
	p.next = max(r.Next, r.Floor, 1)
	if reopened {
		p.next += reopenSkip
	}
	if p.given != nil {
		p.given.next = p.next
		close(p.given.opened)
	}
	p.pump()
}

// refuseFresh ends what has no session with a definite error. Those that are
// handed in later try again.
func (p *Producer) refuseFresh(err error) {
	if p.c.ctx.Err() != nil {
		return // abort ends them
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.given != nil {
		p.endSequenced(err)
		return
	}
	for p.fresh.head != nil {
		p.finish(p.fresh.head, Receipt{}, err)
	}
}

func (p *Producer) sealBatch() []*Future {
	var batch []*Future
	for f := p.open.head; f != nil && len(batch) < min(p.sealing, sealBatchMax); f = f.next {
		if f.sealing {
			batch = append(batch, f)
		}
	}
	return batch
}

// sealSome closes sequences for good, or none, so that "unknown" ends in "stored" or
// "never" and no late copy surprises anyone.
func (p *Producer) sealSome(ctx context.Context, batch []*Future) {
	p.mu.Lock()
	s := p.session
	if s == nil {
		p.mu.Unlock()
		return
	}
	request := wire.Seal{Incarnation: s.id.Incarnation, Group: s.id.Group, Session: s.id.Number, Epoch: s.epoch}
	for _, f := range batch {
		request.Sequences = append(request.Sequences, f.sequence)
	}
	p.mu.Unlock()
	payload, err := p.c.produce.call(ctx, wire.OpSeal, func(w *pack.Writer) { request.Append(w) })
	var reply wire.SealReply
	if err == nil {
		reply, err = wire.DecodeSealReply(payload)
	}
	switch {
	case err == nil:
	case answered(err, wire.CodeSessionExpired), answered(err, wire.CodeWrongCluster):
		reply.Status = wire.StatusSessionExpired
	case answered(err, wire.CodeFenced):
		reply.Status = wire.StatusFenced
	default:
		if ctx.Err() == nil {
			p.c.o.logger.Warn("seal", "queue", p.queue, "error", err)
			pause(ctx, time.Second)
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != s {
		return
	}
	switch reply.Status {
	case wire.StatusOK:
	case wire.StatusSessionExpired, wire.StatusWrongIncarnation, wire.StatusRestored:
		p.sessionLost(statusError(reply.Status, "seal"))
		return
	default:
		p.fenced()
		return
	}
	again := false
	for i, f := range batch {
		if i >= len(reply.Outcomes) || f.list == nil || reply.Outcomes[i].Sequence != f.sequence {
			continue
		}
		switch r := reply.Outcomes[i]; r.Status {
		case wire.StatusOK:
			p.stored(f, r)
		case wire.StatusSealed:
			p.never(f)
		case wire.StatusBelowFloor:
			p.belowFloor(f)
		case wire.StatusRestored:
			p.unjudged(f)
			p.lifeOver()
		default:
			again = true
		}
	}
	if again {
		p.raiseFloor()
		p.held = true // a moment, then once more
	}
	p.pump()
}

// raiseFloor tells the machine the floor with a frame that carries nothing: a
// sequence is only sealed within the window above the floor the machine knows.
func (p *Producer) raiseFloor() {
	if p.conn == nil {
		return
	}
	fr := &frame{p: p, session: p.session}
	if p.conn.publish(p.frameOverhead(), fr.append, fr.answer, nil) == nil {
		p.frames++
	}
}

// sessionLost: the machine cannot judge this session's copies any more. Only what
// was never written to a socket moves to a new session; sent again under new
// sequences, anything else could be stored twice.
func (p *Producer) sessionLost(cause error) {
	if p.session == nil {
		return
	}
	p.c.o.logger.Warn("session lost", "session", p.session.id, "queue", p.queue, "reason", cause)
	if p.given != nil {
		p.loseSequenced(cause)
		return
	}
	p.takeBack()
	for f := p.open.tail; f != nil; f = p.open.tail {
		p.finish(f, Receipt{}, &OutcomeUnknownError{ID: p.id(f), Final: true, Cause: cause})
	}
	p.over = false
	p.session, p.send, p.rewind, p.sealing, p.contagion = nil, nil, false, 0, contagion{}
	p.kick()
}

// takeBack takes the sequence from what was never written to a socket.
func (p *Producer) takeBack() {
	var unsent []*Future
	for f := p.open.tail; f != nil; f = f.prev {
		if !f.written && !f.inFlight && !f.reported {
			unsent = append(unsent, f)
		}
	}
	for _, f := range unsent {
		if p.send == f {
			p.send = f.next
		}
		p.unchain(f)
		p.open.remove(f)
		f.sequence, f.copies, f.alone, f.refusal = 0, 0, false, nil
		p.fresh.pushFront(f)
	}
}

// unjudged: f was sent before the cluster was restored from a backup that has no
// record of it. It may have been stored, and delivered, in the life before.
func (p *Producer) unjudged(f *Future) {
	p.finish(f, Receipt{}, &OutcomeUnknownError{ID: p.id(f), Final: true, Cause: statusError(wire.StatusRestored, p.id(f).Short())})
}

// lifeOver: the session is from before a restore. It takes nothing new; what was
// sent is sent once more, since some of it may have a record, and when all of it
// has an answer another session is opened for what was never sent.
func (p *Producer) lifeOver() {
	if p.over || p.session == nil {
		return
	}
	if p.given != nil {
		p.sessionLost(statusError(wire.StatusRestored, "session")) // its owner asks for the records
		return
	}
	p.over = true
	p.c.o.logger.Warn("session is from before a restore", "session", p.session.id, "queue", p.queue)
	p.takeBack()
	p.again()
}

// fenced: another process has opened the session's name. That says nothing about
// earlier copies of ours, which the other process does not know of.
func (p *Producer) fenced() {
	if p.fatal != nil {
		return
	}
	p.fatal = statusError(wire.StatusFenced, "session "+p.o.name)
	p.end(p.fatal)
}

// abort ends what is left when the client closes.
func (p *Producer) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	p.end(ErrClosed)
}

// end gives every publish its last answer.
func (p *Producer) end(cause error) {
	for _, l := range []*futures{&p.fresh, &p.open} {
		for f := l.head; f != nil; f = l.head {
			if f.definite() {
				p.finish(f, Receipt{}, cause)
			} else {
				p.finish(f, Receipt{}, &OutcomeUnknownError{ID: p.id(f), Cause: cause})
			}
		}
	}
	if p.given != nil {
		p.given.cancel()
	}
	p.kick()
}

// closeSession ends an unnamed session: nobody will ask for it again. A named one
// stays for the next process, and one with outcomes that were reported as unknown
// stays until it expires, so that they can be looked up.
func (p *Producer) closeSession(ctx context.Context) {
	p.mu.Lock()
	s := p.session
	keep := p.o.name != "" || p.fatal != nil || p.stats.Unknown > 0
	p.mu.Unlock()
	if s == nil || keep {
		return
	}
	request := wire.CloseSession{Incarnation: s.id.Incarnation, Group: s.id.Group, Session: s.id.Number, Epoch: s.epoch}
	if _, err := p.c.produce.call(ctx, wire.OpCloseSession, func(w *pack.Writer) { request.Append(w) }); err != nil && ctx.Err() == nil {
		p.c.o.logger.Info("close session", "session", s.id, "error", err)
	}
}
