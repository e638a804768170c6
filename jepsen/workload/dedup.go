package workload

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"onceq/client"
	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// dedup retransmits: the same inner-msg-id at once over several connections and
// to several nodes, after a timeout, after the outcome is known, after the
// message was acked and deleted, after the floor has passed it. It speaks raw
// frames, since the client library would never do most of that.
func dedup() Workload {
	return Workload{
		Name:   "dedup",
		What:   "raw copies of one inner-msg-id, of one message or several, over several connections and nodes, at once, late, after the ack, below the floor, with another body, after a seal",
		Queues: map[string]client.QueueSettings{"jepsen": {LeaseTime: queueLease}, "small": {LeaseTime: queueLease, LengthMax: smallLength}},
		Setup: func(s *history.Setup, seconds float64) {
			s.Lease, s.Raw = int64(queueLease), true
			least := int(seconds * 10)
			s.Least = history.Least{Publishes: least, Deliveries: least / 2, Acks: least / 2, Duplicates: int(seconds)}
		},
		Start: func(ctx context.Context, w *World) *Traffic {
			t, producing, consuming := newTraffic(ctx)
			const producers, consumers = 3, 2
			for i := range producers {
				t.producers.Go(func() {
					retransmit(producing, w, fmt.Sprintf("d%d", i+1), float64(w.Rate)/2/producers, retransmission{small: smallPercent, early: earlyPercent, batch: batchPercent})
				})
			}
			for i := range consumers {
				s := &consumer{w: w, queue: "jepsen", lease: queueLease, prefetch: 64, nacks: 1, stays: i == 0}
				t.consumers.Go(func() { s.run(consuming, fmt.Sprintf("c%d", i+1)) })
			}
			// The small queue is often full: what is refused must not be remembered.
			slow := &consumer{w: w, queue: "small", lease: queueLease, prefetch: smallLength / 2, slow: 100, stays: true}
			t.consumers.Go(func() { slow.run(consuming, "s1") })
			return t
		},
	}
}

const (
	copyTimeout   = 2 * time.Second
	openWait      = 500 * time.Millisecond
	driveMost     = 10 * time.Second // then it is sealed
	sealMost      = 30 * time.Second
	lateMost      = 12 * time.Second
	openCopiesMax = 2000 // entries of a producer that are being driven
	smallLength   = 20
	smallPercent  = 8
	earlyPercent  = 3
	batchPercent  = 10
	batchMost     = 4
	lookPercent   = 20
	lookTimeout   = 9 * time.Second // longer than most pauses: it waits in the socket of a node that stands still
)

// retransmitter is one producer of dedup: one session.
type retransmitter struct {
	w       *World
	name    string
	peers   *peers
	session wire.SessionOpened
	how     retransmission
	ctx     context.Context // of the traffic; it is stored since entries outlive calls

	mu       sync.Mutex // guards what follows
	r        *rand.Rand
	next     uint64
	released map[uint64]bool // sequences that the floor may pass
	floor    uint64
}

// retransmission says how a retransmitter goes about, in per cent.
type retransmission struct {
	small int // to the queue that is often full
	early int // sealed although a copy may be on its way
	batch int // of several messages, which are stored together or not at all
}

// entry is one sequence.
type entry struct {
	id       string
	queue    string
	sequence uint64
	floor    uint64 // when it was first sent, which late copies carry too
	after    *entry // the one of its key before it; nil for none
	alone    bool   // it has a process of its own in the history
	messages []wire.Message

	mu     sync.Mutex // guards what follows
	stored bool
	sealed bool
	copies int
}

func (e *entry) final() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stored || e.sealed
}

// before is the one that a copy of now names: of those before it the newest that may
// still be stored, or is.
func (e *entry) before() *entry {
	b := e.after
	for b != nil && b.isSealed() {
		b = b.after
	}
	return b
}

func (e *entry) isSealed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sealed
}

func retransmit(ctx context.Context, w *World, name string, rate float64, how retransmission) {
	d := &retransmitter{w: w, how: how, name: name, peers: newPeers(w, name), ctx: ctx, r: w.rng(name), next: 1, floor: 1, released: map[uint64]bool{}}
	defer d.peers.close()
	if !d.open() {
		return
	}
	var driving sync.WaitGroup
	defer driving.Wait()
	slots := make(chan struct{}, openCopiesMax)
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		e := d.take()
		seed := d.chance(1 << 62)
		driving.Go(func() {
			defer func() { <-slots }()
			d.drive(e, rand.New(rand.NewPCG(uint64(seed), 1)))
		})
	}
}

// open opens the session; a repeat has the same nonce and so the same answer.
func (d *retransmitter) open() bool {
	var nonce wire.Nonce
	_, _ = crand.Read(nonce[:]) // never fails
	for d.ctx.Err() == nil {
		d.mu.Lock()
		to := d.peers.toLeader(d.r)
		d.mu.Unlock()
		ctx, cancel := context.WithTimeout(d.ctx, copyTimeout)
		if c := d.peers.get(ctx, to); c != nil {
			payload, err := c.Call(ctx, wire.OpOpenSession, wire.OpenSession{
				Incarnation: c.Welcome.Incarnation, Group: c.Welcome.Topology.Group, Nonce: nonce, Label: d.name,
			})
			if err == nil {
				d.session, err = wire.DecodeSessionOpened(payload)
				if err == nil && d.session.Status == wire.StatusOK {
					cancel()
					return true
				}
			}
			d.peers.answer(err)
		}
		cancel()
		pause(d.ctx, 100*time.Millisecond)
	}
	return false
}

func (d *retransmitter) chance(n int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.Int64N(n)
}

// take takes the next sequence.
func (d *retransmitter) take() *entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := d.w.id(d.name, int(d.next))
	queue := "jepsen"
	if d.r.IntN(100) < d.how.small {
		queue = "small"
	}
	e := &entry{id: id, queue: queue, sequence: d.next, floor: d.floor, messages: []wire.Message{wireContent(id)}}
	if d.r.IntN(100) < d.how.batch {
		for i := range 1 + d.r.IntN(batchMost-1) {
			part := fmt.Sprintf("%s.%d", id, i+2)
			e.messages = append(e.messages, wireContent(part))
		}
	}
	d.next++
	return e
}

// release lets the floor pass a sequence: its outcome is final.
func (d *retransmitter) release(e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.released[e.sequence] = true
	for d.released[d.floor] {
		delete(d.released, d.floor)
		d.floor++
	}
}

// drive is the life of one sequence.
func (d *retransmitter) drive(e *entry, r *rand.Rand) {
	began := time.Now()
	// At once: one copy, or several over different connections.
	first := 1
	switch n := r.IntN(100); {
	case n < 15:
		first = 3
	case n < 40:
		first = 2
	}
	var wg sync.WaitGroup
	for i := range first {
		to := d.peers.toLeader(r)
		if i > 0 && r.IntN(2) == 0 {
			to = d.peers.anywhere(r)
		}
		wg.Go(func() { d.send(e, to, e.messages) })
	}
	if r.IntN(100) < d.how.early {
		d.seal(e, d.peers.toLeader(r))
	}
	wg.Wait()
	for !e.final() && time.Since(began) < driveMost {
		time.Sleep(between(r, 20*time.Millisecond, 300*time.Millisecond))
		d.send(e, d.peers.toLeader(r), e.messages)
	}
	for !e.final() && time.Since(began) < sealMost {
		d.seal(e, d.peers.toLeader(r))
		time.Sleep(between(r, 50*time.Millisecond, 300*time.Millisecond))
	}
	if !e.final() {
		return // it stays open for ever, and so does the floor
	}
	if r.IntN(100) < lookPercent {
		to := d.peers.anywhere(r)
		wg.Go(func() { d.look(e, to) })
		defer wg.Wait()
	}
	late := r.IntN(4)
	below := r.IntN(100) < 40 // some of the late copies come below the floor
	if below {
		d.release(e)
	}
	for range late {
		pause(d.ctx, between(r, 0, lateMost/time.Duration(late)))
		to := d.peers.toLeader(r)
		if r.IntN(3) == 0 {
			to = d.peers.anywhere(r)
		}
		if r.IntN(12) == 0 {
			other := e.id + "x" // another body under the same inner-msg-id
			d.send(e, to, []wire.Message{wireContent(other)})
			continue
		}
		d.send(e, to, e.messages)
	}
	if !below {
		d.release(e)
	}
}

// send sends one copy and writes what became of it: of each message, since each must
// be stored when one is.
func (d *retransmitter) send(e *entry, to line, messages []wire.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), copyTimeout)
	defer cancel()
	c := d.peers.get(ctx, to)
	if c == nil {
		return
	}
	floor := e.floor
	e.mu.Lock()
	e.copies++
	n := e.copies
	e.mu.Unlock()
	if d.chance(2) == 0 { // an old copy has the floor of its time, a new one that of now
		d.mu.Lock()
		floor = min(d.floor, e.sequence)
		d.mu.Unlock()
	}
	invoke := history.Event{
		Proc: d.proc(e), Client: d.name, Node: c.Welcome.Node, F: history.Publish, Key: e.queue, Copies: 1,
		Inner: d.inner(e), Text: fmt.Sprintf("copy %d", n), OrderingKey: messages[0].OrderingKey,
	}
	after := uint64(0)
	if b := e.before(); b != nil {
		after, invoke.After = b.sequence, b.id
	}
	ops := make([]history.Event, len(messages))
	for i, m := range messages {
		invoke.ID, invoke.Carried = idOfBizID(m.BizID), carried(m)
		ops[i] = d.w.H.Invoke(invoke)
	}
	payload, err := c.Call(ctx, wire.OpPublish, wire.PublishFrame{
		Incarnation: d.session.Session.Incarnation, Group: d.session.Session.Group, Session: d.session.Session.Number, Epoch: d.session.Epoch,
		Floor: floor, Queue: e.queue,
		Publishes: []wire.Publish{{Sequence: e.sequence, After: after, Checksum: wire.PublishChecksum(e.queue, messages), Messages: messages}},
	})
	res, err := onlyResult(payload, err)
	if err == nil && res.Status == wire.StatusOK && int(res.Count) != len(messages) {
		err = fmt.Errorf("%d of %d messages are stored", res.Count, len(messages))
	}
	for i, op := range ops {
		res := res
		res.Offset += uint64(i)
		d.outcome(e, op, res, err, idOfBizID(messages[0].BizID) == e.id)
	}
}

// onlyResult is the result in the answer to a frame of one publish.
func onlyResult(payload []byte, err error) (wire.PublishResult, error) {
	if err != nil {
		return wire.PublishResult{}, err
	}
	reply, err := wire.DecodePublishReply(payload)
	switch {
	case err != nil:
		return wire.PublishResult{}, err
	case len(reply.Results) != 1:
		return wire.PublishResult{}, fmt.Errorf("an answer with %d results", len(reply.Results))
	}
	return reply.Results[0], nil
}

// proc is who sends the copies of an entry: the entry itself where several go
// about at once and their order is what it is about.
func (d *retransmitter) proc(e *entry) string {
	if e.alone {
		return fmt.Sprintf("%s/%d", d.name, e.sequence)
	}
	return d.name
}

func (d *retransmitter) inner(e *entry) string {
	return wire.InnerMsgID{Session: d.session.Session, Sequence: e.sequence}.Short()
}

func (d *retransmitter) outcome(e *entry, op history.Event, res wire.PublishResult, err error, own bool) {
	switch {
	case err != nil:
		if !d.peers.failed(op, err) {
			d.w.Count.Unknown.Add(1)
		}
	case res.Status == wire.StatusOK:
		op.Seq, op.Lane, op.Dup = res.Offset, int(res.Lane), res.Duplicate
		if own {
			e.mu.Lock()
			e.stored = true
			e.mu.Unlock()
		}
		d.w.Count.Published.Add(1)
		d.w.H.Complete(op, history.OK)
	default:
		if res.Status == wire.StatusSealed && own {
			e.mu.Lock()
			e.sealed = true
			e.mu.Unlock()
		}
		op.Err = res.Status.String()
		if !own {
			op.Err = "another body: " + op.Err
		}
		d.w.Count.Refused.Add(1)
		d.w.H.Complete(op, history.Fail)
	}
}

// seal closes a sequence that got no answer.
func (d *retransmitter) seal(e *entry, to line) {
	ctx, cancel := context.WithTimeout(context.Background(), copyTimeout)
	defer cancel()
	c := d.peers.get(ctx, to)
	if c == nil {
		return
	}
	ops := make([]history.Event, len(e.messages))
	for i, m := range e.messages {
		ops[i] = d.w.H.Invoke(history.Event{Proc: d.proc(e), Client: d.name, Node: c.Welcome.Node, F: history.Seal, Key: e.queue, ID: idOfBizID(m.BizID), Inner: d.inner(e)})
	}
	payload, err := c.Call(ctx, wire.OpSeal, wire.Seal{
		Incarnation: d.session.Session.Incarnation, Group: d.session.Session.Group, Session: d.session.Session.Number, Epoch: d.session.Epoch,
		Sequences: []uint64{e.sequence},
	})
	var reply wire.SealReply
	if err == nil {
		reply, err = wire.DecodeSealReply(payload)
	}
	if err == nil && (reply.Status != wire.StatusOK || len(reply.Outcomes) != 1) {
		err = fmt.Errorf("seal: %v, %d outcomes", reply.Status, len(reply.Outcomes))
	}
	for i, op := range ops {
		if err != nil {
			d.peers.failed(op, err)
		} else {
			d.sealed(e, op, reply.Outcomes[0], i)
		}
	}
}

// look looks up an outcome that is known here, at any node.
func (d *retransmitter) look(e *entry, to line) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	c := d.peers.get(ctx, to)
	if c == nil {
		return
	}
	op := d.w.H.Invoke(history.Event{Proc: d.proc(e), Client: d.name, Node: c.Welcome.Node, F: history.Look, Key: e.queue, ID: e.id, Inner: d.inner(e)})
	payload, err := c.Call(ctx, wire.OpOutcome, wire.Outcome{
		Incarnation: d.session.Session.Incarnation, Group: d.session.Session.Group, Session: d.session.Session.Number, Sequence: e.sequence,
	})
	var reply wire.OutcomeReply
	if err == nil {
		reply, err = wire.DecodeOutcomeReply(payload)
	}
	if err != nil {
		op.Err = err.Error()
		d.w.H.Complete(op, history.Fail) // whatever it was, a look changes nothing
		return
	}
	switch st := reply.Result.Status; st {
	case wire.StatusOK:
		op.Text, op.Seq, op.Lane = history.LookedStored, reply.Result.Offset, int(reply.Result.Lane)
	case wire.StatusSealed:
		op.Text = history.LookedSealed
	case wire.StatusNotStored:
		op.Text = history.LookedNothing
	default:
		op.Text = st.String()
	}
	d.w.H.Complete(op, history.OK)
}

// sealed writes what a seal said of an entry, for the message at i.
func (d *retransmitter) sealed(e *entry, op history.Event, o wire.PublishResult, i int) {
	e.mu.Lock()
	switch o.Status {
	case wire.StatusOK:
		op.Text, op.Seq, e.stored = history.LookedStored, o.Offset+uint64(i), true
	case wire.StatusSealed:
		op.Text, e.sealed = history.LookedSealed, true
	default:
		op.Text = o.Status.String()
	}
	e.mu.Unlock()
	d.w.H.Complete(op, history.OK)
}
