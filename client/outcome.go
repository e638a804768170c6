package client

import (
	"context"

	"onceq/transport/wire"
	"onceq/transport/wire/pack"
)

// OutcomeState is what is known of a publish.
type OutcomeState uint8

// The states of an Outcome.
const (
	NotStoredSoFar OutcomeState = iota // a copy may still arrive, until it is sealed
	Stored
	Never   // sealed: not stored, and never will be
	Unknown // the cluster cannot tell (any more), see Reason
)

func (s OutcomeState) String() string {
	switch s {
	case Stored:
		return "stored"
	case Never:
		return "never stored"
	case Unknown:
		return "unknown"
	}
	return "not stored so far"
}

// Outcome is the fate of one publish.
type Outcome struct {
	ID      InnerMsgID
	State   OutcomeState
	Message MessageID // of the first message, when Stored
	Count   int       // messages stored under ID
	// Outputs are the first messages in each queue that an ack-and-publish has
	// stored to; nil for any other publish.
	Outputs []MessageID
	Reason  string // when Unknown
}

// ParseInnerMsgID reads "s1.42.1093" or "s1.42.1093@9f3ac01276d3e5aa". Without
// an incarnation, that of the client's cluster is meant.
func ParseInnerMsgID(s string) (InnerMsgID, error) { return wire.ParseInnerMsgID(s) }

// Outcome looks up what became of a publish, without changing anything. Only
// Stored and Never are final: see Seal.
func (c *Client) Outcome(ctx context.Context, id InnerMsgID) (Outcome, error) {
	id = c.complete(id)
	if o, ok := c.recall(id); ok {
		return o, nil
	}
	o, _, err := c.lookUp(ctx, id)
	return o, err
}

// Seal closes id for good: afterwards it is stored, or it never will be. It must
// not be used on what a producer still sends; that one would be told that its
// publish is not stored.
func (c *Client) Seal(ctx context.Context, id InnerMsgID) (Outcome, error) {
	id = c.complete(id)
	if o, ok := c.recall(id); ok {
		return o, nil
	}
	tries := backoff{base: holdBase, most: holdMost}
	for {
		o, epoch, err := c.lookUp(ctx, id)
		if err != nil || o.State != NotStoredSoFar {
			return o, err
		}
		request := wire.Seal{
			Incarnation: id.Session.Incarnation, Group: id.Session.Group, Session: id.Session.Number, Epoch: epoch,
			Sequences: []uint64{id.Sequence},
		}
		payload, err := c.ask(ctx, wire.OpSeal, func(w *pack.Writer) { request.Append(w) })
		if err != nil {
			return Outcome{ID: id}, err
		}
		reply, err := wire.DecodeSealReply(payload)
		if err != nil {
			return Outcome{ID: id}, err
		}
		switch {
		case reply.Status == wire.StatusOK && len(reply.Outcomes) == 1 && (reply.Outcomes[0].Status == wire.StatusWindowFull || reply.Outcomes[0].Status == wire.StatusOutcomeCap):
			return Outcome{ID: id}, statusError(reply.Outcomes[0].Status, "seal "+id.Short())
		case reply.Status == wire.StatusOK && len(reply.Outcomes) == 1:
			return c.outcome(ctx, id, reply.Outcomes[0]), nil
		case reply.Status == wire.StatusFenced:
			// The session was opened again between the two requests.
		case reply.Status == wire.StatusSessionExpired, reply.Status == wire.StatusRestored:
			return c.outcome(ctx, id, wire.PublishResult{Status: reply.Status}), nil
		default:
			return Outcome{ID: id}, statusError(reply.Status, "seal "+id.Short())
		}
		if !pause(ctx, tries.next()) {
			return Outcome{ID: id}, causeOf(ctx)
		}
	}
}

func (c *Client) complete(id InnerMsgID) InnerMsgID {
	if id.Session.Incarnation == 0 {
		id.Session.Incarnation, _ = c.topo.identity()
	}
	return id
}

func (c *Client) lookUp(ctx context.Context, id InnerMsgID) (Outcome, uint64, error) {
	request := wire.Outcome{
		Incarnation: id.Session.Incarnation, Group: id.Session.Group, Session: id.Session.Number, Sequence: id.Sequence,
	}
	payload, err := c.read(ctx, wire.OpOutcome, func(w *pack.Writer) { request.Append(w) })
	if err != nil {
		return Outcome{ID: id}, 0, err
	}
	reply, err := wire.DecodeOutcomeReply(payload)
	if err != nil {
		return Outcome{ID: id}, 0, err
	}
	return c.outcome(ctx, id, reply.Result), reply.Epoch, nil
}

func (c *Client) outcome(ctx context.Context, id InnerMsgID, r wire.PublishResult) Outcome {
	o := Outcome{ID: id}
	switch r.Status {
	case wire.StatusOK:
		o.State = Stored
		place := func(p wire.Position) MessageID {
			o.Count += int(p.Count)
			return MessageID{
				Incarnation: id.Session.Incarnation, QueueNumber: p.Queue, Queue: c.queueName(ctx, p.Queue), Lane: p.Lane, Offset: p.Offset,
			}
		}
		if len(r.Outputs) == 0 {
			o.Message = place(wire.Position{Queue: r.Queue, Lane: r.Lane, Offset: r.Offset, Count: r.Count})
			break
		}
		for _, p := range r.Outputs {
			o.Outputs = append(o.Outputs, place(p))
		}
		o.Message = o.Outputs[0]
	case wire.StatusSealed:
		o.State = Never
	case wire.StatusNotStored:
		o.State = NotStoredSoFar
	case wire.StatusBelowFloor:
		// Our own producer may have sealed it while we asked.
		if known, ok := c.recall(id); ok {
			return known
		}
		o.State, o.Reason = Unknown, "its producer has an outcome for it and the cluster has forgotten it: ask the producer"
	case wire.StatusSessionExpired:
		o.State, o.Reason = Unknown, "the session is closed or expired: the cluster has forgotten its outcomes"
	case wire.StatusRestored:
		o.State, o.Reason = Unknown, "it is from before the cluster was restored from a backup, which has no record of it"
	case wire.StatusWrongIncarnation:
		o.State, o.Reason = Unknown, "the session belongs to another cluster, or to this one before it was restored"
	default:
		o.State, o.Reason = Unknown, r.Status.String()
	}
	return o
}

// queueName finds the name of a queue by its number, "" if it is gone.
func (c *Client) queueName(ctx context.Context, number uint64) string {
	c.mu.Lock()
	name, ok := c.queues[number]
	c.mu.Unlock()
	if ok {
		return name
	}
	queues, err := c.Admin().Queues(ctx)
	if err != nil {
		return ""
	}
	for _, q := range queues {
		c.learnQueue(q.Number, q.Name)
		if q.Number == number {
			name = q.Name
		}
	}
	return name
}

// ask is a call to the leader that Close waits for.
func (c *Client) ask(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) ([]byte, error) {
	if !c.enter() {
		return nil, ErrClosed
	}
	defer c.wg.Done()
	return c.produce.call(ctx, op, fill)
}

// read is ask for a request that changes nothing.
func (c *Client) read(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) ([]byte, error) {
	if !c.enter() {
		return nil, ErrClosed
	}
	defer c.wg.Done()
	return c.produce.read(ctx, op, fill)
}

// try is ask that also says whether an earlier copy of the request may have arrived,
// or may arrive yet.
func (c *Client) try(ctx context.Context, op wire.Op, fill func(w *pack.Writer)) (payload []byte, unknown bool, err error) {
	if !c.enter() {
		return nil, false, ErrClosed
	}
	defer c.wg.Done()
	return c.produce.try(ctx, op, fill)
}

// resolvedMax bounds what the client remembers of publishes that it has reported
// as unknown and sealed since.
const resolvedMax = 65_536

// remember keeps the final outcome of a publish that was reported as unknown: the
// machine forgets it when the producer's floor passes it.
func (c *Client) remember(o Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.resolved) >= resolvedMax {
		for id := range c.resolved {
			delete(c.resolved, id) // any one
			break
		}
	}
	c.resolved[o.ID] = o
}

func (c *Client) recall(id InnerMsgID) (Outcome, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.resolved[id]
	return o, ok
}
