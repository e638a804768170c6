package check

import (
	"onceq/jepsen/history"
	"onceq/transport/wire"
)

// resume: a consumer that attaches again lists what it has no answer for. It is
// told the truth about each, and sent only what it lacks.
func resume(v *view, r *Report) {
	for _, o := range v.resents {
		r.broken("resume", o.ID, []op{o}, "%s was sent attempt %d once more, which it had said that it has", o.Proc, o.Attempt)
	}
	for _, a := range v.attaches {
		if a.Type != history.OK {
			continue
		}
		for _, item := range a.Listed {
			if m := v.ids[item.ID]; m != nil {
				toldTruth(v, r, a, m, item)
			}
		}
	}
}

func toldTruth(v *view, r *Report, a op, m *message, item history.Item) {
	acked := func(count func(s op) bool) (op, bool) {
		for _, s := range m.settles {
			if s.F == history.Ack && s.Attempt == item.Attempt && count(s) {
				return s, true
			}
		}
		return op{}, false
	}
	switch item.State {
	case wire.LeaseAcked.String():
		if _, ok := acked(func(s op) bool { return s.maybe() && s.T0 <= a.T1 }); !ok {
			r.broken("resume", m.id, []op{a}, "%s hears that attempt %d is acked, and nobody had asked for that", a.Proc, item.Attempt)
		}
	case wire.LeaseUnknown.String():
		r.broken("resume", m.id, []op{a}, "%s has no answer for attempt %d, and the cluster has forgotten it", a.Proc, item.Attempt)
	case wire.LeaseHeld.String():
		if s, ok := acked(func(s op) bool { return s.Type == history.OK && s.T1 < a.T0 }); ok {
			r.broken("resume", m.id, []op{s, a}, "%s's ack of attempt %d was ok, and then it hears that it holds it", a.Proc, item.Attempt)
		}
		for _, g := range m.grants {
			if g.Attempt > item.Attempt && g.T1 < a.T0 {
				r.broken("resume", m.id, []op{g, a}, "%s hears that it holds attempt %d, and %s had got attempt %d", a.Proc, item.Attempt, g.Proc, g.Attempt)
			}
		}
	default:
		if s, ok := acked(func(s op) bool { return s.Type == history.OK && s.T1 < a.T0 }); ok {
			r.broken("resume", m.id, []op{s, a}, "%s's ack of attempt %d was ok, and then it hears: %s", a.Proc, item.Attempt, item.State)
		}
	}
}
