package check

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"onceq/jepsen/history"
)

// linearTimeout bounds the search on one id.
const linearTimeout = 10 * time.Second

// place is the state of one id in the model of session and queue. It is
// compared with ==.
type place struct {
	phase phase
	at    history.Place // where it was stored
	now   history.Place // where it is, when it was sent back to work since
	high  int           // the newest attempt granted
	lost  int           // attempts up to here do not hold it any more
	acked int           // the attempt that ended it
}

type phase uint8

const (
	absent phase = iota
	there
	gone
	sealedOff
)

// linearizable searches, for each id by itself, an order of its operations in
// which a queue with sessions and leases gives the answers that were given. An
// operation without an answer takes effect at any time after it was asked for, or
// never. A grant was made at any time before it was seen.
func linearizable(v *view, r *Report) {
	model := (&porcupine.NondeterministicModel{
		Init:              func() []any { return []any{place{}} },
		Step:              step,
		DescribeOperation: func(input, _ any) string { return describe(input.(known).op) },
	}).ToModel()
	for _, m := range v.order {
		ops := m.operations(v.setup)
		switch porcupine.CheckOperationsTimeout(model, ops, linearTimeout) {
		case porcupine.Illegal:
			var all []op
			for _, o := range ops {
				all = append(all, o.Input.(known).op)
			}
			slices.SortFunc(all, func(a, b op) int { return a.I - b.I })
			r.broken("linearizable", m.id, all, "no order of its %d operations explains their answers: %s", len(all), story(all))
		case porcupine.Unknown:
			r.unknown("linearizable: %s: no answer within %v", m.id, linearTimeout)
		}
	}
}

// known is an operation with the places that others have told for its id.
type known struct {
	op
	places []history.Place
	setup  history.Setup
}

func (m *message) operations(setup history.Setup) []porcupine.Operation {
	var places []history.Place
	for _, o := range append(append([]op(nil), m.publishes...), m.grants...) {
		if (o.F == history.Deliver || o.Type == history.OK) && !slices.Contains(places, o.Place()) {
			places = append(places, o.Place())
		}
	}
	if len(places) == 0 {
		places = []history.Place{{}}
	}
	var ops []porcupine.Operation
	add := func(o op, call int64) {
		ops = append(ops, porcupine.Operation{Input: known{o, places, setup}, Call: call, Return: o.end()})
	}
	// Operations that can be left out without changing the answer are, since the
	// search is exponential in what overlaps: a refusal that is right in every state,
	// and of those without an answer that would do the same all but the first.
	type effect struct {
		f       string
		attempt int
	}
	open := map[effect]bool{}
	ask := func(o op) {
		if o.Type == history.Info || o.Type == history.Invoke {
			e := effect{o.F, o.Attempt}
			if open[e] {
				return
			}
			open[e] = true
		}
		add(o, o.T0)
	}
	for _, o := range m.publishes {
		if o.Type != history.Fail || o.Err == "sealed" {
			ask(o)
		}
	}
	for _, o := range m.seals {
		if o.Type != history.Fail {
			ask(o)
		}
	}
	first := m.started()
	for _, o := range m.grants {
		add(o, min(first, o.T0))
	}
	for _, o := range m.settles {
		if o.F != history.Extend {
			ask(o)
		}
	}
	return ops
}

// step returns what the state may be after an operation was answered as it was.
func step(state, input, _ any) []any {
	s, o := state.(place), input.(known)
	var next []any
	may := func(p place) { next = append(next, p) }
	switch o.F {
	case history.Publish:
		o.publish(s, may)
	case history.Seal:
		o.seal(s, may)
	case history.Deliver:
		// Where it was sent back to work it has moved on, and had failed before.
		on := o.setup.Redriven && o.Attempt > 1 && movesOn(o.setup, s.now, o.Place())
		if s.phase == there && o.Attempt > s.high && (o.Place() == s.now || on) {
			s.high, s.now = o.Attempt, o.Place()
			may(s)
		}
	case history.Ack:
		o.ack(s, may)
	case history.Nack:
		o.nack(s, may)
	}
	return next
}

func (o known) publish(s place, may func(place)) {
	stored := place{phase: there, at: o.Place(), now: o.Place()}
	isStored := s.phase == there || s.phase == gone
	switch {
	case o.Type == history.OK && !o.Dup:
		if s.phase == absent {
			may(stored)
		}
	case o.Type == history.OK:
		if isStored && s.at == o.Place() {
			may(s)
		}
		if s.phase == absent && o.Copies > 1 {
			may(stored) // by an earlier copy of the same operation
		}
	case o.Type == history.Fail && o.Err == "sealed":
		// The client library seals by itself what it gives up.
		if s.phase == sealedOff || s.phase == absent && !o.setup.Raw {
			s.phase = sealedOff
			may(s)
		}
	case o.Type == history.Fail:
		may(s)
	default:
		may(s)
		if s.phase == absent {
			for _, at := range o.places {
				may(place{phase: there, at: at, now: at})
			}
		}
	}
}

func (o known) seal(s place, may func(place)) {
	isStored := s.phase == there || s.phase == gone
	closed := s
	closed.phase = sealedOff
	switch {
	case o.Type == history.OK && o.Text == "sealed":
		if !isStored {
			may(closed)
		}
	case o.Type == history.OK && o.Text == "stored":
		if isStored {
			may(s)
		}
	case o.Type == history.OK || o.Type == history.Fail:
		may(s)
	default:
		may(s)
		if s.phase == absent {
			may(closed)
		}
	}
}

func (o known) ack(s place, may func(place)) {
	done := s
	done.phase, done.acked = gone, o.Attempt
	counts := s.phase == there && s.high == o.Attempt && o.Attempt > s.lost
	repeat := s.phase == gone && s.acked == o.Attempt
	switch o.Type {
	case history.OK:
		if counts {
			may(done)
		}
		if repeat {
			may(s)
		}
	case history.Fail: // lost
		if repeat || s.phase == absent || s.phase == sealedOff {
			return
		}
		s.lost = max(s.lost, o.Attempt)
		may(s)
	default:
		may(s)
		if counts {
			may(done)
		}
	}
}

func (o known) nack(s place, may func(place)) {
	back := s
	back.lost = max(s.lost, o.Attempt)
	counts := s.phase == there && s.high == o.Attempt && o.Attempt > s.lost
	repeat := o.Attempt <= s.lost
	switch o.Type {
	case history.OK:
		if counts || repeat {
			may(back)
		}
	case history.Fail:
		if s.phase == there {
			may(back)
		} else if s.phase == gone {
			may(s)
		}
	default:
		may(s)
		if counts {
			may(back)
		}
	}
}

func describe(o op) string {
	text := fmt.Sprintf("%s %s %s", o.Proc, o.F, o.Type)
	if o.F == history.Publish || o.F == history.Deliver {
		text += fmt.Sprintf(" @%v", o.Place())
	}
	if o.Attempt > 0 {
		text += fmt.Sprintf(" #%d", o.Attempt)
	}
	if o.Dup {
		text += " dup"
	}
	return text
}

// story tells operations in a line.
func story(all []op) string {
	text := ""
	for i, o := range all {
		if i > 0 {
			text += "; "
		}
		if i == 12 {
			return text + "..."
		}
		text += describe(o)
	}
	return text
}
