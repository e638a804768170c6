package cluster

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"onceq/fsm"
	"onceq/transport/wire"
)

// redrive is one step of sending dead letters and parked messages back to work, see
// wire.Redrive. It runs in a goroutine of its own at the leader: tables are read in
// bounded steps under the machine's lock, bodies and conditions are looked at while it is
// free, and what matches goes into the log as an Edit by place and turn. A message that
// was handed out since it was looked at is left alone by the machine, which also knows
// the priority that a dead letter has where it came from.
type redrive struct {
	g     *group
	m     wire.Redrive
	where []condition
	reply wire.RedriveReply

	verb    wire.EditVerb // of all places: a step has one edit, by whose nonce it is known again
	places  []wire.Place
	targets map[string]uint32
	origins []uint64 // of a dry step's matches: the numbers of their targets, 0 for one that is there
}

// redriveRequest answers a step.
func (h *handler) redriveRequest(g *group, c conn, corr uint32, payload []byte) {
	if refused := g.foreign(wire.OpRedrive, payload); refused != nil {
		c.Error(corr, *refused)
		return
	}
	m, err := wire.DecodeRedrive(payload)
	if err != nil {
		c.Error(corr, *malformed(err))
		return
	}
	select {
	case g.redrives <- struct{}{}:
	default:
		c.Error(corr, *errOverloaded("redrives"))
		return
	}
	started := h.n.spawn(func(ctx context.Context) {
		defer func() { <-g.redrives }()
		// An expression may be compiled to thousands of times its size: only so many at
		// a time as there are redrives.
		where, err := compile(m.Where)
		if err != nil {
			c.Error(corr, *malformed(err))
			return
		}
		r := &redrive{g: g, m: m, where: where, targets: map[string]uint32{}}
		if refused := r.step(ctx); refused != nil {
			c.Error(corr, *refused)
			return
		}
		c.Reply(corr, wire.OpRedrive, encoded(r.reply))
	})
	if !started {
		<-g.redrives
		c.Error(corr, *errOverloaded("redrives"))
	}
}

func (r *redrive) step(ctx context.Context) *wire.ErrorReply {
	r.reply.Status = wire.StatusOK
	goesOn, refused := r.begin(ctx)
	if refused != nil || !goesOn {
		return refused
	}
	if r.m.One {
		refused = r.named(ctx)
	} else {
		refused = r.among(ctx)
	}
	switch {
	case refused != nil:
		return refused
	case r.m.Dry:
		return r.missing(ctx)
	}
	return r.edit(ctx)
}

// begin says what there is to know before anything is looked at. It does not go on for a
// first step, a repeated one, and one that comes too late.
func (r *redrive) begin(ctx context.Context) (goesOn bool, refused *wire.ErrorReply) {
	var queue fsm.EditedQueue
	var known, target bool
	if refused := r.g.look(ctx, func() {
		queue, known = r.g.machine.Edited(r.m.Queue)
		_, target = r.g.machine.QueueByName(r.m.Target)
	}); refused != nil {
		return false, refused
	}
	p := &r.reply
	switch {
	case !known, r.m.Number != 0 && queue.Number != r.m.Number, r.m.Target != "" && (!target || r.m.Target == r.m.Queue):
		p.Status = wire.StatusNoQueue
		return false, nil
	}
	p.Number, p.Edited, p.Next = queue.Number, wire.Nonce(queue.Nonce), r.m.From
	for _, e := range queue.Ends {
		p.Ends = append(p.Ends, wire.Place{Lane: e.Lane, Offset: e.Offset})
	}
	switch {
	case len(r.m.Ends) == 0 || r.m.Number == 0:
		p.More = len(p.Ends) > 0
		return false, nil
	case r.m.Dry:
		return true, nil
	case p.Edited == r.m.Nonce:
		r.again(queue.States)
		return false, nil
	case p.Edited != r.m.Edited:
		p.Status, p.More = wire.StatusRevision, true
		return false, nil
	}
	return true, nil
}

// again answers a step that was done before.
func (r *redrive) again(states []fsm.EditState) {
	r.reply.Repeated, r.reply.More = true, !r.m.One
	for _, s := range states {
		if s == fsm.EditDone {
			r.reply.Moved++
		}
	}
	r.reply.Seen = r.reply.Moved
}

func (r *redrive) count(s wire.EditState) {
	switch s {
	case wire.EditDone:
		r.reply.Moved++
	case wire.EditRefused:
		r.reply.Refused++
	default:
		r.reply.Skipped++
	}
}

// named looks at the one message that was named.
func (r *redrive) named(ctx context.Context) *wire.ErrorReply {
	found, refused := r.lookOn(ctx, func() (*fsm.Look, bool) { return r.g.machine.LookAt(r.m.Queue, r.m.At.Lane, r.m.At.Offset) })
	if refused != nil {
		return refused
	}
	page, _ := r.g.messageInfos(r.reply.Number, found, r.bodies())
	if len(page) == 0 || page[0].State == wire.MessageLeased {
		r.reply.Skipped++
		return nil
	}
	r.reply.Seen++
	r.take(&page[0], found[0].OriginNumber)
	return nil
}

// among looks at the next messages from where the step begins.
func (r *redrive) among(ctx context.Context) *wire.ErrorReply {
	from := r.m.From
	if from.State != wire.MessageParked && from.State != wire.MessageReady {
		from = wire.RedriveFrom{State: wire.MessageReady, Lane: wire.PriorityMax}
	}
	r.reply.More = true
	for {
		found, refused := r.lookOn(ctx, func() (*fsm.Look, bool) {
			l, known := r.g.machine.Look(r.m.Queue, fsm.MessageState(from.State), fsm.MessageInfo{}, wire.RedriveMax)
			if known {
				l.StartAt(from.Lane, from.Offset)
			}
			return l, known
		})
		if refused != nil {
			return refused
		}
		page, cut := r.g.messageInfos(r.reply.Number, found, r.bodies())
		whole := len(found) < wire.RedriveMax && !cut
		for at := range page {
			i := &page[at]
			if i.Offset >= r.end(i.Lane) {
				// What is behind has come since the run began.
				if i.Lane == 0 {
					r.reply.Next, r.reply.More = stateAfter(from.State)
				} else {
					r.reply.Next = wire.RedriveFrom{State: from.State, Lane: i.Lane - 1}
				}
				return nil
			}
			if len(r.places) >= r.limit() || !r.take(i, found[at].OriginNumber) {
				r.reply.Next = wire.RedriveFrom{State: from.State, Lane: i.Lane, Offset: i.Offset}
				return nil
			}
			r.reply.Seen++ // one that is left to the next step is not counted twice
			r.reply.Next = wire.RedriveFrom{State: from.State, Lane: i.Lane, Offset: i.Offset + 1}
		}
		if !whole {
			return nil
		}
		r.reply.Next, r.reply.More = stateAfter(from.State)
		if !r.reply.More || len(page) > 0 {
			return nil
		}
		from = r.reply.Next
	}
}

// stateAfter is where a run goes on when it has seen all in one state.
func stateAfter(state wire.MessageState) (next wire.RedriveFrom, more bool) {
	if state == wire.MessageParked {
		return wire.RedriveFrom{State: state}, false
	}
	return wire.RedriveFrom{State: wire.MessageParked, Lane: wire.PriorityMax}, true
}

// lookOn makes a look to its end.
func (r *redrive) lookOn(ctx context.Context, begin func() (*fsm.Look, bool)) (found []fsm.MessageInfo, refused *wire.ErrorReply) {
	var l *fsm.Look
	known, done := true, false
	for !done && known {
		refused := r.g.look(ctx, func() {
			if l == nil {
				if l, known = begin(); !known {
					return
				}
			}
			done = r.g.machine.LookOn(l)
		})
		if refused != nil {
			if ctx.Err() == nil && l != nil { // else the look may still be read for
				l.Close()
			}
			return nil, refused
		}
	}
	if !known || l.Queue() != r.reply.Number {
		e := noQueue(r.m.Queue)
		return nil, &e
	}
	return l.Found(), nil
}

func (r *redrive) end(lane uint8) uint64 {
	for _, e := range r.m.Ends {
		if e.Lane == lane {
			return e.Offset
		}
	}
	return 0
}

func (r *redrive) limit() int {
	if r.m.Limit == 0 {
		return wire.RedriveMax
	}
	return int(min(r.m.Limit, wire.RedriveMax))
}

// take adds a message to the step if it is meant. It says no when it needs another verb
// than those before it.
func (r *redrive) take(i *wire.MessageInfo, origin uint64) bool {
	if slices.ContainsFunc(r.where, func(c condition) bool { return !c.holds(i) }) {
		return true
	}
	verb, target := wire.EditMove, r.m.Target
	switch {
	case target != "":
		origin = 0
	case i.OriginQueue != "":
		target = i.OriginQueue
	case i.State == wire.MessageParked:
		verb, target = wire.EditRequeue, r.m.Queue
	default:
		return true // it is no dead letter: it works here
	}
	if r.verb != 0 && verb != r.verb && !r.m.Dry {
		return false
	}
	r.verb = verb
	turn := 2 * uint64(i.Attempts)
	r.places = append(r.places, wire.Place{Lane: i.Lane, Offset: i.Offset, Turn: turn})
	if r.m.Dry {
		n, ok := r.targets[target]
		if !ok {
			n = uint32(len(r.reply.Targets))
			r.targets[target] = n
			r.reply.Targets = append(r.reply.Targets, target)
		}
		r.origins = append(r.origins, origin)
		r.reply.Matches = append(r.reply.Matches, wire.RedriveMatch{Lane: i.Lane, Offset: i.Offset, Target: n, Age: int64(i.Age)})
	}
	return true
}

// missing takes out of a dry step what would be refused, since its target is not there.
func (r *redrive) missing(ctx context.Context) *wire.ErrorReply {
	lost := map[uint64]bool{}
	if refused := r.g.look(ctx, func() {
		for _, n := range r.origins {
			there := r.g.machine.QueuesFrom(n, 1)
			lost[n] = n != 0 && (len(there) == 0 || there[0].Number != n)
		}
	}); refused != nil {
		return refused
	}
	at := -1
	r.reply.Matches = slices.DeleteFunc(r.reply.Matches, func(wire.RedriveMatch) bool {
		if at++; lost[r.origins[at]] {
			r.reply.Refused++
		}
		return lost[r.origins[at]]
	})
	return nil
}

// edit proposes what the step has found and tells what became of it.
func (r *redrive) edit(ctx context.Context) *wire.ErrorReply {
	if len(r.places) == 0 {
		return nil
	}
	e := wire.Edit{Incarnation: r.m.Incarnation, Group: r.m.Group, Number: r.reply.Number, Nonce: r.m.Nonce, Verb: r.verb, Places: r.places}
	if r.verb == wire.EditMove {
		e.Target = r.m.Target
	}
	done := make(chan outcome, 1)
	r.g.propose(fsm.KindEdit, encoded(e), func(o outcome) { done <- o })
	var o outcome
	select {
	case o = <-done:
	case <-ctx.Done():
		// Whether it happens nobody can say here; asked again, its nonce tells.
		return &wire.ErrorReply{Code: wire.CodeOutcomeUnknown, Retriable: true, Text: "the node is shutting down"}
	}
	if o.Err != nil {
		return o.Err
	}
	if r.reply.Status = wire.Status(o.Result.Status); r.reply.Status != wire.StatusOK {
		return nil
	}
	for _, s := range o.Result.Edits {
		r.count(wire.EditState(s))
		if s == fsm.EditDone {
			r.reply.Edited = r.m.Nonce
		}
	}
	return nil
}

// bodies says whether the messages themselves are needed.
func (r *redrive) bodies() bool {
	return slices.ContainsFunc(r.where, func(c condition) bool { return c.field == wire.FieldBizID || c.field == wire.FieldBody })
}

// condition is what a message must meet.
type condition struct {
	field wire.ConditionField
	match func(string) bool
}

func compile(where []wire.Condition) (cs []condition, err error) {
	for _, w := range where {
		c := condition{field: w.Field}
		switch {
		case w.Field < wire.FieldReason || w.Field > wire.FieldBody:
			return nil, fmt.Errorf("unknown field %d of messages", w.Field)
		case w.Match == wire.MatchEqual:
			c.match = func(s string) bool { return s == w.Value }
		case w.Match == wire.MatchRegexp:
			re, err := regexp.Compile(w.Value)
			if err != nil {
				return nil, err
			}
			c.match = re.MatchString
		default:
			return nil, fmt.Errorf("unknown match %d", w.Match)
		}
		cs = append(cs, c)
	}
	return cs, nil
}

// holds says whether a message meets the condition. One whose body is gone by now meets
// none that is about it.
func (c condition) holds(i *wire.MessageInfo) bool {
	switch c.field {
	case wire.FieldReason:
		return c.match(i.Reason)
	case wire.FieldError:
		return c.match(i.FirstError) || c.match(i.LastError)
	case wire.FieldOrigin:
		return c.match(i.OriginQueue)
	case wire.FieldKey:
		return c.match(i.OrderingKey)
	}
	if len(i.Message) == 0 {
		return false
	}
	m, err := wire.DecodeMessage(i.Message)
	if err != nil {
		return false
	}
	if c.field == wire.FieldBizID {
		return c.match(m.BizID)
	}
	return c.match(string(m.Body))
}
