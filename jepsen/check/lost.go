package check

import (
	"fmt"
	"slices"

	"onceq/jepsen/history"
)

// lost looks for confirmed ids that are nowhere when the queues are empty: never
// handed out, or handed out and gone without an ack that may have counted.
func lost(v *view, r *Report) {
	if !v.drained() {
		return // vacuity says so
	}
	lostByOutbox(v, r)
	end := v.drains[len(v.drains)-1].T1
	byProducer := map[string][]*message{}
	var producers []string
	for _, m := range v.order {
		p, ok := m.confirmed()
		if !ok {
			continue
		}
		if byProducer[p.Proc] == nil {
			producers = append(producers, p.Proc)
		}
		byProducer[p.Proc] = append(byProducer[p.Proc], m)
	}
	slices.Sort(producers)
	for _, proc := range producers {
		ms := byProducer[proc]
		first, last := -1, -1 // of those handed out
		for i, m := range ms {
			if len(m.grants) > 0 {
				if first < 0 {
					first = i
				}
				last = i
			}
		}
		for i, m := range ms {
			p, _ := m.confirmed()
			switch {
			case v.removed(m), len(m.dead) > 0, m.tooOldAt() <= end:
			case len(m.grants) == 0:
				where := "middle"
				if i > last {
					where = "postfix"
				} else if i < first {
					where = "prefix"
				}
				r.broken("lost", m.id, []op{p}, "confirmed by %s as offset %d and never handed out (%s of %s)", nodeOf(p), p.Seq, where, proc)
			case !m.mayBeAcked():
				r.broken("lost", m.id, append([]op{p}, m.grants...), "confirmed and handed out %d times, no ack of it can have counted, and its queue is empty", len(m.grants))
			}
		}
	}
}

// lostByOutbox: what an outbox has kept is a promise, although nobody may live to
// hear that it was carried out.
func lostByOutbox(v *view, r *Report) {
	for _, m := range v.order {
		if _, ok := m.confirmed(); ok || len(m.kept) == 0 || len(m.grants) > 0 || v.removed(m) {
			continue
		}
		r.broken("lost", m.id, m.kept, "kept by the outbox of %s and never handed out", m.kept[0].Proc)
	}
}

func nodeOf(o op) string {
	if o.Node == "" {
		return "the cluster"
	}
	return o.Node
}

// mayBeAcked says that an ack was asked for and not refused for good.
func (m *message) mayBeAcked() bool {
	for _, s := range m.settles {
		if s.F == history.Ack && s.maybe() {
			return true
		}
	}
	return false
}

// phantom looks for messages that should not exist.
func phantom(v *view, r *Report) {
	for _, m := range v.order {
		for _, g := range append(slices.Clone(m.grants), m.dead...) {
			if g.Err != "" {
				r.broken("phantom", m.id, []op{g}, "handed out with a body that is not its own: %s", g.Err)
			}
		}
		if len(m.grants) == 0 {
			continue
		}
		g := m.grants[0]
		if len(m.publishes) == 0 {
			r.broken("phantom", m.id, []op{g}, "handed out and never published")
			continue
		}
		if !slices.ContainsFunc(m.publishes, op.maybe) {
			r.broken("phantom", m.id, append(slices.Clone(m.publishes), g), "every copy was refused for good (%s), and it was handed out", m.publishes[0].Err)
			continue
		}
		if m.started() > g.T1 {
			r.broken("phantom", m.id, []op{g, m.publishes[0]}, "handed out before it was published")
		}
		for _, s := range m.seals {
			if s.Type == history.OK && s.Text == "sealed" {
				r.broken("phantom", m.id, []op{s, g}, "sealed as never stored, and it was handed out")
			}
		}
	}
}

// drain turns a queue that cannot be emptied into a violation: by then a message
// is stuck.
func drain(v *view, r *Report) {
	if n := len(v.drains); n > 0 && v.drains[n-1].Type == history.Fail {
		d := v.drains[n-1]
		r.broken("drain", "", []op{d}, "%s", fmt.Sprintf("after %.0f s without faults: %s", float64(d.T1-d.T0)/1e9, d.Err))
	}
}
